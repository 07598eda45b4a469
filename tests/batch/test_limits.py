"""A batch leaves nothing behind in its process."""

import csv
from pathlib import Path

import pytest

from soupmix.batch.columns import Columns
from soupmix.batch.inputs import open_input
from soupmix.errors import RecipeError


def test_a_small_limit_is_not_everybodys(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    path = tmp_path / "in.csv"
    path.write_text('prompt\n"' + "word\n" * 30 + '"\n')
    table = open_input(path, tmp_path / "out.csv", Columns.parse(("prompt=prompt",), limit=99, model="tiny"))
    with pytest.raises(RecipeError, match="a cell of more than 99 characters"):
        table.count()
    assert csv.field_size_limit() == before
