"""docs/api.md is what `make docs` writes, and nothing public is missing from it."""

import inspect
import os
import re
from pathlib import Path

import pytest

import soupmix
from tests.support.api import page

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_the_page_is_what_the_docstrings_say() -> None:
    if os.environ.get("SOUPMIX_UPDATE"):
        PAGE.write_text(page(), "utf-8")
    assert PAGE.read_text("utf-8") == page(), "run `make docs`"


@pytest.mark.parametrize("name", [name for name in soupmix.__all__ if name != "__version__"])
def test_a_public_name_has_its_section(name: str) -> None:
    text = PAGE.read_text("utf-8")
    found = getattr(soupmix, name)
    if name in ("audit", "trust"):
        assert f"`soupmix.{name}`" in text
        return
    section = re.search(rf"^### `soupmix\.{name}`\n(.*?)(?=^###? |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    assert str(inspect.getdoc(found if name != "merge" else found.merge)).split("\n")[0] in section[1]
