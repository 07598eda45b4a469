"""Folders of adapters that `soupmix train` wrote, and whether they are what it wrote."""

from pathlib import Path
from typing import Any

from soupmix.errors import FileError
from soupmix.evaluate.trained import TEXTS
from soupmix.files import sha256_file, strict_json
from soupmix.replacing import plain_names
from soupmix.sealed import read_sealed

__all__ = ["CONFIG", "RECORD", "TENSORS", "file_digests", "is_finished", "is_trained"]

CONFIG, TENSORS, RECORD = "adapter_config.json", "adapter_model.safetensors", "training.json"
_WRITTEN = {CONFIG, TENSORS, RECORD, "effect.json", "README.md", TEXTS}
_RECORD_CAP = 1 << 24


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of both files of an adapter, under their names in a manifest. Raises `OSError`."""
    return {"config_sha256": sha256_file(folder / CONFIG), "tensors_sha256": sha256_file(folder / TENSORS)}


def is_finished(folder: Path, identity: str) -> bool:
    """Whether a folder holds the adapter of this identity, as it was written."""
    try:
        record: Any = strict_json(read_sealed(folder / RECORD, cap=_RECORD_CAP)[0])
        wanted = {"identity": identity, **file_digests(folder)}
        return {key: record[key] for key in wanted} == wanted
    except (FileError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def is_trained(folder: Path) -> bool:
    """Whether a folder holds an earlier adapter of this command and nothing else."""
    present = plain_names(folder)
    return present is not None and RECORD in present and present <= _WRITTEN
