"""Files of a model that are finished before all of it is: what a killed run leaves behind, and the next one goes on with.

They lie in the folder that becomes the result, under a lock, beside a journal with a line for each. A line is written when its
file is on the disk, and a file is taken over if it has the digest of its line: nothing half-written is taken for whole.
"""

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from soupmix.files import sha256_file, strict_json
from soupmix.scratch import remove

__all__ = ["FinishedFile", "Norms", "Parts"]

_JOURNAL: Final = ".soupmix-parts"
_MOST: Final = 256 << 20

Norms = Mapping[str, tuple[float, float]]
"""Module -> Frobenius norms of what rounding lost and of its delta, as far as they lie in one file."""


@dataclass(frozen=True, slots=True)
class FinishedFile:
    """A finished file: its digest, "sha256:<hex>", and the norms of what was folded into it."""

    digest: str
    norms: Norms


class Parts:
    """The finished files of a folder. A context manager; at its end the journal is removed, unless the process is killed.

    Args:
        folder: of nobody else. Whatever is no finished file in it is removed.

    Attributes:
        found: name -> what an earlier run had finished.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._journal = folder, folder / _JOURNAL
        self.found: Mapping[str, FinishedFile] = dict(_finished(folder, self._journal))
        for path in folder.iterdir():
            if path.name not in self.found and path != self._journal:
                remove(path)
        self._writer = ThreadPoolExecutor(1)
        self._noted: list[Future[None]] = []

    def __enter__(self) -> "Parts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for each in self._noted:
                each.result()
            self._journal.unlink(missing_ok=True)

    def add(self, name: str, digest: str, norms: Norms) -> None:
        """Note a file that is written and closed, once it is on the disk, while the caller goes on.

        Raises:
            OSError: of one that was noted before, as the disk refused it.
        """
        for each in self._noted:
            if each.done():
                each.result()
        self._noted.append(self._writer.submit(self._note, name, digest, norms))

    def _note(self, name: str, digest: str, norms: Norms) -> None:
        line = json.dumps({"name": name, "digest": digest, "norms": norms}) + "\n"
        with (self._folder / name).open("rb") as file:
            os.fsync(file.fileno())
        with self._journal.open("ab") as journal:
            journal.write(line.encode())
            journal.flush()
            os.fsync(journal.fileno())


def _finished(folder: Path, journal: Path) -> Iterator[tuple[str, FinishedFile]]:
    """The files of a folder that are those of a line of its journal."""
    for line in _lines(journal):
        try:
            said = strict_json(line)
            name, part = _part(said)
            path = folder / name
            is_file = Path(name).name == name and path.is_file() and not path.is_symlink()
            if is_file and f"sha256:{sha256_file(path)}" == part.digest:
                yield name, part
        except (ValueError, TypeError, KeyError, OSError, RecursionError):
            continue


def _lines(journal: Path) -> list[bytes]:
    """Those that were written to their end."""
    try:
        if journal.is_symlink() or journal.stat().st_size > _MOST:
            return []
        return journal.read_bytes().split(b"\n")[:-1]
    except OSError:
        return []


def _part(said: Any) -> tuple[str, FinishedFile]:
    norms = {str(module): (float(lost), float(delta)) for module, (lost, delta) in said["norms"].items()}
    return str(said["name"]), FinishedFile(str(said["digest"]), norms)
