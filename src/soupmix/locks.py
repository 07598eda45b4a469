"""Exclusive locks on open files and folders (`flock`): the kernel lets go of one when its process ends, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["lock", "locked", "locked_folder"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def lock(handle: int, *, wait: bool = True) -> bool:
    """Lock an open file or folder until its descriptor is closed.

    Args:
        handle: its descriptor. wait: until nobody else holds it, in this process or another.

    Returns:
        Whether it is held now; False only if it was not waited for.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(handle: int) -> Iterator[None]:
    """Hold an open file or folder; others wait. It is closed at the end. Raises as `lock` does."""
    try:
        lock(handle)
        yield
    finally:
        os.close(handle)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold a folder itself, so that no lock file is left behind in it; others wait.

    Raises:
        OSError: there is no such folder, or it cannot be read.
    """
    with locked(os.open(folder, _FOLDER)):
        yield
