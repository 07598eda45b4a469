"""One at a time: a lock on a folder itself, so that nothing is left behind in it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soupmix.errors import PolicyError

__all__ = ["locked"]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder; other processes and threads wait.

    Raises:
        PolicyError: there is no such folder ("missing").
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise PolicyError(f"{folder} cannot be opened as a folder: {error.strerror}", reason="missing") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
