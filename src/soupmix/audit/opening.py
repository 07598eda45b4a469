"""Taking hold of the folder of a log: made if need be, locked, and given a name."""

import os
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex

from soupmix.audit.appender import Appender
from soupmix.audit.notes import Checkpoint
from soupmix.audit.plain import check_place, open_plain
from soupmix.audit.segments import (
    CHECKPOINTS,
    ORIGIN,
    cut_unfinished,
    read_checkpoints,
    read_origin,
    segments,
)
from soupmix.errors import AuditError, OutputError, SoupmixError
from soupmix.files import sync_folder
from soupmix.locks import lock

__all__ = ["last_checkpoint", "name_of", "newest_checkpoint", "take"]

_LOCK = "lock"


def take(folder: Path, stack: ExitStack) -> None:
    """Make the folder, and lock it until the stack is closed."""
    check_place(folder)
    try:
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
            sync_folder(folder.parent)
        if not {path.name for path in folder.iterdir()} <= {_LOCK, ORIGIN}:
            read_origin(folder)
        handle = open_plain(folder / _LOCK, os.O_RDWR | os.O_CREAT)
        stack.callback(os.close, handle)
        free = lock(handle, wait=False)
    except OSError as error:
        if isinstance(error, SoupmixError):
            raise
        raise OutputError(
            f"cannot open audit log {folder}: {error.strerror or error}", reason="write-failed"
        ) from error
    if not free:
        raise AuditError(
            f"another process is writing the audit log {folder}; a log has one writer, so use that one or another folder",
            reason="in-use",
        )


def name_of(folder: Path) -> str:
    """The name of the log; a new one gets a random name."""
    if not segments(folder):
        with Appender(folder / ORIGIN) as file:
            cut_unfinished(file)
            if not file.size:
                file.append(f"soupmix.audit/{token_hex(16)}\n".encode())
    return read_origin(folder)


def last_checkpoint(folder: Path, origin: str) -> Checkpoint | None:
    """The newest checkpoint of a log. Raises `AuditError` if one is damaged or of another log ("other-log")."""
    last = None
    for last in read_checkpoints(folder):
        if last.origin != origin:
            raise AuditError(f"{CHECKPOINTS} has a checkpoint of another log, {last.origin}", reason="other-log")
    return last


def newest_checkpoint(folder: str | Path) -> Checkpoint:
    """The newest checkpoint that a log has written; the log may be open for writing meanwhile.

    Raises:
        AuditError: there is none yet (reason "no-checkpoint"), and as `last_checkpoint`.
    """
    folder = Path(folder)
    newest = last_checkpoint(folder, read_origin(folder))
    if newest is None:
        raise AuditError(
            f"{folder} has no checkpoint yet; make one with `soupmix audit checkpoint`", reason="no-checkpoint"
        )
    return newest
