"""Which texts a field takes: three kinds of lines, and what no kind of line is."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from soupmix.fields import Cell, Hex, Line, ShortLine

KINDS = {"line": Line, "short": ShortLine, "cell": Cell}


def _takes(kind: Any, text: str) -> bool:
    try:
        return TypeAdapter(kind).validate_python(text) == text
    except ValidationError:
        return False


@pytest.mark.parametrize(
    ("text", "takers"),
    [
        ("Äpfel, 3 kg", {"line", "short", "cell"}),
        ("", {"cell"}),
        (" ", {"short", "cell"}),
        ("a|b", {"line", "short"}),
        ("x" * 200, {"line", "short", "cell"}),
        ("x" * 201, {"line"}),
        ("x" * 500, {"line"}),
        ("x" * 501, set()),
        ("two\nlines", set()),
        ("bell \a", set()),
        ("turned ‮ round", set()),
    ],
)
def test_which_lines_are_taken(text: str, takers: set[str]) -> None:
    assert {name for name, kind in KINDS.items() if _takes(kind, text)} == takers


@pytest.mark.parametrize(
    ("text", "taken"), [("0a" * 32, True), ("0A" * 32, False), ("0a" * 31, False), ("g" * 64, False)]
)
def test_a_digest_without_its_algorithm(text: str, taken: bool) -> None:
    assert _takes(Hex, text) is taken
    assert not _takes(Hex, text + "\n")
