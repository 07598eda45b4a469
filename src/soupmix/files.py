"""Files that are whole or not there: digests, strict JSON, and atomic writes of files and folders."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from soupmix.errors import OutputError, SoupmixError
from soupmix.replacing import check_file, check_folder
from soupmix.scratch import put, scratch, sweep, sync_folder

__all__ = [
    "NotJson",
    "canonical_json",
    "compact_json",
    "digest_parts",
    "new_file",
    "new_folder",
    "sha256_file",
    "strict_json",
    "sync_folder",
    "told",
    "write_file",
    "writing",
]

_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode


def canonical_json(value: Any) -> bytes:
    """One spelling for one value: sorted keys, ASCII, two-space indent, newline at the end. No NaN."""
    return (json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=True) + "\n").encode("ascii")


def compact_json(value: Any) -> bytes:
    """One spelling for one value, on one line: sorted keys, no spaces, ASCII, no NaN."""
    return _ENCODE(value).encode("ascii")


class NotJson(ValueError):
    """What a text says is no JSON, in words."""


def strict_json(text: bytes | str) -> Any:
    """Parse JSON: UTF-8 without a mark, no duplicate keys, no NaN, no number beyond a float.

    Raises:
        ValueError: it is anything else; `NotJson` if it is no JSON at all. RecursionError: it is nested too deeply.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"duplicate key {key[:80]!a}")
            found[key] = value
        return found

    def constant(name: str) -> None:
        raise ValueError(f"{name} is not a JSON number")

    def finite(digits: str) -> float:
        number = float(digits)
        if math.isinf(number):
            raise ValueError(f"{digits[:80]} is beyond any float")
        return number

    # Left to itself, json guesses UTF-16 and UTF-32 from the first bytes, which other readers of the file do not.
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=constant, parse_float=finite)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise NotJson("it is empty") from None
        why = error.msg[:1].lower() + error.msg[1:]
        raise NotJson(f"line {error.lineno}, column {error.colno}: {why}") from None


def told(error: Exception) -> str:
    """Why something that was read is not what it should be, in words: those of `ValueError` are meant for people, and what
    Python says of a key that is missing or of a part that is something else is not."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeError):
        return "it is not UTF-8 text"
    return (
        str(error) if isinstance(error, ValueError | SoupmixError) else "something in it is missing or is another thing"
    )


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
    """Write a file of this mode atomically and durably: temporary beside it, fsync, rename, fsync of the folder.

    Raises:
        OutputError: the disk refuses, or something else than a file stands there ("not-ours"); it is still there.
    """
    with new_file(path, force=True, mode=mode) as file:
        file.write(data)


@contextmanager
def new_file(target: Path, *, force: bool = False, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Write a temporary file, then move it to `target` in one step; on any failure nothing of it remains.

    Args:
        force: replace a regular file that is there (it stays until the new file is complete). mode: of the file.

    Raises:
        OutputError: `target` exists ("exists", "not-ours"; see `soupmix.replacing`), or the disk refuses.
    """
    target = Path(target)
    with writing(target):
        sweep(target.parent, target.name)
        if force:
            check_file(target, force=True)
        with scratch(target, folder=False) as temporary:
            with open(temporary.handle, "wb", closefd=False) as file:
                yield file
            os.fchmod(temporary.handle, mode)
            os.fsync(temporary.handle)
            check_file(target, force=force)  # it may have come since
            temporary.path.replace(target)
            sync_folder(target.parent)


@contextmanager
def new_folder(
    target: Path,
    *,
    force: bool = False,
    own: Callable[[Path], bool] = lambda folder: False,
    reads: Iterable[Path] = (),
    key: str | None = None,
) -> Iterator[Path]:
    """Fill a temporary folder, then move it to `target` in one step; on any failure nothing of it remains.

    A process that is killed leaves it to the next one, which sweeps it or goes on with it.

    Args:
        target: where the folder will stand. Its parents are made.
        force: replace an empty folder that is there, or one that is `own` (it stays until the new one is complete).
        reads: files and folders that the new one is made from; see `soupmix.replacing`.
        key: of work that can be gone on with: what a killed process left of the same work is in the folder.

    Raises:
        OutputError: `target` exists ("exists", "not-ours"), or the disk refuses.
    """
    target, reads = Path(target), tuple(reads)
    with writing(target):
        sweep(target.parent, target.name, key)
        check_folder(target, force=force, own=own, reads=reads)
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch(target, folder=True, key=key) as temporary:
            yield temporary.path
            _seal_folder(temporary.path)
            check_folder(target, force=force, own=own, reads=reads)  # it may have come since
            put(temporary.path, target)
            sync_folder(target.parent)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Say of any refusal of the disk what could not be written, as `OutputError` (reason "write-failed")."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}", reason="write-failed") from error


def _seal_folder(folder: Path) -> None:
    folder.chmod(0o755)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)
