"""Changing a store: one writer at a time, and a change is there as a whole or not at all."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from soupmix.base import Base, base_of, remember_base
from soupmix.base.layers import weight_path
from soupmix.errors import AdapterError, OutputError
from soupmix.fields import problem
from soupmix.findings import Finding
from soupmix.store.adapter import Factors
from soupmix.store.beside import naming_bases
from soupmix.store.blobs import exclusive, load_entry, write_blob
from soupmix.store.experts import check_pieces
from soupmix.store.gram import base_norm, gram_of, norm_of, pairs_of, products
from soupmix.store.importing import CARD, Source, open_source
from soupmix.store.manifest import (
    Manifest,
    ManifestEntry,
    find_entry,
    manifest_if_any,
    read_manifest,
    shipped_root,
    write_manifest,
)
from soupmix.store.places import beneath, is_stale, own_entries
from soupmix.store.reader import CONFIG, TENSORS
from soupmix.weights import check_name

__all__ = ["Addition", "add_adapter", "check_own", "refresh", "remove_adapter", "set_budget"]

_PARTS = ("slice", "converted")  # the norm of the whole tensor would allow more than a rule says

Model = TypeVar("Model", ManifestEntry, Manifest)


@dataclass(frozen=True, slots=True)
class Addition:
    """What the caller says about a new adapter; the fields are those of `ManifestEntry`."""

    name: str
    dimension: str
    pole: str
    tags: tuple[str, ...]
    licence: str
    training: Mapping[str, Any]
    effect: Mapping[str, Any]


def add_adapter(
    store: Path, folder: Path, addition: Addition, base: Base, tell: Callable[[Finding], object], *, force: bool
) -> Manifest:
    """Check, copy, compute the Gram matrices, write the manifest; see `Store.add`."""
    for word in (addition.name, addition.dimension, addition.pole, *addition.tags):
        check_name(word)
    shapes, every = base.layers().shapes(), base.layers().every_shape()
    with naming_bases(folder, base), open_source(folder, shapes, base) as source, exclusive(store):
        manifest = _current(store)
        _check_place(store, manifest, addition.name, base, force=force)
        factors = source.files.factors(shapes if source.files.settings().own is None else every)
        check_pieces(factors, base)
        entry = _entry(addition, source, factors, base)
        _check_new(store, manifest, entry)
        updated = _with_entry(store, manifest, entry, factors, base)
        # Killed anywhere between these two, the store is the old one with a blob that nothing names.
        write_blob(store, entry.digest, _contents(source))
        write_manifest(store, updated)
    remember_base(base)
    for note in (*_notes(base), *source.notes):
        tell(note)
    return updated


def set_budget(store: Path, millionths: int | None) -> Manifest:
    """Write another total budget into the manifest."""
    with exclusive(store):
        now = _current(store)
        fields = {"adapters": now.adapters, "base_norm": now.base_norm, "gram": now.gram}
        manifest = _valid(Manifest, fields | {"total_budget": millionths})
        write_manifest(store, manifest)
    return manifest


def check_own(store: Path) -> None:
    """Refuse to write the folder that is shipped, however it is spelled. Raises `AdapterError` ("shipped")."""
    if store.exists() and store.resolve() == shipped_root().resolve():
        raise AdapterError(
            f"{store} holds what is shipped with soupmix, which is never written: leave --store out, for your own store over it, "
            "or name another folder; who maintains soupmix says --maintain",
            reason="shipped",
        )


def remove_adapter(store: Path, name: str) -> Manifest:
    """Take an adapter out; where it hid one of the same name in the store beneath, that is seen again; see `Store.remove`."""
    with exclusive(store):
        manifest, below = _current(store), _beneath(store)
        entry = find_entry(manifest, name)
        if below is not None and name not in own_entries(store, manifest):
            raise AdapterError(
                f"adapter {name!r} is shipped with soupmix, and what is shipped is never changed: leave it at weight 0, deny it "
                "in a policy, or work with a store of your own (--store DIR)",
                reason="shipped",
            )
        base = base_of(entry.base, entry.base_digest)
        if below is None:
            updated = _without(store, manifest, name, base)
        else:
            updated = _over(
                store, below, [each for each in own_entries(store, manifest).values() if each.name != name], base
            )
        write_manifest(store, updated)
    return updated


def refresh(store: Path) -> bool:
    """Lay a user's store over what is shipped now, if that is not what it lay over; whether it was."""
    below = _beneath(store)
    if below is None or not is_stale(store):
        return False
    with exclusive(store):
        own = own_entries(store, read_manifest(store))
        first = next(iter(below))
        write_manifest(store, _over(store, below, own.values(), base_of(first.base, first.base_digest)))
    return True


def _beneath(store: Path) -> Manifest | None:
    below = beneath(store)
    return None if below is None else read_manifest(below)


def _over(store: Path, below: Manifest, own: Iterable[ManifestEntry], base: Base) -> Manifest:
    """The manifest of a store with these adapters of its own over another's."""
    manifest, entries = below, list(own)
    for entry in entries:
        for hidden in [each for each in manifest if each.digest == entry.digest and each.name != entry.name]:
            manifest = _without(store, manifest, hidden.name, base)
        manifest = _with_entry(store, manifest, entry, load_entry(store, entry).modules, base)
    return manifest


def _without(store: Path, manifest: Manifest, name: str, base: Base) -> Manifest:
    adapters = {other: entry for other, entry in manifest.adapters.items() if other != name}
    if not adapters:
        return Manifest(total_budget=manifest.total_budget)
    pairs = {pair: held for pair, held in pairs_of(manifest.names, manifest.gram).items() if name not in pair}
    modules = {weight_path(module) for entry in adapters.values() for module in load_entry(store, entry).modules}
    gram = gram_of(sorted(adapters), modules, pairs)
    norm = _base_norm(base, gram.modules)
    return Manifest(adapters=adapters, total_budget=manifest.total_budget, base_norm=norm, gram=gram)


def _current(store: Path) -> Manifest:
    found = manifest_if_any(store)
    return (_beneath(store) or Manifest()) if found is None else found


def _check_place(store: Path, manifest: Manifest, name: str, base: Base, *, force: bool) -> None:
    others = [entry for entry in manifest if entry.name != name]
    if others and others[0].base_digest != base.digest:
        raise AdapterError(
            f"store {store} holds adapters of {others[0].base} ({others[0].base_digest[:23]}...), not of {base.label} "
            f"({base.digest[:23]}...): use another store",
            reason="wrong-base",
        )
    if name in manifest.adapters and not force:
        raise OutputError(f"store {store} has an adapter {name!r} already; pass --force to replace it", reason="exists")


def _check_new(store: Path, manifest: Manifest, entry: ManifestEntry) -> None:
    """A second name for one adapter would go round every rule that names it, and weights of both would add up."""
    for other in manifest:
        if other.digest == entry.digest and other.name != entry.name:
            raise AdapterError(
                f"store {store} holds this adapter already, as {other.name!r}: use that name; each adapter has one name",
                reason="same-adapter",
            )


def _entry(addition: Addition, source: Source, factors: Mapping[str, Factors], base: Base) -> ManifestEntry:
    files, settings = source.files, source.files.settings()
    fields = {name: getattr(addition, name) for name in Addition.__slots__} | {
        "training": {**addition.training, **({"rewritten_from": dict(source.rewritten)} if source.rewritten else {})},
        "rank": settings.rank,
        "alpha": settings.alpha,
        "scaling": "rslora" if settings.rslora else "lora",
        "target_modules": tuple(sorted({weight_path(module).rpartition(".")[2] for module in factors})),
        "config_sha256": files.config_sha256,
        "tensors_sha256": files.tensors.sha256,
        "base": base.label,
        "base_digest": base.digest,
        "delta_norm": norm_of(factors, base),
    }
    return _valid(ManifestEntry, fields)


def _valid(kind: type[Model], fields: Mapping[str, Any]) -> Model:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise AdapterError(problem(error), reason="bad-entry") from None


def _with_entry(
    store: Path, manifest: Manifest, entry: ManifestEntry, factors: Mapping[str, Factors], base: Base
) -> Manifest:
    """The manifest with a new entry. Of the other adapters only the products with the new one are computed."""
    adapters = dict(manifest.adapters) | {entry.name: entry}
    pairs = {pair: held for pair, held in pairs_of(manifest.names, manifest.gram).items() if entry.name not in pair}
    modules = set(map(weight_path, factors))
    for name in adapters:
        other = factors if name == entry.name else load_entry(store, adapters[name]).modules
        modules |= set(map(weight_path, other))
        one, two = sorted([(entry.name, factors), (name, other)], key=itemgetter(0))
        pairs[one[0], two[0]] = products(one[1], two[1], base)
    gram = gram_of(sorted(adapters), modules, pairs)
    norm = _base_norm(base, gram.modules)
    return Manifest(adapters=adapters, total_budget=manifest.total_budget, base_norm=norm, gram=gram)


def _base_norm(base: Base, modules: Iterable[str]) -> float | None:
    """None for a quantised base: what its weights stand for is known to their package only, once it has loaded them."""
    if base.quantisation is not None:
        return None
    table = base.layers()
    layers = [table[module] for module in modules]
    parts = [layer for layer in layers if layer.lies in _PARTS]
    return base_norm(base, (name for layer in layers if layer.lies not in _PARTS for name in layer.tensors), parts)


def _notes(base: Base) -> Iterator[Finding]:
    if (how := base.quantisation) is not None:
        message = (
            f"base {base.label} is quantised ({how.name}): its norm is not measured, so rules that bound the norm of a soup "
            "are refused, and a full model is written with --dequantise only"
        )
        yield Finding("quantised", base.label, message)


def _contents(source: Source) -> dict[str, bytes]:
    contents = {CONFIG: source.files.config, TENSORS: source.files.tensors.read()}
    return contents if source.card is None else contents | {CARD: source.card}
