"""Files that are whole or not there: digests, strict JSON, and atomic writes of files and folders."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from soupmix.errors import OutputError

__all__ = ["canonical_json", "digest_parts", "new_folder", "sha256_file", "strict_json", "sync_folder", "write_file"]

_TEMPORARY = ".soupmix-tmp-"


def canonical_json(value: Any) -> bytes:
    """One spelling for one value: sorted keys, ASCII, two-space indent, newline at the end. No NaN."""
    return (json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=True) + "\n").encode("ascii")


def strict_json(text: bytes | str) -> Any:
    """Parse JSON, refusing duplicate keys, NaN and Infinity. Raises `ValueError` with the offending item."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"duplicate key {key!r}")
            found[key] = value
        return found

    def constant(name: str) -> None:
        raise ValueError(f"{name} is not a JSON number")

    return json.loads(text, object_pairs_hook=unique, parse_constant=constant)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_parts(tag: str, parts: Mapping[str, str]) -> str:
    """Hex SHA-256 over a tag and named parts, sorted by name, every item length-prefixed so that none can pose as two."""
    digest = hashlib.sha256()
    items = [tag, *(item for pair in sorted(parts.items()) for item in pair)]
    for item in items:
        data = item.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file atomically and durably: temporary beside it, fsync, rename, fsync of the folder. `mode` is its mode."""
    try:
        handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(mode)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", reason="write-failed") from error


@contextmanager
def new_folder(target: Path, *, force: bool = False) -> Iterator[Path]:
    """Fill a temporary folder, then move it to `target` in one step; on any failure nothing of it remains.

    Args:
        target: where the folder will stand. Its parents are made.
        force: replace an existing folder (the old one stays until the new one is complete).

    Raises:
        OutputError: `target` exists and `force` is not given, or the disk refuses.
    """
    target = Path(target)
    if not force and (target.exists() or target.is_symlink()):
        raise OutputError(
            f"{target} exists already; choose another name or pass --force to replace it", reason="exists"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        temporary = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{target.name}-", dir=target.parent))
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}", reason="write-failed") from error
    try:
        yield temporary
        _seal_folder(temporary)
        _swap(temporary, target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {target}: {error.strerror or error}", reason="write-failed") from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _seal_folder(folder: Path) -> None:
    folder.chmod(0o755)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


def _swap(temporary: Path, target: Path) -> None:
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{target.name}-", dir=target.parent))
        target.rename(old / "old")
        temporary.rename(target)
        shutil.rmtree(old)
    else:
        temporary.rename(target)
    sync_folder(target.parent)


def _sweep(target: Path) -> None:
    """Remove what an earlier, killed writer of the same target left behind; put back a folder it had set aside."""
    for path in target.parent.glob(f"{_TEMPORARY}{target.name}-*"):
        if (path / "old").is_dir() and not target.exists():
            (path / "old").rename(target)
        shutil.rmtree(path, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises `OSError`."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
