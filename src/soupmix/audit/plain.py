"""Folders and files of a log are what stands under their names: no link is followed, and nothing special is waited at."""

import errno
import os
import stat
from pathlib import Path

from soupmix.errors import AuditError

__all__ = ["check_place", "open_plain"]


def check_place(folder: Path) -> None:
    """Refuse a folder that is a symbolic link, which whoever may change it could lead anywhere.

    Raises:
        AuditError: it is one (reason "symlink").
    """
    if folder.is_symlink():
        raise AuditError(
            f"the folder of the audit log {folder} is a symbolic link: name the folder itself", reason="symlink"
        )


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
