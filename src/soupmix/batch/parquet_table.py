"""Parquet tables, read and written in batches of rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from soupmix.batch.columns import ADDED, Columns, added
from soupmix.batch.line import Line
from soupmix.errors import RecipeError

__all__ = ["ParquetTable"]

_READ, _WRITTEN = 256, 16_384  # rows held at once


@dataclass(frozen=True, slots=True)
class ParquetTable:
    """A Parquet file; every row has a result. Needs pyarrow (`pip install 'soupmix[parquet]'`)."""

    path: Path
    columns: Columns

    def count(self) -> int:
        """Rows. Raises RecipeError: this is no Parquet ("bad-input"), pyarrow is missing ("no-pyarrow"), no such columns."""
        with self._opened() as file:
            self.columns.check(file.schema_arrow.names, self.path.name)
            return int(file.metadata.num_rows)

    def lines(self, start: int = 0) -> Iterator[Line]:
        """The rows from number `start` on."""
        wanted = set(self.columns.by_target.values())
        with self._opened() as file:
            number = 0
            for batch in file.iter_batches(_READ):
                names = [name for name in batch.schema.names if name in wanted]
                for row in batch.select(names).to_pylist() if number + len(batch) > start else [{}] * len(batch):
                    if number >= start:
                        yield self.columns.line(number, row)
                    number += 1

    def write(self, file: BinaryIO, results: Iterator[Mapping[str, Any]]) -> None:
        """Write the columns of the input, and answer, granted, error beside them."""
        import pyarrow as pa
        from pyarrow import parquet

        with self._opened() as source:
            schema = source.schema_arrow
            for name in ADDED:
                schema = schema.append(pa.field(name, pa.string()))
            with parquet.ParquetWriter(file, schema) as writer:
                for batch in source.iter_batches(_WRITTEN):
                    beside = zip(*map(added, islice(results, len(batch))), strict=True)
                    more = [pa.array(column, pa.string()) for column in beside]
                    writer.write_batch(pa.RecordBatch.from_arrays([*batch.columns, *more], schema=schema))

    def _opened(self) -> Any:
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError:
            raise RecipeError(
                f"{self.path.name} is Parquet, for which pyarrow is needed: pip install 'soupmix[parquet]'",
                reason="no-pyarrow",
            ) from None
        try:
            return parquet.ParquetFile(self.path)
        except pa.ArrowInvalid as error:
            raise RecipeError(f"{self.path.name} is not a Parquet file: {error}", reason="bad-input") from error
