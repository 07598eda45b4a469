"""Fail one call of the write path: every call is counted in a dry run, then call number n fails."""

import builtins
import errno
import fcntl
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from soupmix import scratch

__all__ = ["KINDS", "Faults"]

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_DIRECTORY
_CALLS = ("write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "chmod", "fchmod", "close")

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
            call(*arguments, **options)
        raise self._make()

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **options: self._through(name, call, *arguments, **options)

    def _os_open(self, path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & _WRITING:
            return self._through("open", _os_open, path, flags, *arguments, **options)
        return _os_open(path, flags, *arguments, **options)

    def _io_open(self, file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if not set(mode) & set("wax+"):
            return _io_open(file, mode, *arguments, **options)
        return _File(self._through("open", _io_open, file, mode, *arguments, **options), self)

    @contextmanager
    def planted(self) -> Iterator["Faults"]:
        """Watch every call for the length of a `with`."""
        with mock.patch.multiple(os, open=self._os_open, **{name: self._wrapped(name, getattr(os, name)) for name in _CALLS}):
            with (
                mock.patch.object(io, "open", self._io_open),
                mock.patch.object(builtins, "open", self._io_open),
                mock.patch.object(fcntl, "flock", self._wrapped("flock", fcntl.flock)),
                mock.patch.object(scratch, "exchange", self._wrapped("exchange", scratch.exchange)),
            ):
                yield self


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


_os_open, _io_open = os.open, io.open
