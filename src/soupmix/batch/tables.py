"""Tables: CSV with a header line, commas and RFC 4180 quotes, in UTF-8; and Parquet, in batches of rows."""

import csv
import io
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from soupmix.batch.columns import ADDED, Columns, added, bad_row
from soupmix.batch.line import Line, bounded_lines
from soupmix.errors import RecipeError

__all__ = ["CsvTable", "ParquetTable"]

_READ, _WRITTEN = 256, 16_384  # rows held at once


def _written(cells: Sequence[str]) -> str:
    """One row, ended by a line feed. csv quotes only what is in its own end of a row, so that has to hold both of its marks."""
    row = io.StringIO()
    csv.writer(row, lineterminator="\r\n").writerow(cells)
    return f"{row.getvalue()[:-2]}\n"


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A CSV file; every row has a result, and blank lines are no rows.

    Bytes that are not UTF-8 make their row an error, and stand in the output as they were.
    """

    path: Path
    columns: Columns

    def count(self) -> int:
        """Rows without the header.

        Raises:
            RecipeError: quotes that do not close, or a line over the limit, after which no row is sure ("bad-input"); no
                header, or not these columns ("bad-column").
        """
        rows = self._rows()
        self.columns.check(next(rows, []), self.path.name)
        return sum(1 for _ in rows)

    def lines(self, start: int = 0) -> Iterator[Line]:
        """The rows from number `start` on."""
        rows = self._rows()
        header = next(rows, [])
        for number, row in enumerate(rows):
            if number < start:
                continue
            if len(row) == len(header):
                yield self.columns.line(number, dict(zip(header, row, strict=True)))
            else:
                yield Line(number, error=bad_row(number, f"it has {len(row)} cells, but the header has {len(header)}"))

    def write(self, file: BinaryIO, results: Iterator[Mapping[str, Any]]) -> None:
        """Write the columns of the input, and answer, granted, error beside them."""
        text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="", write_through=True)
        rows = self._rows()
        header = next(rows, [])
        text.write(_written([*header, *ADDED]))
        for row, result in zip(rows, results, strict=True):
            padded = [*row, *[""] * len(header)][: len(header)]
            text.write(_written([*padded, *(cell or "" for cell in added(result))]))
        text.detach()

    def _rows(self) -> Iterator[list[str]]:
        # the limit is one for the whole process, so it is only raised; what is ours is checked row by row
        csv.field_size_limit(max(csv.field_size_limit(), self.columns.limit))
        with self.path.open("rb") as file:
            rows = csv.reader(self._texts(file), strict=True)
            try:
                for row in filter(None, rows):
                    if max(map(len, row)) > self.columns.limit:
                        raise csv.Error(f"a cell of more than {self.columns.limit} characters")
                    yield row
            except csv.Error as error:
                raise RecipeError(
                    f"{self.path.name}, line {rows.line_num}: {error}; nothing was answered", reason="bad-input"
                ) from None

    def _texts(self, file: BinaryIO) -> Iterator[str]:
        for number, raw in enumerate(bounded_lines(file, self.columns.limit)):
            if raw is None:
                raise RecipeError(
                    f"{self.path.name}, line {number + 1}: it has more than {self.columns.limit} bytes; nothing was answered",
                    reason="bad-input",
                )
            yield (raw.removeprefix(BOM_UTF8) if number == 0 else raw).decode("utf-8", "surrogateescape") + "\n"


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
