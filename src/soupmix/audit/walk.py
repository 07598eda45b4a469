"""Going over a log from one end to the other, and stopping at the first bad place."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from soupmix.audit.merkle import leaf_hash
from soupmix.audit.records import Chain
from soupmix.audit.segments import Segment, read_origin, segments
from soupmix.errors import AuditError

__all__ = ["read_records", "walk"]


def read_records(folder: str | Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Every record of a log from the first on: its line without the newline, and what it says.

    Raises:
        AuditError: the folder holds no log, or the first bad place as `walk` names it, after what stands before it.
    """
    for line, record in walk(Path(folder), Chain(read_origin(Path(folder)))):
        if record is not None:
            yield line, record


def walk(folder: Path, chain: Chain) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Every record from where `chain` stands to the end: its line without the newline, and what it says.

    `chain` stands behind each record when it is given out. A last line that was never finished comes last, with None.

    Raises:
        AuditError: the first bad place, named; see `Chain.follow` for the reasons, and "missing-segment", "truncated",
            "damaged". OutputError: a file cannot be read.
    """
    found = segments(folder)
    start = max((place for place, each in enumerate(found) if each.first <= chain.tree.size), default=0)
    for segment in found[start:]:
        is_last = segment is found[-1]
        yield from _segment(segment, chain, is_last=is_last)
    if not found and chain.tree.size:
        raise AuditError(f"{chain.tree.size} records are gone: there is no file of records", reason="truncated")


def _segment(segment: Segment, chain: Chain, *, is_last: bool) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    name, size = segment.path.name, chain.tree.size
    if segment.first > size:
        raise AuditError(
            f"{name} begins with record {segment.first}, but record {size} comes next: a file is missing or was renamed",
            reason="missing-segment",
        )
    lines = segment.lines()
    _skip(segment, lines, chain)
    for number, raw in enumerate(lines, chain.tree.size - segment.first + 1):
        line = raw.removesuffix(b"\n")
        if line == raw:
            if not is_last:
                raise AuditError(f"{name} line {number}: it has no end, though a file follows", reason="bad-record")
            yield line, None
            return
        try:
            record = chain.follow(line)
        except AuditError as error:
            raise AuditError(f"{name} line {number}: {error}", reason=error.reason) from None
        yield line, record


def _skip(segment: Segment, lines: Iterator[bytes], chain: Chain) -> None:
    """Pass over the records that the chain knows already; the last of them must be the one that it knows."""
    count = chain.tree.size - segment.first
    last, seen = b"", 0
    for last in islice(lines, count):
        seen += last.endswith(b"\n")
    if seen < count:
        raise AuditError(
            f"{segment.path.name} ends with record {segment.first + seen - 1}, but the last checkpoint was made at "
            f"{chain.tree.size} records: the end of the log is gone",
            reason="truncated",
        )
    if count and leaf_hash(last.removesuffix(b"\n")) != chain.last:
        raise AuditError(
            f"{segment.path.name} line {count}: it is not the record that the last checkpoint names",
            reason="broken-chain",
        )
