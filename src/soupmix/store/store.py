"""A folder of adapters with a manifest: digests are checked on every first load, never trusted."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from soupmix.errors import AdapterError
from soupmix.findings import Finding
from soupmix.public import public
from soupmix.store.adapter import Adapter
from soupmix.store.adding import Addition, add_adapter, check_own, refresh, remove_adapter, set_budget
from soupmix.store.blobs import load_entry
from soupmix.store.manifest import Manifest, ManifestEntry, find_entry, manifest_if_any, shipped_root
from soupmix.store.places import beneath, find_blob, home_of, read_store

if TYPE_CHECKING:
    import numpy as np

    from soupmix.base import Base

__all__ = ["Store"]

_log = logging.getLogger("soupmix.store")


@public
class Store:
    """Adapters on disk: `manifest.json` knows them by name, `blobs/` holds them by digest; iterates over its entries.

    Entries come sorted by name; all are of one base model. Everything but `load` and `add` works on the manifest alone.
    """

    def __init__(self, folder: str | Path, *, create: bool = False, maintain: bool = False) -> None:
        """Open a store; with `create`, a folder without a manifest is an empty store.

        Args:
            folder: where it is.
            create: see above.
            maintain: the adapters that are shipped with soupmix may be written, too, by who maintains it.

        Raises:
            AdapterError: no manifest there ("no-manifest"), or a damaged one ("bad-manifest").
        """
        self.folder, self._maintain = Path(folder), maintain
        self._loaded: dict[str, Adapter] = {}
        is_new = create and manifest_if_any(self.folder) is None and beneath(self.folder) is None
        self._manifest = Manifest() if is_new else read_store(self.folder)

    @classmethod
    def shipped(cls, *, maintain: bool = False) -> "Store":
        """The adapters that come with soupmix.

        Args:
            maintain: they may be written, by who maintains soupmix.
        """
        return cls(shipped_root(), maintain=maintain)

    @classmethod
    def of_user(cls, base: "Base") -> "Store":
        """The store of this user for a base, in the folder for user data ($SOUPMIX_DATA if set); empty before the first addition.

        That for the base of the shipped adapters lies over them: it has these too, by name, unless the user added others of
        that name. Laid anew over what another version of soupmix ships.

        Raises:
            AdapterError: the store is damaged.
            BaseModelError: it is to be laid anew, and the base is not found.
            OutputError: it is to be laid anew, and the disk refuses.
        """
        folder = home_of(base.digest)
        refresh(folder)
        return cls(folder, create=True)

    @property
    def manifest(self) -> Manifest:
        """The manifest as it was read."""
        return self._manifest

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the adapters, sorted: the order of every vector and matrix."""
        return self._manifest.names

    @property
    def total_budget(self) -> int | None:
        """Most that the weights may sum to, in millionths, as measured for this set; None if not measured."""
        return self._manifest.total_budget

    @property
    def base_norm(self) -> float | None:
        """Frobenius norm of the base's weights that adapters change, all modules together; None if not measured."""
        return self._manifest.base_norm

    def inner_product(self, one: str, other: str) -> float:
        """<delta_one, delta_other> of two adapters' whole deltas at weight 1. Unknown names raise `ValueError`."""
        return self._manifest.inner_product(one, other)

    @property
    def gram(self) -> "np.ndarray":
        """[K, K] float64 inner products of the adapters' whole deltas, in the order of `names`."""
        return self._manifest.gram_matrix()

    def gram_of(self, module: str) -> "np.ndarray":
        """[K, K] float64 inner products of the adapters' deltas of one module; zeros if nothing adapts it."""
        return self._manifest.gram_matrix(module)

    def __len__(self) -> int:
        return len(self._manifest)

    def __iter__(self) -> Iterator[ManifestEntry]:
        return iter(self._manifest)

    def __contains__(self, name: object) -> bool:
        return name in self._manifest.adapters

    def __getitem__(self, name: str) -> ManifestEntry:
        return find_entry(self._manifest, name)

    def path(self, name: str) -> Path:
        """The PEFT folder of an adapter, as other tools may read it; its bytes are checked by `load` only.

        Raises:
            WeightError: no such adapter ("unknown-adapter").
        """
        return find_blob(self.folder, self[name].digest)

    def load(self, name: str, expected_digest: str | None = None) -> Adapter:
        """Read an adapter, or give the one read before.

        Args:
            name: its name in this store.
            expected_digest: the identity somebody approved; must be the manifest's.

        Raises:
            WeightError: no such adapter ("unknown-adapter").
            AdapterError: the files are not those of the manifest, or not what was approved ("digest-mismatch"), or
                any check of the reader fails.
        """
        entry = self[name]
        if expected_digest is not None and expected_digest != entry.digest:
            raise AdapterError(
                f"adapter {name!r} in {self.folder} is {entry.digest}, but {expected_digest} was approved",
                reason="digest-mismatch",
            )
        if name not in self._loaded:
            self._loaded[name] = load_entry(self.folder, entry)
        return self._loaded[name]

    def add(
        self,
        folder: str | Path,
        *,
        dimension: str,
        pole: str,
        base: "Base",
        name: str | None = None,
        tags: tuple[str, ...] = (),
        licence: str = "unknown",
        training: dict[str, Any] | None = None,
        effect: dict[str, Any] | None = None,
        force: bool = False,
        tell: Callable[[Finding], object] | None = None,
    ) -> ManifestEntry:
        """Check an adapter against its base and copy it into the store, which is changed as a whole or not.

        What is copied is a PEFT LoRA folder's adapter_config.json, adapter_model.safetensors and README.md, byte for byte. An
        adapter in another form (MLX-LM, kohya, other names for tensors) is written anew in PEFT's, and `training` says from
        what. Whatever else lies beside is not read, but for a tokenizer and a template, which are compared with the base's.

        Args:
            folder: the adapter's folder, or its one safetensors file.
            dimension: what it steers.
            pole: to which end.
            base: the model it was trained on.
            name: its name in the store; default the pole.
            tags: see `ManifestEntry`, also for the next three.
            licence: SPDX identifier.
            training: how it was made, any JSON object.
            effect: what was measured, any JSON object.
            force: replace an adapter of that name.
            tell: called, once the adapter is in the store, with everything that is worth knowing of it and no reason to refuse
                it; None logs it as a warning.

        Raises:
            AdapterError: the folder is refused, the store is for another base ("wrong-base"), or as `check_writable`.
            WeightError: a name, dimension, pole or tag is not a name ("bad-name").
            OutputError: the name is taken and `force` is not given ("exists"), or the disk refuses.
        """
        self.check_writable()
        addition = Addition(
            pole if name is None else name, dimension, pole, tags, licence, training or {}, effect or {}
        )
        self._manifest = add_adapter(
            self.folder, Path(folder), addition, base, _logged if tell is None else tell, force=force
        )
        self._loaded.pop(addition.name, None)
        return self[addition.name]

    def remove(self, name: str) -> None:
        """Take an adapter out of the store, which is changed as a whole or not.

        Raises:
            WeightError: no such adapter ("unknown-adapter").
            AdapterError: it is shipped with soupmix ("shipped"), or another adapter of the store is damaged.
            BaseModelError: the base of the adapters is not found: what remains is measured against it.
            OutputError: the disk refuses.
        """
        self.check_writable()
        self._manifest = remove_adapter(self.folder, name)
        self._loaded.pop(name, None)

    def set_total_budget(self, millionths: int | None) -> None:
        """Record the most that the weights may sum to, as measured for this set. Raises as `check_writable`."""
        self.check_writable()
        self._manifest = set_budget(self.folder, millionths)

    def check_writable(self) -> None:
        """Raise `AdapterError` ("shipped") if this is what is shipped with soupmix, and it was not opened to maintain that."""
        if not self._maintain:
            check_own(self.folder)

    def __repr__(self) -> str:
        names = shorten(", ".join(self.names), 80, placeholder=" ...")
        return f"<Store {self.folder} of {len(self)} adapters: {names}>"


def _logged(note: Finding) -> None:
    _log.warning("%s: %s", note.subject, note.message)
