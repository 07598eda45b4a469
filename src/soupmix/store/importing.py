"""An adapter as others leave it: which of a folder's files is read, how it is brought into PEFT's form, and what is said of it.

Nothing is refused for what lies beside it, since nothing else is read: no pickle, no state of an optimiser, no code. What was
read is hashed as it was read; a store keeps these bytes, or what was written anew from them.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from soupmix.base import Base, Layer
from soupmix.base.layers import weight_path
from soupmix.base.safetensors import StoredTensor
from soupmix.errors import AdapterError
from soupmix.findings import Finding
from soupmix.sealed import Sealed
from soupmix.store.adapter import Factors
from soupmix.store.beside import beside
from soupmix.store.config import EXTRACT, LoraSettings, StoreForm, parse_config
from soupmix.store.experts import stacked_weights
from soupmix.store.folder import SourceFolder, json_object, source_folder
from soupmix.store.foreign import MlxSettings, check_parts, in_peft_form, mlx_settings, rewritten
from soupmix.store.names import TensorPart, parts_of
from soupmix.store.reader import (
    CONFIG,
    MAX_BYTES,
    MAX_CONFIG,
    PREFIX,
    TENSORS,
    AdapterFiles,
    check_layers,
    check_plain,
    gain_of,
    header_of,
    sealed_bytes,
)
from soupmix.store.unchanged import unchanged
from soupmix.store.whole import Extra, embedding_parts, extras_of

__all__ = ["CARD", "PICKLED", "Source", "card_of", "open_source", "read_adapter"]

CARD = "README.md"
_MAX_CARD = 1 << 20
_MLX_TENSORS = "adapters.safetensors"
_MODEL_CONFIG = "config.json"
_SAFETENSORS = ".safetensors"
PICKLED = "adapter_model.bin"


@dataclass(frozen=True, slots=True)
class Source:
    """An adapter that was read, in PEFT's form.

    Attributes:
        files: its two files, as a store may keep them. card: its README.md, or None.
        notes: what whoever adds it should know; none of it is a reason not to.
        rewritten: name of a file -> hex SHA-256 of it as it was read, where it was written anew.
    """

    files: AdapterFiles
    card: bytes | None
    notes: tuple[Finding, ...]
    rewritten: Mapping[str, str]


def read_adapter(folder: Path, shapes: Mapping[str, tuple[int, int]] | None = None) -> Mapping[str, Factors]:
    """The checked factors of a folder as others leave it; see `open_source` and `AdapterFiles.factors`."""
    with open_source(Path(folder), shapes or {}) as source:
        return source.files.factors(shapes)


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read, before it is in any form: parts of the file by name of tensor, and what the config says, if any is there.

    `own` are tensors of the file that are the base's own, and so are neither in `slots` nor in `parts`. `stacked` are the weights
    of experts by the modules whose factors are of all experts at once. `extras` are what a PEFT adapter changes beside factors of
    linear layers, and `base` is the model that is changed so, or None.
    """

    folder: Path
    name: str
    config: bytes | None
    settings: LoraSettings | MlxSettings | None
    tensors: Sealed
    slots: Mapping[str, StoredTensor]
    parts: Mapping[str, TensorPart]
    own: frozenset[str]
    stacked: Mapping[str, Layer]
    extras: Sequence[Extra] = ()
    base: Base | None = None

    @property
    def where(self) -> str:
        return str(self.folder / self.name)

    @property
    def kept(self) -> bool:
        """Whether the very bytes are kept."""
        if not isinstance(self.settings, LoraSettings) or self.settings.targets.parameters or self.settings.whole:
            return False
        return not self.own and not self.extras and in_peft_form(self.slots, self.parts)


@contextmanager
def open_source(path: Path, shapes: Mapping[str, tuple[int, int]], base: Base | None = None) -> Iterator[Source]:
    """Read an adapter to be added, from its folder or from its one safetensors file.

    Args:
        shapes: module path -> (out, in) of the base's linear layers, by which the names of tensors are understood.
        base: if given, what lies beside the adapter is compared with it.

    Raises:
        AdapterError: reason "missing", "symlink", "unreadable", "pickle", those of `sealed`, of `parse_config`, and of the
            forms that are read.
    """
    alone = path.suffix == _SAFETENSORS and path.is_file()
    with source_folder(path.parent if alone else path) as folder:
        config = folder.read(CONFIG, cap=MAX_CONFIG) if folder.holds(CONFIG) else None
        settings = None if config is None else _settings(config, str(folder.path / CONFIG))
        name = path.name if alone else _tensors_name(folder)
        with folder.sealed(name, cap=MAX_BYTES) as tensors:
            read = _understood(folder.path, name, config, settings, tensors, shapes, base)
            card, left = card_of(folder)
            files, said = _in_form(read), None if settings is None else settings.base
            others = () if base is None else beside(folder, said, base)
            notes = (
                *_form_notes(read, files),
                *_whole_notes(read, files),
                *_target_notes(read, shapes),
                *left,
                *others,
            )
            yield Source(files, card, notes, _origin(read))


def _settings(config: bytes, where: str) -> LoraSettings | MlxSettings:
    return mlx_settings(json_object(config, where, "bad-config"), where) or parse_config(config, where)


def _tensors_name(folder: SourceFolder) -> str:
    for name in (TENSORS, _MLX_TENSORS):
        if folder.holds(name):
            return name
    if folder.holds(PICKLED):
        raise AdapterError(
            f"adapter folder {folder.path} holds {PICKLED} and no {TENSORS}; a pickle can run code when it is read: convert "
            f"it with `soupmix adapters convert {folder.path} NEW_FOLDER`, in a process that can open no other file",
            reason="pickle",
        )
    if folder.holds(_MODEL_CONFIG) and not folder.holds(CONFIG):
        raise AdapterError(
            f"{folder.path} is the folder of a full model, and of no adapter: {EXTRACT}",
            reason="full-model",
        )
    found = folder.names(_SAFETENSORS)
    return found[0] if len(found) == 1 else TENSORS


def _understood(
    folder: Path,
    name: str,
    config: bytes | None,
    settings: LoraSettings | MlxSettings | None,
    tensors: Sealed,
    paths: Iterable[str],
    base: Base | None,
) -> _Read:
    where = str(folder / name)
    slots = header_of(tensors, where)
    if isinstance(settings, LoraSettings) and settings.own is not None:
        return _of_store(folder, name, config, settings, tensors, slots, base)
    if base is None and isinstance(settings, LoraSettings):
        check_plain(settings, where)
    parts = parts_of(slots, paths, where)
    own = frozenset[str]() if base is None else unchanged(slots.keys() - parts.keys(), tensors, base, where)
    slots = {key: slot for key, slot in slots.items() if key not in own}
    if base is not None:
        adapted = sorted({part.module for part in parts.values()})
        check_layers(adapted, base.layers(), where, packed=base.quantisation is not None)
    extras: Sequence[Extra] = ()
    embedded: Mapping[str, TensorPart] = {}
    if base is not None and isinstance(settings, LoraSettings):
        rest = {key: slot for key, slot in slots.items() if key not in parts}
        embedded = embedding_parts(rest, base.layers(), where)
        parts = {**parts, **embedded}
        modules = {part.said: part.module for part in parts.values()}
        extras = extras_of(
            {key: rest[key] for key in rest if key not in embedded}, settings.whole, base, modules, where
        )
    counted = {extra.key for extra in extras}
    check_parts({key: slot for key, slot in slots.items() if key not in counted}, parts, where)
    if not parts:
        raise AdapterError(f"{where} holds no LoRA factors", reason="empty")
    if config is None and not _says_its_scaling(parts):
        raise AdapterError(f"{folder / CONFIG} is missing", reason="missing")
    stacked = _stacked(slots, parts, settings, base, where)
    more = base if extras or embedded else None
    return _Read(folder, name, config, settings, tensors, slots, parts, own, stacked, extras, more)


def _of_store(
    folder: Path,
    name: str,
    config: bytes | None,
    settings: LoraSettings,
    tensors: Sealed,
    slots: Mapping[str, StoredTensor],
    base: Base | None,
) -> _Read:
    """What another store holds of an adapter with whole weights, whose base is known by its digest."""
    where, form = str(folder / name), settings.own
    if base is None or form is None or base.digest != form.base_digest:
        raise AdapterError(
            f"{where} is how a store holds whole weights, by how much they differ from those of one base, and this is another: "
            "add the adapter that was trained",
            reason="wrong-base",
        )
    gains = {module for key in slots if (module := gain_of(key)) is not None}
    slots = {key: slot for key, slot in slots.items() if gain_of(key) is None}
    parts = parts_of(slots, base.layers().every_shape(), where)
    check_parts(slots, parts, where)
    if not parts:
        raise AdapterError(f"{where} holds no LoRA factors", reason="empty")
    _check_own({part.module for part in parts.values()}, gains, form, base, where)
    read = _Read(folder, name, config, settings, tensors, slots, parts, frozenset(), {})
    if not read.kept:
        raise AdapterError(
            f"{where} is not as a store writes whole weights: add the adapter that was trained", reason="bad-config"
        )
    return read


def _check_own(modules: set[str], gains: set[str], form: StoreForm, base: Base, where: str) -> None:
    """Refuse what no store would have written: `extras_of` holds adapters as they are trained to the same."""
    layers, shapes = base.layers(), base.layers().every_shape()
    for module in sorted(modules):
        layer = layers[weight_path(module)] if module in shapes else None
        kind = "linear" if layer is None else layer.kind
        if form.kinds.get(module, kind) != kind or (kind in ("embedding", "vector")) != (module in form.kinds):
            raise AdapterError(f"{where} takes {module} of the base for what it is not", reason="wrong-base")
        if layer is None or (module not in form.kinds and module not in gains):
            continue
        if base.quantisation is not None or layer.lies != "whole" or kind == "experts":
            raise AdapterError(
                f"{where} changes {module} by more than factors, and the base holds no such weight of its own as plain numbers",
                reason="wrong-base",
            )
        if kind == "vector" and module in gains:
            raise AdapterError(f"{where} takes {module} of the base for what it is not", reason="wrong-base")
    check_layers(sorted(modules - form.kinds.keys()), layers, where, packed=base.quantisation is not None)


def _stacked(
    slots: Mapping[str, StoredTensor],
    parts: Mapping[str, TensorPart],
    settings: LoraSettings | MlxSettings | None,
    base: Base | None,
    where: str,
) -> Mapping[str, Layer]:
    if not isinstance(settings, LoraSettings) or (base is None and not settings.targets.parameters):
        return {}
    if base is None:
        raise AdapterError(
            f"{where} is of parameters by name (target_parameters), such as all experts at once, and only the base says which "
            "factors are whose: add it to a store with its base",
            reason="unsupported",
        )
    return stacked_weights(parts, slots, settings, base.layers(), where)


def _says_its_scaling(parts: Mapping[str, TensorPart]) -> bool:
    """Whether tensors say alpha, or are spelt as where alpha is the rank unless they do."""
    said = {part.module for part in parts.values() if part.side == "alpha"}
    return all(part.alpha_is_rank or part.module in said for part in parts.values())


def _in_form(read: _Read) -> AdapterFiles:
    if read.kept and read.config is not None:
        return AdapterFiles(read.folder, read.config, _sha256(read.config), read.tensors, read.name)
    config, tensors = rewritten(
        read.tensors, read.parts, read.settings, read.stacked, read.where, read.extras, read.base
    )
    return AdapterFiles(read.folder, config, _sha256(config), sealed_bytes(tensors), read.name)


def _origin(read: _Read) -> Mapping[str, str]:
    if read.kept:
        return {}
    return {read.name: read.tensors.sha256} | ({} if read.config is None else {CONFIG: _sha256(read.config)})


def card_of(folder: SourceFolder) -> tuple[bytes | None, tuple[Finding, ...]]:
    """The README.md of a folder, or None and why it is left out: no adapter is refused for it."""
    if not folder.holds(CARD):
        return None, ()
    if folder.is_link(CARD):
        return None, (Finding("card", CARD, f"{CARD} is a link to elsewhere, so it is left out"),)
    try:
        return folder.read(CARD, cap=_MAX_CARD), ()
    except AdapterError as error:
        return None, (Finding("card", CARD, f"{CARD} is left out: {error}"),)


def _form_notes(read: _Read, files: AdapterFiles) -> Iterator[Finding]:
    if read.own:
        yield Finding(
            "unchanged",
            read.name,
            f"{read.name} also holds weights that are the base's own, as {min(read.own)}: they are left out, and so are "
            "any rows of theirs for tokens that the base does not have",
        )
    other = not in_peft_form(read.slots, read.parts) or not isinstance(read.settings, LoraSettings)
    if other and files.settings().own is None:
        form = {MlxSettings: "MLX-LM's", LoraSettings: "PEFT's under other names"}.get(type(read.settings), "kohya's")
        yield Finding(
            "rewritten",
            read.name,
            f"the form of {read.name} is {form}: the store holds the same numbers under PEFT's names, and their scaling in "
            f"{CONFIG}",
        )
    if read.stacked:
        yield Finding(
            "experts",
            read.name,
            f"{read.name} holds factors of all experts of {min(layer.path for layer in read.stacked.values())} at once: the "
            "store holds them for each expert. They are merged into a model (--as model), and no request can have them",
        )
    if any(read.slots[key].dtype == "F64" for key in read.parts):
        yield Finding(
            "rounded", read.name, f"{read.name} is stored as F64; the store holds it as F32, as PEFT loads it"
        )


def _whole_notes(read: _Read, files: AdapterFiles) -> Iterator[Finding]:
    if files.settings().own is not None:
        paths = sorted({extra.layer.path for extra in read.extras} | {part.module for part in read.parts.values()})
        yield Finding(
            "whole",
            read.name,
            f"{read.name} changes more than factors of linear layers say, as of {paths[0]}: the store holds by how much its "
            "weights differ from the base's. They are merged into a model (--as model), and no request can have them",
        )
    elif read.extras:
        yield Finding(
            "unchanged",
            read.name,
            f"{read.name} also holds weights that are the base's own, as {min(each.layer.path for each in read.extras)}: they "
            "are left out",
        )
    if isinstance(read.settings, LoraSettings):
        held = [*(extra.layer.parameter for extra in read.extras), *(key.removeprefix(PREFIX) for key in read.own)]
        for said in (*read.settings.whole.saved, *filter(None, read.settings.whole.tokens)):
            if not any(f".{said}." in f".{name}" for name in held):
                yield Finding(
                    "no-factors",
                    read.name,
                    f"adapter_config.json says that {said[:120]!a} was trained as a whole, and {read.name} holds nothing of it: "
                    "no change there",
                )


def _target_notes(read: _Read, base: Iterable[str]) -> Iterator[Finding]:
    if isinstance(read.settings, LoraSettings):
        targets = read.settings.targets
        adapted = {
            weight_path(part.said): weight_path(part.module)
            for part in read.parts.values()
            if part.module not in read.stacked and not targets.has_parameter(f"{part.said}.weight")
        }
        for kind, message in targets.compared(adapted, set(map(weight_path, base))):
            yield Finding(kind, read.name, message)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
