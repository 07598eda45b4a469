"""The file that a batch is read from: one interface, three kinds."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from soupmix.batch.columns import Columns
from soupmix.batch.jsonl import JsonLines
from soupmix.batch.line import Line
from soupmix.batch.tables import CsvTable, ParquetTable
from soupmix.errors import RecipeError

__all__ = ["JSONL", "InputFile", "open_input"]

JSONL = (".jsonl", ".ndjson")
"""How the names of JSONL files end."""


class InputFile(Protocol):
    """A file of lines that is read more than once, and never as a whole."""

    @property
    def path(self) -> Path:
        """Which file."""

    @property
    def columns(self) -> Columns:
        """Which columns say what, and how long a line may be."""

    def count(self) -> int:
        """How many lines there are. Raises RecipeError (reason "bad-input") if that cannot be said."""

    def lines(self, start: int = 0) -> Iterator[Line]:
        """The lines from number `start` on."""

    def write(self, file: BinaryIO, results: Iterator[Mapping[str, Any]]) -> None:
        """Write the file's own kind of output, given the result of every line in order."""


def open_input(path: Path, out: Path, columns: Columns) -> InputFile:
    """The input, by the end of its name.

    Raises:
        RecipeError: no such file ("missing"), an input or output of an unknown kind ("bad-kind"), or both are one ("same-file").
    """
    if not path.is_file():
        raise RecipeError(f"there is no file {path}", reason="missing")
    if out.exists() and out.samefile(path):
        raise RecipeError(f"{out} is the input itself; choose another name for the output", reason="same-file")
    kinds: dict[str, InputFile] = dict.fromkeys(JSONL, JsonLines(path, columns))
    kinds |= {".csv": CsvTable(path, columns), ".parquet": ParquetTable(path, columns)}
    if path.suffix not in kinds or out.suffix not in (path.suffix, *JSONL):
        raise RecipeError(
            f"{path.name} to {out.name}: a batch reads .jsonl, .csv or .parquet, and writes .jsonl or what it reads",
            reason="bad-kind",
        )
    return kinds[path.suffix]
