"""A file that only grows: what was appended is on the disk, or it is not there at all."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Self

from soupmix.errors import AuditError, OutputError
from soupmix.files import sync_folder

__all__ = ["Appender", "open_plain"]


class Appender:
    """A file open for appending by one thread at a time.

    Attributes:
        path: which file. size: bytes that are surely on the disk.
    """

    __slots__ = ("_broken", "_handle", "path", "size")

    def __init__(self, path: Path, *, mode: int = 0o640) -> None:
        """Open the file, or make an empty one with that mode and make its name durable.

        Raises:
            OutputError: the disk refuses, or something else than a file stands there (reason "write-failed").
        """
        self.path, self._broken = path, False
        try:
            new = not path.exists()
            self._handle = open_plain(path, os.O_RDWR | os.O_CREAT, mode)
            try:
                self.size = os.fstat(self._handle).st_size
                if new:
                    sync_folder(path.parent)
            except BaseException:
                os.close(self._handle)
                raise
        except OSError as error:
            raise _failure(path, error) from error

    def append(self, data: bytes) -> None:
        """Write and wait until the disk has it.

        Raises:
            OutputError: the disk refuses; then nothing was appended (reason "write-failed").
            AuditError: an earlier failure left it unknown what the disk has (reason "broken"); open the file anew.
        """
        self._write(self.size, data)
        self.size += len(data)

    def overwrite(self, offset: int, data: bytes) -> None:
        """Replace bytes within the file, and wait until the disk has them. Raises as `append` does."""
        if offset + len(data) > self.size:
            raise ValueError("only bytes that were appended can be overwritten")
        self._write(offset, data)

    def cut(self, size: int) -> None:
        """Drop everything behind `size`; wait until the disk has the rest. Raises `OutputError`."""
        try:
            os.ftruncate(self._handle, size)
            os.fsync(self._handle)
        except OSError as error:
            raise _failure(self.path, error) from error
        self.size = size

    def close(self) -> None:
        """Close the file; it holds nothing that is not on the disk."""
        os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, offset: int, data: bytes) -> None:
        if self._broken:
            raise AuditError(
                f"{self.path} could not be written or tidied up before, so what it holds is not known; close the log "
                "and open it again",
                reason="broken",
            )
        self._broken = True  # until this is over, whatever interrupts it
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(self._handle, data[done:], offset + done)
        except OSError as error:
            with suppress(OSError):  # then the file stays broken, which the next call says
                os.ftruncate(self._handle, self.size)
                self._broken = False
            raise _failure(self.path, error) from error
        try:
            os.fsync(self._handle)
        except OSError as error:
            # After a failed fsync the kernel may call pages clean that never reached the disk: no second try helps.
            raise _failure(self.path, error) from error
        self._broken = False


def open_plain(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a regular file, or make one if the flags say so. Raises `OSError`, also if it is anything else."""
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return handle


def _failure(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {path}: {error.strerror or error}", reason="write-failed")
