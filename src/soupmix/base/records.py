"""Small JSON records of the user's cache. One that somebody else can have written is not believed."""

import logging
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from soupmix.files import canonical_json, strict_json, write_file

__all__ = ["recalled", "remember"]

_log = logging.getLogger(__name__)


def recalled(path: Path, *, own: bool = False) -> dict[str, Any] | None:
    """A JSON object that soupmix wrote, or None if it is missing, damaged, or not `own` and in the hands of others."""
    try:
        with _opened(path) as file:
            if not (own or _is_ours(os.fstat(file.fileno()))):
                _log.warning(
                    "%s can be written by others, so it is not believed; set SOUPMIX_CACHE to a folder of your own",
                    path,
                )
                return None
            value = strict_json(file.read())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file to read, in this folder itself: a link would lead to what is this user's and says what others wrote."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    folder = os.open(path.parent, flags | os.O_DIRECTORY)
    try:
        handle = os.open(path.name, flags, dir_fd=folder)
    finally:
        os.close(folder)
    with os.fdopen(handle, "rb") as file:
        yield file


def _is_ours(status: os.stat_result) -> bool:
    """Whether it is a file, and nobody but this user, and root, can have written it."""
    ours = status.st_uid in (os.geteuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return ours and stat.S_ISREG(status.st_mode)


def remember(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically; a cache that cannot be written costs time next time, not this run."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, canonical_json(value))
    except OSError as error:
        _log.warning("cannot remember a digest: %s", error)
