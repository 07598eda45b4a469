"""Files of a database that are this user's alone: opened as themselves, never through a link, and never emptied."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soupmix.errors import OutputError
from soupmix.locks import locked

__all__ = ["own_files", "sole_opener"]

_BESIDE = ("-wal", "-shm", "-journal")  # what SQLite keeps beside a database
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # of a FIFO nobody is waited for


def own_files(path: Path) -> None:
    """Make an empty database that only this user may read, or check that one is, with what SQLite keeps beside it.

    Raises:
        OutputError: one of them is a link or no file, belongs to somebody else, or can be written by others: whoever can
            write there makes keys of their own (reason "not-private"). OSError: the disk refuses.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(_opened(path, os.O_CREAT))
    for end in _BESIDE:
        beside = path.with_name(f"{path.name}{end}")
        if os.path.lexists(beside):
            os.close(_opened(beside))


@contextmanager
def sole_opener(path: Path) -> Iterator[None]:
    """Wait until no other process opens this database. Raises as `own_files` does."""
    with locked(_opened(path.with_name(f"{path.name}.lock"), os.O_CREAT)):
        yield


def _opened(path: Path, more: int = 0) -> int:
    try:
        handle = os.open(path, _FLAGS | more, 0o600)
    except OSError as error:
        if path.is_symlink():
            raise _refused(path, "is a link") from error
        raise
    found = os.fstat(handle)
    wrong = _wrong(found)
    if wrong:
        os.close(handle)
        raise _refused(path, wrong)
    return handle


def _wrong(found: os.stat_result) -> str:
    if not stat.S_ISREG(found.st_mode):
        return "is no file"
    if found.st_nlink != 1:
        return "has another name elsewhere, by a hard link"
    if found.st_uid != os.geteuid():
        return "belongs to another user"
    return "can be written by other users" if found.st_mode & 0o022 else ""


def _refused(path: Path, wrong: str) -> OutputError:
    return OutputError(
        f"{path} {wrong}, so keys in it may be anybody's; see who could write there and `soupmix serve keys list`, then give "
        "a file of your own (chmod 600)",
        reason="not-private",
    )
