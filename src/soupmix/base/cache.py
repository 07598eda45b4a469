"""The user's cache: base models that were converted, and what is known of files that are not ours to write beside.

A conversion is made once, noticed when it breaks, and made again. A digest is computed once, and remembered by path and stamps;
how large the weights are, by digest. A record that somebody else can have written is not believed: which adapters fit a base, and
what a policy allows of a norm, rest on it.
"""

import hashlib
import logging
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

from soupmix.base.records import recalled, remember
from soupmix.base.safetensors import tensors_digest, weight_files
from soupmix.base.squares import Measured, measured, with_norm
from soupmix.errors import BaseModelError, OutputError
from soupmix.files import canonical_json, digest_parts, new_folder, sha256_file, write_file, writing
from soupmix.locks import locked
from soupmix.scratch import scratch, sweep

__all__ = [
    "MARKER",
    "cache_root",
    "converted",
    "dequantised",
    "file_sha256",
    "folder_digest",
    "stamp",
    "weight_squares",
]

MARKER = "soupmix_base.json"
_FORMAT = 3  # counts up when `convert` writes something else for the same source
_QUIET = {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}

_log = logging.getLogger(__name__)


def cache_root() -> Path:
    """The folder soupmix keeps converted models in: $SOUPMIX_CACHE, else the platform's user cache."""
    override = os.environ.get("SOUPMIX_CACHE")
    return Path(override).expanduser() if override else platformdirs.user_cache_path("soupmix")


def converted(
    name: str, source_sha256: str, find: Callable[[], Path], cache: Path, *, fresh: bool = False
) -> tuple[Path, str]:
    """The clean folder made from a GGUF file, and its base digest; made now if it is missing or damaged.

    Args:
        name: for people, in the folder's name. source_sha256: hex, of the GGUF file; keys the cache.
        find: called only if the source is needed; returns its path. cache: see `soupmix.base.cache_root`.
        fresh: believe no digest that is remembered.

    Raises:
        BaseModelError: the source is not the file it should be ("digest-mismatch") or cannot be converted.
        OutputError: the cache cannot be written.
    """
    folder = cache / "bases" / f"{name}-{source_sha256[:16]}-v{_FORMAT}"
    return _kept(folder, source_sha256, lambda: _convert(find(), source_sha256, folder), fresh=fresh)


def dequantised(source: Path, tensors: str, files: str, cache: Path, *, fresh: bool = False) -> tuple[Path, str]:
    """The clean folder of plain weights made from a quantised folder, and its base digest; made now if it is missing or damaged.

    Args:
        source: the quantised folder. tensors, files: its digests, as `Base` has them; they key the cache.
        cache: see `soupmix.base.cache_root`. fresh: believe no digest that is remembered.

    Raises:
        BaseModelError: transformers cannot make its weights plain here ("conversion-failed"), or it is not what its digests
            say ("digest-mismatch").
        OutputError: the cache cannot be written.
    """
    key = digest_parts("soupmix.dequantised.v1", {"files": files, "tensors": tensors})
    name = re.sub(r"[^A-Za-z0-9._-]", "_", source.name)[:80]
    folder = cache / "bases" / f"{name}-{key[:16]}-plain-v{_FORMAT}"
    return _kept(folder, key, lambda: _dequantise(source, tensors, key, folder), fresh=fresh)


def _kept(folder: Path, source: str, make: Callable[[], None], *, fresh: bool) -> tuple[Path, str]:
    """A folder of the cache that was made from `source` (hex) and its digest; made by `make` if it is missing or damaged."""
    with _locked(folder.parents[1] / "locks" / f"{folder.name}.lock"):
        digest = _usable(folder, source, fresh=fresh)
        if digest is None:
            make()
            digest = _usable(folder, source, fresh=fresh, own=True)
    if digest is None:
        raise BaseModelError(f"the converted base model {folder} changes while it is read", reason="unstable-cache")
    return folder, digest


@contextmanager
def _locked(path: Path) -> Iterator[None]:
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
    with locked(handle):
        yield


def _usable(folder: Path, source_sha256: str, *, fresh: bool, own: bool = False) -> str | None:
    """The recorded base digest, if the folder is what was recorded; stamps of files only touched are renewed.

    Args:
        own: this process wrote the record just now, on whatever disk.
    """
    record = recalled(folder / MARKER, own=own)
    if record is None or record.get("source_sha256") != source_sha256:
        return None
    if not _unchanged(folder, record.get("files"), fresh=fresh):
        return None
    digest = tensors_digest(folder) if fresh else record.get("digest")
    renewed = record | {"files": {key: item | {"stamp": stamp(folder / key)} for key, item in record["files"].items()}}
    if renewed != record:
        remember(folder / MARKER, renewed)
    return digest if isinstance(digest, str) else None


def _convert(source: Path, source_sha256: str, folder: Path) -> None:
    _log.info("converting %s, once", source.name)
    with _alone(source, source_sha256, folder) as copy, new_folder(folder, force=True, own=_any) as temporary:
        if said := _run("soupmix.base.convert", copy, temporary):
            raise BaseModelError(
                f"{source.name} cannot be converted: transformers says {said!r}; use a GGUF file of a causal language "
                "model that transformers supports, or a safetensors folder",
                reason="conversion-failed",
            )
        _mark(temporary, source_sha256)


def _dequantise(source: Path, tensors: str, key: str, folder: Path) -> None:
    _log.info("dequantising %s, once", source.name)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(folder, force=True, own=_any) as temporary:
        if said := _run("soupmix.base.dequantise", source, temporary):
            raise BaseModelError(
                f"base model {source} cannot be dequantised: transformers says {said!r}; merge into the model as it was "
                "before it was quantised, or export an adapter",
                reason="conversion-failed",
            )
        if tensors_digest(source) != tensors:
            raise BaseModelError(f"base model {source} changed while it was read", reason="digest-mismatch")
        _mark(temporary, key)


def _mark(folder: Path, source: str) -> None:
    """Record what was made, and from what (hex)."""
    files = {path.name: {"stamp": stamp(path), "sha256": sha256_file(path)} for path in folder.iterdir()}
    marker = {"source_sha256": source, "files": files, "digest": tensors_digest(folder)}
    write_file(folder / MARKER, canonical_json(marker))


def _any(_folder: Path) -> bool:
    """Under the name of a conversion there is nothing in the cache but conversions, whole or spoilt."""
    return True


@contextmanager
def _alone(source: Path, source_sha256: str, folder: Path) -> Iterator[Path]:
    """A copy of the source, hashed as it is copied, in a folder without anything else that could be read with it."""
    beside = folder.with_name(f"{folder.name}.source")
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent, beside.name)
        with scratch(beside, folder=True) as made:
            if _copy(source, made.path / source.name) != source_sha256:
                raise BaseModelError(
                    f"{source} is not the file it should be (sha256 differs from {source_sha256[:16]}...): install it "
                    "again",
                    reason="digest-mismatch",
                )
            yield made.path / source.name


def _copy(source: Path, target: Path) -> str:
    """Hex SHA-256 of what was copied."""
    digest = hashlib.sha256()
    with source.open("rb") as read, target.open("xb") as written:
        while block := read.read(1 << 20):
            digest.update(block)
            written.write(block)
    return digest.hexdigest()


def _run(program: str, source: Path, folder: Path) -> str:
    """Fill the empty `folder` from `source`, in a process of its own; why not, or "" if that was done."""
    watched, held = os.pipe()  # closed when this process ends, however it does, and then the conversion ends too
    try:
        done = subprocess.run(
            [sys.executable, "-m", program, str(source), str(folder), str(watched)],
            env=os.environ | _QUIET,
            stdin=subprocess.DEVNULL,  # where transformers would ask whether code may be run
            pass_fds=(watched,),
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(watched)
        os.close(held)
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1] if done.returncode else ""


def folder_digest(folder: Path, cache: Path, *, fresh: bool = False, squares: bool = False) -> str:
    """The base digest of a Hugging Face folder, see `tensors_digest`; computed anew if `fresh`.

    Args:
        folder: of the model. cache: see `cache_root`.
        squares: where the weights must be read, also remember what `weight_squares` gives.

    Raises:
        BaseModelError: the folder holds no readable safetensors weights.
    """

    def compute() -> str:
        return _measured(folder, cache).digest if squares else tensors_digest(folder)

    return _remembered(folder, weight_files(folder), compute, cache, fresh=fresh)


def weight_squares(folder: Path, digest: str, cache: Path) -> Mapping[str, float]:
    """Tensor name -> the sum of its squares, of the base with this digest; all weights are read if it is not remembered.

    Raises:
        BaseModelError: the folder does not hold that base any longer ("changed"), or cannot be read.
    """
    record = recalled(_squares_path(cache, digest)) or {}
    found: Any = record.get("squares")
    if record.get("digest") == digest and _are_squares(found, folder):
        return {name: math.nan if value is None else float(value) for name, value in found.items()}
    made = _measured(folder, cache)
    if made.digest != digest:
        raise BaseModelError(
            f"base model {folder} is no longer {digest[:23]}... but {made.digest[:23]}...: name it again",
            reason="changed",
        )
    return made.squares


def _measured(folder: Path, cache: Path) -> Measured:
    made = measured(folder)
    finite = {name: value if math.isfinite(value) else None for name, value in made.squares.items()}
    remember(_squares_path(cache, made.digest), {"digest": made.digest, "squares": finite})
    return made


def _squares_path(cache: Path, digest: str) -> Path:
    return cache / "squares" / f"{digest.removeprefix('sha256:')}.json"


def _are_squares(found: Any, folder: Path) -> bool:
    """Whether a record names every tensor that has a norm, each with a number or, where it is not finite, None."""
    if not isinstance(found, dict) or found.keys() != with_norm(folder):
        return False
    return all(value is None or (type(value) in (int, float) and value >= 0) for value in found.values())


def file_sha256(path: Path, cache: Path, *, fresh: bool = False) -> str:
    """Hex SHA-256 of a large file; computed anew if `fresh`."""
    return _remembered(path, (path,), lambda: sha256_file(path), cache, fresh=fresh)


def _remembered(path: Path, files: Sequence[Path], compute: Callable[[], str], cache: Path, *, fresh: bool) -> str:
    key = hashlib.sha256(str(path).encode()).hexdigest()
    now = {"path": str(path), "files": {file.name: stamp(file) for file in files}}
    record = None if fresh else recalled(cache / "digests" / f"{key}.json")
    if record is not None and {name: record.get(name) for name in now} == now and isinstance(record.get("digest"), str):
        return str(record["digest"])
    digest = compute()
    remember(cache / "digests" / f"{key}.json", now | {"digest": digest})
    return digest


def stamp(path: Path) -> list[int]:
    """Size, times (nanoseconds) and inode of a file: cheap signs of change, not proof of sameness.

    Whoever writes to a file can put its size and modification time back, but not the time of its last change.
    """
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def _unchanged(folder: Path, files: object, *, fresh: bool = False) -> bool:
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
