"""Adapters on disk: safe reading, a manifest, digests. Names are imported on first use, so no torch until `load`."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soupmix.store.adapter import Adapter, Factors
    from soupmix.store.importing import read_adapter
    from soupmix.store.manifest import Gram, Manifest, ManifestEntry, read_manifest, shipped_root, write_manifest
    from soupmix.store.reader import AdapterFiles
    from soupmix.store.store import Store

__all__ = [
    "Adapter",
    "AdapterFiles",
    "Factors",
    "Gram",
    "Manifest",
    "ManifestEntry",
    "Store",
    "read_adapter",
    "read_manifest",
    "shipped_root",
    "write_manifest",
]

_HOMES = {
    "Adapter": "adapter",
    "AdapterFiles": "reader",
    "ManifestEntry": "manifest",
    "Factors": "adapter",
    "Gram": "manifest",
    "Manifest": "manifest",
    "Store": "store",
    "read_adapter": "importing",
    "read_manifest": "manifest",
    "shipped_root": "manifest",
    "write_manifest": "manifest",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
