"""Where an export goes: a folder, or nowhere at all when only the digests are wanted (rebuild-and-compare)."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from soupmix.merge.parts import Norms, Parts

__all__ = ["PENDING", "Sink", "Stream"]

PENDING = 3
"""Most pieces of a file that are on their way to the disk."""

_SLICE = 256 << 10  # bytes written at a time; for larger ones the kernel looks for large pages, and may look for long
_UNSENT = 64 << 20  # bytes written, of which the disk has not been asked to take any


class Sink:
    """Takes the files of an export and remembers the SHA-256 of each.

    Attributes:
        digests: file name -> "sha256:<hex>" of what was written so far.
        keeps: whether there is a folder; without one only digests remain.
        kept: names of files that an earlier run had finished.
    """

    def __init__(self, folder: Path | None, parts: Parts | None = None) -> None:
        self._folder, self.keeps, self._parts = folder, folder is not None, parts
        self.digests: dict[str, str] = {}
        self.kept: list[str] = []

    def taken_over(self, name: str) -> Norms | None:
        """What is noted of a file that an earlier run had finished; None: write it."""
        part = None if self._parts is None else self._parts.found.get(name)
        if part is None:
            return None
        self.digests[name] = part.digest
        self.kept.append(name)
        return part.norms

    def finished(self, name: str, norms: Norms) -> None:
        """Note that a file that was streamed needs not be written again. Raises as `Parts.add`."""
        if self._parts is not None:
            self._parts.add(name, self.digests[name], norms)

    def write(self, name: str, data: bytes) -> None:
        """Write a small file. Raises `OSError` as the disk does."""
        with self.stream(name) as stream:
            stream.write(data)

    @contextmanager
    def stream(self, name: str) -> Iterator["Stream"]:
        """A large file, hashed and written piece by piece while the caller makes the next pieces."""
        path = Path(os.devnull) if self._folder is None else self._folder / name
        with path.open("wb") as file, Stream(file, keeps=self.keeps) as stream:
            yield stream
            self.digests[name] = f"sha256:{stream.finish()}"


class Stream:
    """A file whose pieces are hashed in one thread and written in another, while a third has the disk take what is written.

    Without the third, all of the disk's work would be left for the end, where nothing else is left to do.
    """

    def __init__(self, file: BinaryIO, *, keeps: bool) -> None:
        self._file, self._keeps = file, keeps
        self._hasher, self._writer, self._sender = (ThreadPoolExecutor(1) for _ in range(3))
        self._digest = hashlib.sha256()
        self._pending: deque[tuple[Future[None], Future[int], Callable[[], None]]] = deque()
        self._sent: Future[None] | None = None
        self._unsent = 0

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (self._hasher, self._writer, self._sender):
            each.shutdown(cancel_futures=True)

    def write(self, piece: bytes | memoryview, release: Callable[[], None] = lambda: None) -> None:
        """Append a piece, which must not change until it is released; waits while `PENDING` pieces are under way.

        Args:
            piece: of the file. release: called by a later call of this object, when the piece is not needed any longer.

        Raises:
            OSError: the disk refused an earlier piece.
        """
        while len(self._pending) >= PENDING:
            self._settle()
        hashed = self._hasher.submit(self._digest.update, piece)
        self._pending.append((hashed, self._writer.submit(self._put, piece), release))

    def finish(self) -> str:
        """Wait for the last piece; the hex SHA-256 of the whole."""
        while self._pending:
            self._settle()
        if self._sent is not None:
            self._sent.result()
        self._file.flush()
        return self._digest.hexdigest()

    def _put(self, piece: bytes | memoryview) -> int:
        return sum(self._file.write(piece[at : at + _SLICE]) for at in range(0, len(piece), _SLICE))

    def _settle(self) -> None:
        """Wait for the oldest piece, release it, and have the disk take what was written, if that is much by now."""
        hashed, written, release = self._pending.popleft()
        hashed.result()
        self._unsent += written.result()
        release()
        if self._keeps and self._unsent >= _UNSENT and (self._sent is None or self._sent.done()):
            if self._sent is not None:
                self._sent.result()
            self._sent, self._unsent = self._sender.submit(os.fdatasync, self._file.fileno()), 0
