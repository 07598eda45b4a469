"""Fail one call of the write path: every call is counted in a dry run, then call number n fails."""

import builtins
import errno
import fcntl
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from soupmix import scratch

__all__ = ["KINDS", "Faults"]

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_DIRECTORY
_READING = os.O_NONBLOCK  # a folder that is opened so is read from: nobody waits for what lies in it
_CALLS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "chmod", "fchmod")

KINDS: dict[str, tuple[bool, Callable[[], BaseException]]] = {
    "no space": (True, lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
    "input/output error": (True, lambda: OSError(errno.EIO, os.strerror(errno.EIO))),
    "interrupt before": (True, KeyboardInterrupt),
    "interrupt after": (False, KeyboardInterrupt),
}
"""Name -> (whether the call fails before it has done anything, what it raises)."""


class Faults:
    """Counts the calls by which files are written, and makes one of them fail.

    Attributes:
        count: calls so far. hit: the name of the call that failed, None if none did.
    """

    def __init__(self, number: int, kind: str) -> None:
        """Fail call `number` (from 1; 0 for none)."""
        self.number, self.count, self.hit = number, 0, ""
        self._before, self._make = KINDS[kind]

    def _through(self, name: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self.count += 1
        if self.count != self.number:
            return call(*arguments, **options)
        self.hit = name
        if not self._before or name == "close":  # a descriptor is gone even when close complains
            _dropped(call(*arguments, **options))
        raise self._make()

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **options: self._through(name, call, *arguments, **options)

    def _os_open(self, path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & _WRITING and not flags & _READING:
            return int(self._through("open", _os_open, path, flags, *arguments, **options))
        return _os_open(path, flags, *arguments, **options)

    def _os_write(self, handle: int, data: Any) -> int:
        return self._through("write", _os_write, handle, data) if _is_output(handle) else _os_write(handle, data)

    def _os_close(self, handle: int) -> None:
        if _is_output(handle):
            self._through("close", _os_close, handle)
        else:
            _os_close(handle)

    def _io_open(self, file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if not set(mode) & set("wax+"):
            return _io_open(file, mode, *arguments, **options)
        return _File(self._through("open", _io_open, file, mode, *arguments, **options), self)

    @contextmanager
    def planted(self) -> Iterator["Faults"]:
        """Watch every call for the length of a `with`."""
        calls: dict[str, Any] = {name: self._wrapped(name, getattr(os, name)) for name in _CALLS}
        calls |= {"open": self._os_open, "write": self._os_write, "close": self._os_close}
        with (
            mock.patch.multiple(os, **calls),
            mock.patch.object(io, "open", self._io_open),
            mock.patch.object(builtins, "open", self._io_open),
            mock.patch.object(fcntl, "flock", self._wrapped("flock", fcntl.flock)),
            mock.patch.object(scratch, "exchange", self._wrapped("exchange", scratch.exchange)),
        ):
            yield self


def _is_output(handle: int) -> bool:
    """A folder, or a file open for writing; what is read goes through a memory file, see soupmix.sealed."""
    flags = fcntl.fcntl(handle, fcntl.F_GETFL)
    memory = str(Path(f"/proc/self/fd/{handle}").readlink()).startswith("/memfd:")
    return bool(flags & _WRITING) and not flags & _READING and not memory


def _dropped(result: Any) -> None:
    """What a call has opened when its answer is lost; nobody else can close it."""
    if isinstance(result, io.IOBase):
        result.close()


class _File:
    """A file whose writes are counted too; Python's own would go past `os.write`."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self._file, self._faults = file, faults

    def write(self, data: Any) -> Any:
        return self._faults._through("write", self._file.write, data)

    def flush(self) -> None:
        self._faults._through("flush", self._file.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


_os_open, _os_write, _os_close, _io_open = os.open, os.write, os.close, io.open
