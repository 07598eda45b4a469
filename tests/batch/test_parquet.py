"""Parquet: a line for every row in order, and every column in the output as it was."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from soupmix.errors import RecipeError
from tests.support.batch_files import REFUSED, result, source, written


@pytest.fixture
def path(tmp_path: Path) -> Path:
    table = pa.table(
        {
            "question": [f"why {n}" if n % 3 else None for n in range(700)],
            "elem": pa.array([None if n % 5 == 0 else n / 700 for n in range(700)], pa.float64()),
            "seed": pa.array(range(700), pa.int64()),
            "extra": [[n, n] for n in range(700)],
        }
    )
    parquet.write_table(table, tmp_path / "in.parquet", row_group_size=300)
    return tmp_path / "in.parquet"


def test_rows_come_in_order_and_stand_in_the_output_as_they_were(path: Path) -> None:
    file = source(path, "prompt=question", "weights.elementary=elem", "seed=seed")
    lines = list(file.lines())
    assert file.count() == len(lines) == 700
    for n, line in enumerate(lines):
        assert line.number == n
        assert (line.error is None) == bool(n % 3)
        if n % 3:
            assert line.body["messages"][0]["content"] == f"why {n}"
            assert line.body["seed"] == n
            assert line.body.get("soup") == (None if n % 5 == 0 else {"weights": {"elementary": n / 700}})
    assert [(each.number, each.body) for each in file.lines(512)] == [(each.number, each.body) for each in lines[512:]]
    out = path.with_name("out.parquet")
    results: Iterator[dict[str, Any]] = (
        result(str(n), {"elementary": "0.1"}) if n % 3 else REFUSED for n in range(700)
    )
    with out.open("wb") as writing:
        file.write(writing, results)
    before, after = parquet.read_table(path), parquet.read_table(out)
    assert after.select(before.column_names).equals(before)
    assert after["answer"].to_pylist() == [str(n) if n % 3 else None for n in range(700)]
    assert after["granted"].to_pylist() == ["elementary=0.1" if n % 3 else None for n in range(700)]
    assert after["error"].to_pylist() == [None if n % 3 else "refused-by-rule: not for minors" for n in range(700)]


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is not a Parquet file") as caught:
        source(written(tmp_path, "in.parquet", b"PAR1 nothing")).count()
    assert caught.value.reason == "bad-input"
