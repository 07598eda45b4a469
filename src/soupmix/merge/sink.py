"""Where an export goes: a folder, or nowhere at all when only the digests are wanted (rebuild-and-compare)."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["Sink", "Stream"]

_PENDING = 2


class Sink:
    """Takes the files of an export and remembers the SHA-256 of each.

    Attributes:
        digests: file name -> "sha256:<hex>" of what was written so far.
        keeps: whether there is a folder; without one only digests remain.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder, self.keeps = folder, folder is not None
        self.digests: dict[str, str] = {}

    def write(self, name: str, data: bytes) -> None:
        """Write a small file. Raises `OSError` as the disk does."""
        with self.stream(name) as stream:
            stream.write(data)

    @contextmanager
    def stream(self, name: str) -> Iterator["Stream"]:
        """A large file, written piece by piece while the caller makes the next piece."""
        path = Path(os.devnull) if self._folder is None else self._folder / name
        with path.open("wb") as file, ThreadPoolExecutor(1) as writer:
            stream = Stream(file, writer)
            yield stream
            self.digests[name] = f"sha256:{stream.finish()}"


class Stream:
    """A file being written and hashed in a thread of its own, at most two pieces behind.

    Pieces belong to the stream once given: the caller must not change them.
    """

    def __init__(self, file: BinaryIO, writer: ThreadPoolExecutor) -> None:
        self._file, self._writer = file, writer
        self._digest = hashlib.sha256()
        self._pending: list[Future[None]] = []

    def write(self, piece: bytes | memoryview) -> None:
        """Append a piece; waits when two are under way. Raises what an earlier piece raised."""
        while len(self._pending) >= _PENDING:
            self._pending.pop(0).result()
        self._pending.append(self._writer.submit(self._put, piece))

    def write_all(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Append every piece."""
        for piece in pieces:
            self.write(piece)

    def finish(self) -> str:
        """Wait for the last piece; the hex SHA-256 of the whole."""
        while self._pending:
            self._pending.pop(0).result()
        self._file.flush()
        return self._digest.hexdigest()

    def _put(self, piece: bytes | memoryview) -> None:
        self._digest.update(piece)
        self._file.write(piece)
