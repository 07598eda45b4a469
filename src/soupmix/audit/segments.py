"""The files of a log folder: segments of lines, checkpoints, origin; which is which, and reading them line by line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from soupmix.audit.appender import Appender
from soupmix.audit.checkpoints import Checkpoint
from soupmix.audit.records import MAX_LINE
from soupmix.errors import AuditError, OutputError
from soupmix.files import compact_json, strict_json

__all__ = [
    "CHECKPOINTS",
    "ORIGIN",
    "Segment",
    "Segments",
    "check_place",
    "cut_unfinished",
    "last_checkpoint",
    "newest_checkpoint",
    "note_line",
    "read_checkpoints",
    "read_origin",
    "segments",
]

CHECKPOINTS: Final = "checkpoints.jsonl"
ORIGIN: Final = "origin"

_NAME = re.compile(r"records-([0-9]{12})\.jsonl", re.ASCII)
_ORIGIN = re.compile(rb"soupmix\.audit/[0-9a-f]{32}\n", re.ASCII)


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of records: its path, and the number of the first record in it, which its name tells."""

    path: Path
    first: int

    def lines(self) -> Iterator[bytes]:
        """Its lines with their newlines; the last one may lack it. Raises as `_lines` does."""
        return _lines(self.path)


class Segments:
    """The last segment of a log, open for appending, and the next one when it is full."""

    __slots__ = ("_current", "_folder", "_limit")

    def __init__(self, folder: Path, limit: int) -> None:
        """Open the last segment, or make the first; a new one is begun once the last has `limit` bytes."""
        self._folder, self._limit = folder, limit
        found = segments(folder)
        self._current = Appender(found[-1].path if found else _path(folder, 0))

    def append(self, lines: bytes, first: int) -> None:
        """Append whole lines, the first of which is record number `first`. Raises as `Appender.append` does."""
        if self._current.size >= self._limit:
            new = Appender(_path(self._folder, first))
            self._current.close()
            self._current = new
        self._current.append(lines)

    def close(self) -> None:
        """Close the last segment."""
        self._current.close()

    def recover(self) -> int:
        """Cut a last line that was never finished; see `cut_unfinished`."""
        return cut_unfinished(self._current)


def segments(folder: Path) -> list[Segment]:
    """The segments of a log, in order."""
    found = [(match[1], path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [Segment(path, int(first)) for first, path in sorted(found)]


def read_origin(folder: Path) -> str:
    """The name of a log, "soupmix.audit/" and 32 hex digits.

    Raises:
        AuditError: the folder holds no log (reason "no-log"), a damaged one ("damaged"), or is a link to one ("symlink").
    """
    check_place(folder)
    if not (folder / ORIGIN).is_file():
        raise AuditError(f"{folder} is no audit log: it has no file named {ORIGIN}", reason="no-log")
    raw = next(_lines(folder / ORIGIN), b"")
    if not _ORIGIN.fullmatch(raw):
        raise AuditError(f"{folder / ORIGIN} does not hold the name of an audit log", reason="damaged")
    return raw[:-1].decode("ascii")


def read_checkpoints(folder: Path) -> Iterator[Checkpoint]:
    """The checkpoints that a log has written, oldest first; one that was never finished is left out.

    Raises:
        AuditError: one is damaged (reason "bad-checkpoint").
    """
    if not (folder / CHECKPOINTS).exists():
        return
    for number, line in enumerate(_lines(folder / CHECKPOINTS), 1):
        if line.endswith(b"\n"):
            try:
                found = Checkpoint.parse(_note(line))
            except (ValueError, RecursionError) as error:
                raise AuditError(f"{CHECKPOINTS} line {number}: {error}", reason="bad-checkpoint") from None
            yield found


def last_checkpoint(folder: Path, origin: str) -> Checkpoint | None:
    """The newest checkpoint of a log. Raises `AuditError` if one is damaged or of another log ("other-log")."""
    last = None
    for last in read_checkpoints(folder):
        if last.origin != origin:
            raise AuditError(f"{CHECKPOINTS} has a checkpoint of another log, {last.origin}", reason="other-log")
    return last


def newest_checkpoint(folder: str | Path) -> Checkpoint:
    """The newest checkpoint that a log has written; the log may be open for writing meanwhile.

    Raises:
        AuditError: there is none yet (reason "no-checkpoint"), and as `last_checkpoint`.
    """
    folder = Path(folder)
    newest = last_checkpoint(folder, read_origin(folder))
    if newest is None:
        raise AuditError(
            f"{folder} has no checkpoint yet; make one with `soupmix audit checkpoint`", reason="no-checkpoint"
        )
    return newest


def cut_unfinished(file: Appender) -> int:
    """Cut a last line without newline, which nobody was told of, and make the rest durable. Returns how many bytes."""
    whole = sum(len(line) for line in _lines(file.path) if line.endswith(b"\n"))
    cut = file.size - whole
    file.cut(whole)
    return cut


def note_line(checkpoint: Checkpoint) -> bytes:
    """A checkpoint as a line of its file."""
    return compact_json(checkpoint.text()) + b"\n"


def check_place(folder: Path) -> None:
    """Refuse a folder that is a symbolic link: whoever can change the link could lead it anywhere.

    Raises:
        AuditError: it is one (reason "symlink").
    """
    if folder.is_symlink():
        raise AuditError(
            f"the folder of the audit log {folder} is a symbolic link: name the folder itself", reason="symlink"
        )


def _note(line: bytes) -> str:
    text = strict_json(line)
    if not isinstance(text, str):
        raise ValueError("it is no text")
    return text


def _path(folder: Path, first: int) -> Path:
    return folder / f"records-{first:012d}.jsonl"


def _lines(path: Path) -> Iterator[bytes]:
    """Lines with their newlines.

    Raises:
        AuditError: not a plain file (reason "damaged"), or a line longer than any record ("bad-record").
        OutputError: it cannot be read.
    """
    if path.is_symlink() or not path.is_file():
        raise AuditError(f"{path.name} is no plain file", reason="damaged")
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise AuditError(f"{path.name} has a line of more than {MAX_LINE} bytes", reason="bad-record")
                yield line
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}", reason="read-failed") from None
