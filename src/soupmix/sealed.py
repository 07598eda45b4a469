"""Read a file once: hash it, and keep the very bytes that were hashed where nobody can change them any more.

A file that is mapped while somebody can still write to it is not a checked file: an in-place write shows up in later
reads, a truncation kills the process. So the bytes go to an anonymous memory file, which is then sealed.
"""

import errno
import fcntl
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from soupmix.errors import FileError, SoupmixError

__all__ = ["Sealed", "read_sealed", "sealed"]

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK = 1 << 20
# Where the platform has no sealed memory files, private bytes do: twice the memory for a moment, as safe.
_MEMFD = hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir()


@dataclass(frozen=True, slots=True)
class Sealed:
    """The bytes of a file as they were hashed.

    Attributes:
        sha256: hex. size: bytes. memory: descriptor of a sealed memory file, or the bytes themselves.
    """

    sha256: str
    size: int
    memory: int | bytes

    def open(self) -> BinaryIO:
        """A reader over the bytes, at their start."""
        if isinstance(self.memory, bytes):
            return io.BytesIO(self.memory)
        os.lseek(self.memory, 0, os.SEEK_SET)
        return os.fdopen(os.dup(self.memory), "rb")

    def read(self) -> bytes:
        """All bytes."""
        with self.open() as file:
            return file.read()


@contextmanager
def sealed(
    path: Path, *, cap: int, error: type[SoupmixError] = FileError, at: tuple[int, str] | None = None
) -> Iterator[Sealed]:
    """Read a regular file of at most `cap` bytes into sealed memory for the length of a `with`.

    Args:
        at: descriptor of an open folder, and the name to open there; `path` is then for messages only.
        error: what a refusal is raised as; an adapter, say, has an error of its own for whatever is wrong with its files.

    Raises:
        FileError (or `error`): reason "missing", "symlink", "not-a-file", "too-large" or "unreadable".
    """
    with ExitStack() as stack:
        try:
            content = _sealed(path, at, cap, stack)
        except FileError as refusal:
            raise error(str(refusal), reason=refusal.reason) from refusal.__cause__
        yield content


def read_sealed(path: Path, *, cap: int, error: type[SoupmixError] = FileError) -> tuple[bytes, str]:
    """The bytes of a small regular file and their hex SHA-256, refused like `sealed` refuses."""
    with sealed(path, cap=cap, error=error) as content:
        return content.read(), content.sha256


def _sealed(path: Path, at: tuple[int, str] | None, cap: int, stack: ExitStack) -> Sealed:
    handle = _open(path, at)
    stack.callback(os.close, handle)
    _check(path, os.fstat(handle), cap)
    memory = None
    if _MEMFD:
        memory = os.memfd_create("soupmix", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        stack.callback(os.close, memory)
    return _copy(path, handle, memory, cap)


def _open(path: Path, at: tuple[int, str] | None) -> int:
    try:
        return os.open(path, _FLAGS) if at is None else os.open(at[1], _FLAGS, dir_fd=at[0])
    except FileNotFoundError:
        raise FileError(f"{path} is missing", reason="missing") from None
    except OSError as error:
        if error.errno == errno.ELOOP:  # what O_NOFOLLOW says of a link
            raise FileError(
                f"{path} is a symbolic link, and links may point anywhere: put the file itself there", reason="symlink"
            ) from None
        raise FileError(f"{path} cannot be read: {error.strerror}", reason="unreadable") from None


def _check(path: Path, status: os.stat_result, cap: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"{path} is not a regular file", reason="not-a-file")
    if status.st_size > cap:
        raise _too_large(path, cap)


def _too_large(path: Path, cap: int) -> FileError:
    return FileError(f"{path} is larger than the {cap} bytes allowed for it", reason="too-large")


def _copy(path: Path, handle: int, memory: int | None, cap: int) -> Sealed:
    digest, size, blocks = hashlib.sha256(), 0, []
    try:
        while block := os.read(handle, _BLOCK):
            digest.update(block)
            size += len(block)
            if size > cap:  # the file grew after it was opened
                raise _too_large(path, cap)
            if memory is None:
                blocks.append(block)
            else:
                _write(memory, block)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}", reason="unreadable") from error
    if memory is None:
        return Sealed(digest.hexdigest(), size, b"".join(blocks))
    fcntl.fcntl(
        memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    )
    return Sealed(digest.hexdigest(), size, memory)


def _write(memory: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(memory, view) :]
