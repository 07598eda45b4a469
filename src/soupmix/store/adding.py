"""Changing a store: one writer at a time, and a change is there as a whole or not at all."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from soupmix.base import Base
from soupmix.base.layers import weight_path
from soupmix.errors import AdapterError, OutputError
from soupmix.fields import problem
from soupmix.findings import Finding
from soupmix.store.adapter import Factors
from soupmix.store.blobs import exclusive, load_entry, write_blob
from soupmix.store.experts import check_pieces
from soupmix.store.gram import base_norm, gram_of, norm_of, pairs_of, products
from soupmix.store.importing import CARD, Source, open_source
from soupmix.store.manifest import Manifest, ManifestEntry, manifest_if_any, write_manifest
from soupmix.store.reader import CONFIG, TENSORS
from soupmix.weights import check_name

__all__ = ["Addition", "add_adapter", "set_budget"]

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
    with open_source(folder, shapes, base) as source, exclusive(store):
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


def _current(store: Path) -> Manifest:
    found = manifest_if_any(store)
    return Manifest() if found is None else found


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
