"""Adapters as PEFT saves them, in a store of their base: what oracles of merging start from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from soupmix.base import Base
from soupmix.findings import Finding
from soupmix.store import Store

__all__ = ["PeftCase"]


@dataclass(frozen=True, eq=False)
class PeftCase:
    """A base, adapters by PEFT's own saving, and the store that they are in, with what was said of each."""

    base: Base
    folders: Mapping[str, Path]
    store: Store
    notes: Mapping[str, list[Finding]]

    @classmethod
    def made(
        cls, base: Base, folder: Path, configs: Mapping[str, Mapping[str, Any]], save: Callable[..., object]
    ) -> Self:
        """Every config saved by `save(base, folder, seed, **config)`, and added as a dimension of its own."""
        store = Store(folder / "store", create=True)
        folders = {name: folder / name for name in configs}
        notes: dict[str, list[Finding]] = {name: [] for name in configs}
        for seed, (name, config) in enumerate(configs.items()):
            save(base, folders[name], seed, **config)
            store.add(folders[name], name=name, dimension=name, pole=name, base=base, tell=notes[name].append)
        return cls(base, folders, store, notes)
