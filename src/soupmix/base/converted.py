"""Converted base models in the cache: made once, noticed when they break, made again."""

import hashlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from soupmix.base.cache import MARKER, locked, read_record, stamp, unchanged, write_record
from soupmix.base.tensors import tensors_digest
from soupmix.errors import BaseModelError
from soupmix.files import canonical_json, new_folder, sha256_file, writing
from soupmix.scratch import scratch, sweep

__all__ = ["converted"]

_FORMAT = 1  # counts up when `convert` writes something else for the same source
_QUIET = {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
_log = logging.getLogger(__name__)


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
    with locked(cache / "locks" / f"{folder.name}.lock"):
        digest = _usable(folder, source_sha256, fresh=fresh)
        if digest is None:
            _convert(find(), source_sha256, folder)
            digest = _usable(folder, source_sha256, fresh=fresh)
    if digest is None:
        raise BaseModelError(f"the converted base model {folder} changes while it is read", reason="unstable-cache")
    return folder, digest


def _usable(folder: Path, source_sha256: str, *, fresh: bool) -> str | None:
    """The recorded base digest, if the folder is what was recorded; stamps of files only touched are renewed."""
    record = read_record(folder / MARKER)
    if record is None or record.get("source_sha256") != source_sha256:
        return None
    if not unchanged(folder, record.get("files"), fresh=fresh):
        return None
    digest = tensors_digest(folder) if fresh else record.get("digest")
    renewed = record | {"files": {key: item | {"stamp": stamp(folder / key)} for key, item in record["files"].items()}}
    if renewed != record:
        write_record(folder / MARKER, renewed)
    return digest if isinstance(digest, str) else None


def _convert(source: Path, source_sha256: str, folder: Path) -> None:
    _log.info("converting %s, once", source.name)
    with _alone(source, source_sha256, folder) as copy, new_folder(folder, force=True, own=_any) as temporary:
        _run_converter(copy, temporary)
        files = {path.name: {"stamp": stamp(path), "sha256": sha256_file(path)} for path in temporary.iterdir()}
        marker = {"source_sha256": source_sha256, "files": files, "digest": tensors_digest(temporary)}
        (temporary / MARKER).write_bytes(canonical_json(marker))


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


def _run_converter(source: Path, folder: Path) -> None:
    """Fill the empty `folder` from a GGUF file: bf16 safetensors, tokenizer, configs."""
    watched, held = os.pipe()  # closed when this process ends, however it does, and then the conversion ends too
    try:
        done = subprocess.run(
            [sys.executable, "-m", "soupmix.base.convert", str(source), str(folder), str(watched)],
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
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise BaseModelError(
            f"{source.name} cannot be converted: transformers says {lines[-1]!r}; use a GGUF file of a causal language "
            "model that transformers supports, or a safetensors folder",
            reason="conversion-failed",
        )
