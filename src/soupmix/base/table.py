"""The table of a base's layers: made from what transformers says, once a process, and remembered in the user's cache."""

import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

from pydantic import TypeAdapter, ValidationError

from soupmix.base.companions import CONFIG
from soupmix.base.conversion import Conversion, TensorGroup
from soupmix.base.layers import Layer, LayerTable, layers_of
from soupmix.base.loading import empty_model, saying
from soupmix.base.records import recalled, remember
from soupmix.base.safetensors import TensorInfo, read_tensors
from soupmix.errors import BaseModelError
from soupmix.files import canonical_json, digest_parts, sha256_file
from soupmix.version import __version__

__all__ = ["layer_table"]

_KEPT = 8

_Key = tuple[Path, str, str]
_tables: dict[_Key, LayerTable] = {}
_lock = threading.Lock()


def layer_table(folder: Path, digest: str, cache: Path) -> LayerTable:
    """The layers of the model in a folder; made once a process for one digest of tensors and one config.json.

    What transformers said is remembered in the cache, for importing it takes longer than most merges.

    Args:
        digest: of the tensors. cache: see `soupmix.base.cache_root`.

    Raises:
        BaseModelError: there is no config.json ("no-config"), or as `soupmix.base.loading.empty_model` and `read_tensors`.
    """
    with _lock:
        config = _config_sha256(folder)
        key = folder, digest, config
        if key not in _tables:
            while len(_tables) >= _KEPT:
                del _tables[next(iter(_tables))]
            _tables[key] = _remembered(folder, config, cache)
        return _tables[key]


def _config_sha256(folder: Path) -> str:
    try:
        return sha256_file(folder / CONFIG)
    except OSError as error:
        raise BaseModelError(
            f"{folder / CONFIG} cannot be read ({error.strerror}), and it says what the layers of the model are: put it there",
            reason="no-config",
        ) from None


def _remembered(folder: Path, config: str, cache: Path) -> LayerTable:
    """The table that the cache holds for such a model, or a new one."""
    path = cache / "layers" / f"{_key(read_tensors(folder), config)}.json"
    record = _read(path)
    if record is not None:
        return _table(folder, record, functools.cache(lambda: Conversion(empty_model(folder))))
    model = empty_model(folder)
    with saying(folder):
        conversion = Conversion(model)
        groups, unused = conversion.groups(read_tensors(folder))
        by_parameter = {target: group for group in groups for target in group.targets}
        record = _Record(unused, tuple(layers_of(model, by_parameter)), groups)
    if "dev" not in version("transformers"):  # the same version may say something else tomorrow
        remember(path, _RECORD.dump_python(record, mode="json"))
    return _table(folder, record, lambda: conversion)


def _key(tensors: Mapping[str, TensorInfo], config: str) -> str:
    """What a table depends on: config.json, the names and shapes of tensors, and who makes it."""
    lie = {name: [info.dtype, list(info.shape)] for name, info in tensors.items()}
    made_by = {name: version(name) for name in ("torch", "transformers")} | {"soupmix": __version__}
    parts = {"config": config, "tensors": canonical_json(lie).decode(), "made_by": canonical_json(made_by).decode()}
    return digest_parts("soupmix.layers.v1", parts)


@dataclass(frozen=True, slots=True)
class _Record:
    """What a `LayerTable` is made of."""

    unused: tuple[str, ...]
    layers: tuple[Layer, ...]
    groups: tuple[TensorGroup, ...]


_RECORD = TypeAdapter(_Record)


def _read(path: Path) -> _Record | None:
    found = recalled(path)
    try:
        return None if found is None else _RECORD.validate_python(found)
    except ValidationError:
        return None  # damaged: it is made again


def _table(folder: Path, record: _Record, conversion: Callable[[], Conversion]) -> LayerTable:
    layers = MappingProxyType({layer.path: layer for layer in record.layers})
    by_tensor = {name: group for group in record.groups for name in group.names}
    return LayerTable(record.unused, layers, folder, by_tensor, conversion)
