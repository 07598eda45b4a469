"""The user's cache: where it is, who may write to it now, and whether a folder in it is still what was put there."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

from soupmix import locks
from soupmix.errors import OutputError
from soupmix.files import canonical_json, sha256_file, strict_json, write_file

__all__ = ["MARKER", "cache_root", "locked", "read_record", "stamp", "unchanged", "write_record"]

MARKER = "soupmix_base.json"

_log = logging.getLogger(__name__)


def cache_root() -> Path:
    """The folder soupmix keeps converted models in: $SOUPMIX_CACHE, else the platform's user cache."""
    override = os.environ.get("SOUPMIX_CACHE")
    return Path(override).expanduser() if override else platformdirs.user_cache_path("soupmix")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made if missing); other processes and threads wait.

    Raises:
        OutputError: the lock file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise OutputError(
            f"cannot write to {path.parent}: {error.strerror}; name another cache folder in SOUPMIX_CACHE",
            reason="write-failed",
        ) from error
    with locks.locked(handle):
        yield


def stamp(path: Path) -> list[int]:
    """Size, times (nanoseconds) and inode of a file: cheap signs of change, not proof of sameness.

    Whoever writes to a file can put its size and modification time back, but not the time of its last change.
    """
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def read_record(path: Path) -> dict[str, Any] | None:
    """A JSON object that soupmix wrote, or None if it is missing or damaged."""
    try:
        value = strict_json(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def write_record(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically; a cache that cannot be written costs time next time, not this run."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, canonical_json(value))
    except OSError as error:
        _log.warning("cannot remember a digest: %s", error)


def unchanged(folder: Path, files: object, *, fresh: bool = False) -> bool:
    """Whether `folder` holds exactly the recorded files ({name: {"stamp", "sha256"}}), the marker aside.

    A file whose stamp differs but whose size does not is hashed again, and every file if `fresh`; a touched file is still
    the same file.
    """
    if not isinstance(files, dict) or not folder.is_dir():
        return False
    if {path.name for path in folder.iterdir()} - {MARKER} != set(files):
        return False
    return all(_same(folder / name, record, fresh=fresh) for name, record in files.items())


def _same(path: Path, record: object, *, fresh: bool) -> bool:
    if not isinstance(record, dict) or not path.is_file() or path.is_symlink():
        return False
    now, then = stamp(path), record.get("stamp")
    if now == then and not fresh:
        return True
    return isinstance(then, list) and now[:1] == then[:1] and sha256_file(path) == record.get("sha256")
