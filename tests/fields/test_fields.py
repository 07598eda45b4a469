"""Which texts a field takes: three kinds of lines, and what no kind of line is."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from soupmix.fields import Cell, Edge, Hex, Line, ShortLine, read_model

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


class _Point(Edge):
    x: int
    y: tuple[int, ...] = ()


def test_a_model_is_read_from_strict_json() -> None:
    assert read_model(_Point, b'{"x": 1, "y": [2, 3]}') == _Point(x=1, y=(2, 3))


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b'{"x": 1', "line 1, column 8: expecting"),
        (b"\xff\xfe{", "codec can't decode"),
        (b'{"x": 1, "x": 2}', "duplicate key 'x'"),
        (b'{"x": NaN}', "NaN is not a JSON number"),
        (b'{"x": ' + b"[" * 200_000, "nested too deeply"),
        (b"[]", "top level: must be an object"),
        (b'{"x": 1, "y": [2, "three"]}', "y.1: must be a whole number"),
        (b'{"x": 1, "z": 1}', "z: no such field is known here"),
    ],
)
def test_what_is_no_model_is_told_by_its_place(raw: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        read_model(_Point, raw)
    assert not isinstance(caught.value, ValidationError)
    assert told in str(caught.value)
