"""Digests of files that are not ours to write beside: computed once, remembered in the cache by path and stamps."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from soupmix.base.cache import read_record, stamp, write_record
from soupmix.base.tensors import tensors_digest, weight_files
from soupmix.files import sha256_file

__all__ = ["file_sha256", "folder_digest"]


def folder_digest(folder: Path, cache: Path, *, fresh: bool = False) -> str:
    """The base digest of a Hugging Face folder, see `tensors_digest`; computed anew if `fresh`.

    Raises:
        BaseModelError: the folder holds no readable safetensors weights.
    """
    return _remembered(folder, weight_files(folder), lambda: tensors_digest(folder), cache, fresh=fresh)


def file_sha256(path: Path, cache: Path, *, fresh: bool = False) -> str:
    """Hex SHA-256 of a large file; computed anew if `fresh`."""
    return _remembered(path, (path,), lambda: sha256_file(path), cache, fresh=fresh)


def _remembered(path: Path, files: Sequence[Path], compute: Callable[[], str], cache: Path, *, fresh: bool) -> str:
    key = hashlib.sha256(str(path).encode()).hexdigest()
    now = {"path": str(path), "files": {file.name: stamp(file) for file in files}}
    record = None if fresh else read_record(cache / "digests" / f"{key}.json")
    if record is not None and {name: record.get(name) for name in now} == now and isinstance(record.get("digest"), str):
        return str(record["digest"])
    digest = compute()
    write_record(cache / "digests" / f"{key}.json", now | {"digest": digest})
    return digest
