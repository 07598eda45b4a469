"""Temporaries beside their target: made under a lock, put in place in one step, and swept when their writer was killed.

A temporary that somebody holds locked is in use; one that nobody holds was left by a killed writer. The kernel lets go
of a lock when its process ends, however it ends. On a file system without locks everything works but the sweeping.
"""

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from soupmix.locks import lock

__all__ = ["Scratch", "exchange", "put", "remove", "scratch", "sweep", "sync_folder"]

_TEMPORARY = ".soupmix-tmp-"
_ASIDE = ".soupmix-old-"  # holds, under its own name, what is being replaced where the two cannot be exchanged
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_CANNOT_LOCK = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}
_CANNOT_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


@dataclass(frozen=True, slots=True)
class Scratch:
    """A temporary file or folder.

    Attributes:
        path: where it is. handle: descriptor that holds its lock; of a file, open for writing.
    """

    path: Path
    handle: int


@contextmanager
def scratch(target: Path, *, folder: bool, key: str | None = None) -> Iterator[Scratch]:
    """A temporary beside `target`; whatever stands under its name at the end is removed.

    Args:
        key: of work that can be gone on with; the folder that a killed writer of the same work left is given, as it is.

    Raises:
        OSError: as the disk does.
    """
    made = (None if key is None else _taken_up(target, key)) or _make(target, folder=folder)
    try:
        yield made
    finally:
        try:
            remove(made.path)
        finally:
            os.close(made.handle)


def put(temporary: Path, target: Path) -> None:
    """Move a folder to its target; what stands there is whole until then, and afterwards it is a temporary or gone.

    Where kernel and file system can exchange two names (Linux), a reader finds the old folder or the new one at every
    moment. Elsewhere there is an instant with neither, and `sweep` puts the old one back if it became longer.
    """
    if not os.path.lexists(target):
        temporary.rename(target)
    elif not exchange(temporary, target):
        _replace_in_turn(temporary, target)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where kernel or file system cannot. Raises `OSError`."""
    if _renameat2 is None:
        return False
    if _renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))


def sweep(folder: Path, name: str | None = None, key: str | None = None) -> None:
    """Remove what killed writers left in a folder: of the target `name`, or of every target; but not the work `key` of it."""
    if not folder.is_dir():
        return
    starts = tuple(start if name is None else _prefix(start, name) for start in (_TEMPORARY, _ASIDE))
    kept = None if name is None or key is None else _keyed(name, key)
    for path in sorted(folder.iterdir()):
        if path.name.startswith(starts) and path.name != kept:
            _sweep_one(path)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder if it is there. What cannot be removed now is for the next sweep."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises `OSError`."""
    handle = os.open(folder, _FOLDER)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _prefix(start: str, name: str) -> str:
    """Of the temporaries of one target: as short for every name, and no name is the beginning of another."""
    return f"{start}{sha256(os.fsencode(name)).hexdigest()[:16]}-"


def _make(target: Path, *, folder: bool, start: str = _TEMPORARY) -> Scratch:
    prefix = _prefix(start, target.name)
    while True:
        if folder:
            path = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
            handle: int | None = None
        else:
            handle, name = tempfile.mkstemp(prefix=prefix, dir=target.parent)
            path = Path(name)
        try:
            locked = _lock(path, handle)
        except BaseException:
            remove(path)
            raise
        if locked is not None:
            return Scratch(path, locked)


def _keyed(name: str, key: str) -> str:
    return f"{_prefix(_TEMPORARY, name)}{sha256(key.encode()).hexdigest()[:32]}"


def _taken_up(target: Path, key: str) -> Scratch | None:
    """The folder of this work, made or found, and locked; None where another works on it, or it may be somebody else's."""
    path = target.parent / _keyed(target.name, key)
    with suppress(FileExistsError):
        path.mkdir(0o700)
    try:
        handle = os.open(path, _FOLDER | os.O_NOFOLLOW)
    except OSError:
        return None
    found = os.fstat(handle)
    if found.st_uid == os.geteuid() and not found.st_mode & 0o022 and _lock_if_possible(handle, wait=False):
        with suppress(FileNotFoundError):
            if os.path.samestat(path.lstat(), found):
                return Scratch(path, handle)
    os.close(handle)
    return None


def _lock(path: Path, handle: int | None) -> int | None:
    """The locked descriptor of a new temporary; None if another writer swept it before it was locked."""
    try:
        handle = os.open(path, _FOLDER) if handle is None else handle
    except FileNotFoundError:
        return None
    try:
        _lock_if_possible(handle)
        if os.path.samestat(path.lstat(), os.fstat(handle)):
            return handle
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _sweep_one(path: Path) -> None:
    """Remove a temporary that nobody holds, holding it meanwhile; what cannot be opened is not ours to judge."""
    if path.is_symlink():  # a link that was replaced by a folder
        remove(path)
        return
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not _lock_if_possible(handle, wait=False):
            return
        if path.name.startswith(_ASIDE):
            _settle(path)
        else:
            remove(path)
    finally:
        os.close(handle)


def _lock_if_possible(handle: int, *, wait: bool = True) -> bool:
    """Lock a temporary; False if another holds it, or nobody can. Raises `OSError`."""
    try:
        return lock(handle, wait=wait)
    except OSError as error:
        if error.errno in _CANNOT_LOCK:
            return False
        raise


def _replace_in_turn(temporary: Path, target: Path) -> None:
    aside = _make(target, folder=True, start=_ASIDE)
    try:
        target.rename(aside.path / target.name)
        temporary.rename(target)
    finally:
        try:
            _settle(aside.path)
        finally:
            os.close(aside.handle)


def _settle(aside: Path) -> None:
    """Put back what was set aside if nothing took its place, else drop it."""
    for held in aside.iterdir() if aside.is_dir() else ():
        if not os.path.lexists(aside.parent / held.name):
            held.rename(aside.parent / held.name)
    remove(aside)
