"""The results so far, in order, beside the file they will become: a killed batch goes on behind the last whole one.

    soupmix batch 1 {"force":false,"input":"...","settings":{...}}      what is answered, and how
    1c291ca3 {"custom_id":...}                                          CRC-32 and result of line 0, then 1, 2, ...

The checksum begins from the number of the line, so a result counts only in its place. It finds torn writes and nothing else:
whoever can write to the file can make it fit. So what a resumed batch holds is checked against the policy before it counts
(`check_held`), and from then on the file must stay as it was read.
"""

import io
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from soupmix.errors import OutputError, RecipeError
from soupmix.files import compact_json, strict_json, sync_folder, writing
from soupmix.locks import lock
from soupmix.replacing import check_alone

__all__ = ["Journal", "check_plain", "journal_path", "open_journal"]

_MAGIC = b"soupmix batch 1 "
_REMEDY = "choose another output file"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_SYNC_EVERY = 1.0  # seconds: what the machine may lose when it crashes; a killed process loses nothing that was written


def journal_path(out: Path) -> Path:
    """Where the results for `out` are gathered."""
    return out.with_name(f"{out.name}.part")


class Journal:
    """Results in order; made by `open_journal`.

    Attributes:
        path: where. digest: of what is answered and how, hex SHA-256.
        done: how many results it holds. cut: bytes of an unfinished one that opening cut off.
        force: whether the batch was begun with leave to replace what stands under the name of its output.
    """

    def __init__(self, path: Path, handle: int, settings: Mapping[str, Any], *, force: bool) -> None:
        """Take over the open, locked file."""
        self.path, self._handle = path, handle
        self.digest = sha256(compact_json(dict(settings))).hexdigest()
        size = os.fstat(handle).st_size
        head = b"" if force else _first_line(handle)
        if not head.endswith(b"\n") and _MAGIC.startswith(head[: len(_MAGIC)]):  # killed before there was a result
            head = _MAGIC + compact_json({"force": force, "settings": dict(settings)}) + b"\n"
            os.ftruncate(handle, 0)
            os.pwrite(handle, head, 0)
            os.fsync(handle)
            sync_folder(path.parent)
            size = len(head)
        self.force = bool(_same(head, settings, path)["force"])
        self._start, self.done, self._size = len(head), 0, len(head)
        self._written = sha256()  # of all whole results: what was checked is what is read in the end
        for line in self._lines():
            self.done += 1
            self._size += len(line)
            self._written.update(line)
        self.cut = size - self._size
        os.ftruncate(handle, self._size)
        self._synced = time.monotonic()

    def append(self, result: bytes) -> None:
        """Add the result of the next line, without line breaks; it is in the file before this returns, on the disk soon after.

        Raises:
            OutputError: the disk refuses; opening the journal again cuts off what it took.
        """
        line = _framed(self.done, result)
        data = memoryview(line)
        with writing(self.path):
            while data:
                taken = os.pwrite(self._handle, data, self._size)
                self._size, data = self._size + taken, data[taken:]
            if time.monotonic() - self._synced > _SYNC_EVERY:
                self.sync()
        self.done += 1
        self._written.update(line)

    def sync(self) -> None:
        """Wait until the disk has every result. Raises `OutputError`."""
        with writing(self.path):
            os.fsync(self._handle)
        self._synced = time.monotonic()

    def results(self) -> Iterator[bytes]:
        """Every whole result in order, read from the file.

        Raises:
            OutputError: at the end, if the file was changed by something else since it was opened ("changed-meanwhile").
        """
        seen = sha256()
        for line in self._lines():
            seen.update(line)
            yield line[9:-1]
        if seen.digest() != self._written.digest():
            raise OutputError(
                f"{self.path} was changed while it was in use; look who writes to it, and pass --force to begin anew",
                reason="changed-meanwhile",
            )

    def _lines(self) -> Iterator[bytes]:
        with io.BufferedReader(_At(self._handle, self._start)) as file:
            for number, line in enumerate(file):
                if line != _framed(number, line[9:-1]):
                    return
                yield line

    def remove(self) -> None:
        """The results are elsewhere. Raises `OutputError`."""
        with writing(self.path):
            self.path.unlink(missing_ok=True)
            sync_folder(self.path.parent)


class _At(io.RawIOBase):
    """The open file itself, from a place on: its name may lead elsewhere by now."""

    def __init__(self, handle: int, start: int) -> None:
        self._handle, self._place = handle, start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._handle, len(buffer), self._place)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


@contextmanager
def open_journal(out: Path, settings: Mapping[str, Any], *, force: bool = False) -> Iterator[Journal]:
    """Begin a batch or go on with it, alone; results are on the disk when the context ends.

    Args:
        out: the file that the results will become. settings: whatever results depend on, as JSON by name.
        force: forget the results so far, and replace `out` in the end.

    Raises:
        RecipeError: the settings are others than those the batch was begun with (reason "batch-changed").
        OutputError: another process has it ("in-use"), the file is something else ("no-batch"), a link, a device or a file
            with other names too ("not-a-file"), or the disk refuses.
    """
    path = journal_path(out)
    check_plain(path)
    with writing(path):
        handle = os.open(path, _FLAGS, 0o644)
    try:
        check_alone(os.fstat(handle), path, remedy=_REMEDY)
        _hold(handle, path)
        with writing(path):
            journal = Journal(path, handle, settings, force=force)
        try:
            yield journal
        finally:
            journal.sync()
    finally:
        os.close(handle)


def check_plain(path: Path) -> None:
    """Raise OutputError (reason "not-a-file") if something stands there that is no plain file with this one name."""
    try:
        check_alone(path.lstat(), path, remedy=_REMEDY)
    except OSError as error:
        if isinstance(error, OutputError):
            raise


def _hold(handle: int, path: Path) -> None:
    try:
        held = lock(handle, wait=False) and os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        held = False
    if not held:
        raise OutputError(
            f"another process is writing {path}; wait for it, or choose another output file", reason="in-use"
        )


def _first_line(handle: int) -> bytes:
    with open(handle, "rb", closefd=False) as file:
        return file.readline(1 << 20)


def _same(head: bytes, settings: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What the batch was begun with, if that is these settings."""
    try:
        if not head.startswith(_MAGIC):
            raise ValueError("another beginning")
        begun: dict[str, Any] = strict_json(head[len(_MAGIC) :])
        before = begun["settings"]
        begun["force"], dict(before)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise OutputError(
            f"{path} is not a batch that was begun; move it away, or pass --force to begin anew", reason="no-batch"
        ) from None
    now = json.loads(compact_json(dict(settings)))
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if changed:
        said = "; ".join(f"{name} was {before.get(name)!s:.80} and is {now.get(name)!s:.80}" for name in changed)
        raise RecipeError(
            f"{path} was begun otherwise: {said}. Give the same input and settings, or --force to begin anew",
            reason="batch-changed",
        )
    return begun


def _framed(number: int, result: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(result, number), result)
