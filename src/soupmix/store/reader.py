"""The two files of a LoRA adapter in PEFT's form, read as if their author wanted to harm us.

What the safetensors file says it holds is checked before the safetensors library sees it. This is how a store reads what it
holds; folders as others make them come in by `soupmix.store.importing`.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from soupmix.base import Layer
from soupmix.base.safetensors import HeaderError, StoredTensor, parse_header
from soupmix.dtypes import WORDS
from soupmix.errors import AdapterError
from soupmix.sealed import Sealed, read_sealed, sealed
from soupmix.store.adapter import Factors, LayerForm
from soupmix.store.config import EXTRACT, LoraSettings, parse_config
from soupmix.store.names import MAX_KEY

if TYPE_CHECKING:
    import torch

__all__ = [
    "CONFIG",
    "MAX_BYTES",
    "MAX_CONFIG",
    "PICKLES",
    "PREFIX",
    "TENSORS",
    "AdapterFiles",
    "check_dtype",
    "check_layers",
    "check_plain",
    "factor_key",
    "gain_key",
    "gain_of",
    "header_of",
    "load_tensors",
    "open_adapter",
    "sealed_bytes",
    "split_key",
]

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
MAX_CONFIG = 1 << 20
MAX_BYTES = 4 << 30
PICKLES = {".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"}
# Of all experts of DeepSeek-V3 an adapter has 59,392 factors and a header of 9 MB, of Kimi K2 92,160 and 14 MB.
_MAX_HEADER = 16 << 20
_MOST_FACTORS = 100_000
PREFIX = "base_model.model."
_MODULE = r"base_model\.model\.(?P<module>\w+(?:\.\w+)*(?:\[\d{1,6}\])?)"
_KEY = re.compile(_MODULE + r"\.lora_(?P<side>[AB])\.weight", re.ASCII)
_GAIN = re.compile(_MODULE + r"\.gain", re.ASCII)
_EMBEDDING = re.compile(r"lora_embedding_|(^|\.)(embed_tokens|wte|lm_head)\.weight$", re.ASCII)


@dataclass(frozen=True, slots=True)
class _FactorShapes:
    """Shapes of one module's factors: rank, in and out features."""

    rank: int
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """The two files of an adapter, read once; the bytes that were hashed are the bytes that are parsed.

    Attributes:
        folder: where they came from. config: bytes of adapter_config.json, config_sha256: hex.
        tensors: sealed copy of adapter_model.safetensors, with its own sha256. name: of the file that they came from.
    """

    folder: Path
    config: bytes
    config_sha256: str
    tensors: Sealed
    name: str = TENSORS

    def settings(self) -> LoraSettings:
        """The checked config."""
        return parse_config(self.config, str(self.folder / CONFIG))

    def factors(self, shapes: Mapping[str, tuple[int, int]] | None = None) -> Mapping[str, Factors]:
        """Module path -> factors, sorted by path, in the dtypes of the file; every check of this room has passed.

        Args:
            shapes: module path -> (out, in) of the base model's layers; None skips the comparison, which is for adapters
                whose digests are already known.

        Raises:
            AdapterError: reason "rank", "wrong-base", "not-finite", "unsupported" (only with its base it is known what it
                changes), or those of `parse_config`.
        """
        where = str(self.folder / self.name)
        settings = self.settings()
        if settings.targets.parameters:
            raise AdapterError(
                f"{where} is of all experts at once (target_parameters), and which of them a factor is of, the base says: add it "
                "to a store with its base",
                reason="unsupported",
            )
        check_plain(settings, where)
        slots, kinds = header_of(self.tensors, where), {} if settings.own is None else settings.own.kinds
        gains = {} if settings.own is None else _gains(slots)
        found = _factor_shapes({key: slot for key, slot in slots.items() if key not in gains}, where)
        layout = settings.layout(each for each in found if kinds.get(each) != "vector")
        layout = {each: layout.get(each, (1, 1.0)) for each in found}
        _check_ranks(found, layout, where)
        _check_gains(gains, slots, found, where)
        if shapes is not None:
            _check_shapes(found, shapes, where)
        return _load(self.tensors, layout, kinds, where)


@contextmanager
def open_adapter(folder: Path) -> Iterator[AdapterFiles]:
    """Read the two files of a store's adapter into sealed memory; nothing else lies beside them but a card.

    Raises:
        AdapterError: reason "missing", "symlink", "unreadable", "pickle", or those of `sealed`.
    """
    _check_folder(folder)
    config, config_sha256 = read_sealed(folder / CONFIG, cap=MAX_CONFIG, error=AdapterError)
    with sealed(folder / TENSORS, cap=MAX_BYTES, error=AdapterError) as tensors:
        yield AdapterFiles(folder, config, config_sha256, tensors)


def sealed_bytes(data: bytes) -> Sealed:
    """Bytes of this process, as `Sealed` has those of a file."""
    return Sealed(hashlib.sha256(data).hexdigest(), len(data), data)


def _check_folder(folder: Path) -> None:
    for path in _entries(folder):
        if path.suffix.lower() in PICKLES:
            raise AdapterError(
                f"adapter folder {folder} holds a pickle ({path.name!a}), which other tools would run: remove it",
                reason="pickle",
            )
        if path.is_symlink():
            raise AdapterError(
                f"{path} is a symbolic link, and links may point anywhere: put the file itself there", reason="symlink"
            )


def _entries(folder: Path) -> list[Path]:
    try:
        if folder.is_symlink():
            raise AdapterError(f"adapter folder {folder} is a symbolic link: give the folder itself", reason="symlink")
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        raise AdapterError(f"there is no adapter folder {folder}", reason="missing") from None
    except OSError as error:
        raise AdapterError(f"adapter folder {folder} cannot be read: {error.strerror}", reason="unreadable") from None


def check_plain(settings: LoraSettings, where: str) -> None:
    """Refuse what is changed beside factors of layers, where there is no base that says by how much (reason "unsupported")."""
    if settings.whole:
        raise AdapterError(
            f"{where} changes whole weights, embeddings, biases or lengths of outputs ({CONFIG}: modules_to_save, "
            "trainable_token_indices, bias, lora_bias or use_dora), and only its base says by how much: add it to a store with "
            "its base",
            reason="unsupported",
        )


def _check_ranks(found: Mapping[str, _FactorShapes], layout: Mapping[str, tuple[int, float]], where: str) -> None:
    for module, shape in found.items():
        if shape.rank != layout[module][0]:
            raise AdapterError(
                f"{where} has rank {shape.rank} for {module}, {CONFIG} says {layout[module][0]}", reason="rank"
            )


def check_layers(modules: Iterable[str], layers: Mapping[str, Layer], where: str, *, packed: bool) -> None:
    """Refuse factors of a weight that is another layer's too, of an embedding or a vector, of one of several experts in one
    weight, or of one that the base lacks.

    PEFT adds factors of a tied head to the head alone as long as they are beside the weights, and to the embeddings too once
    they are merged: two models.

    Args:
        layers: of the base. packed: whether it is quantised; its weights may lie under names that only their package knows.

    Raises:
        AdapterError: reason "embedding", "experts" or "wrong-base".
    """
    pieces = {name: layer for layer in layers.values() if layer.kind == "experts" for name in layer.tensors}
    for module in modules:
        layer = layers.get(module)
        whole = pieces.get(f"{module}.weight")
        if layer is None and whole is not None:
            raise AdapterError(
                f"{where} adapts {module}, which the base holds in one weight with the other experts ({whole.path}), and a store "
                "holds factors of linear layers: fold it in with PEFT's merge_and_unload, and use the result as a base",
                reason="experts",
            )
        if layer is not None and layer.lies == "nowhere" and not packed:
            raise AdapterError(
                f"{where} adapts {module}, for which the files of the base hold no weight: complete the base, or use the one "
                "that the adapter was trained on",
                reason="wrong-base",
            )
        if layer is not None and layer.kind == "vector":
            raise AdapterError(
                f"{where} adapts {module}, whose weight in the base is a vector, and factors are of matrices: it was trained on "
                "another base",
                reason="wrong-base",
            )
        other = None if layer is None else layer.tied
        if other is not None:
            raise AdapterError(
                f"{where} adapts {module}, and in this base its weight is that of {other} too (tie_word_embeddings): a change of "
                f"one would change both. Train without it, or on a base whose head has a weight of its own; {EXTRACT}",
                reason="embedding",
            )
        if layer is not None and layer.kind == "embedding":
            raise AdapterError(
                f"{where} adapts {module}, which is an embedding, and a store holds factors of linear layers: {EXTRACT}",
                reason="embedding",
            )


def _check_shapes(found: Mapping[str, _FactorShapes], shapes: Mapping[str, tuple[int, int]], where: str) -> None:
    for module, shape in found.items():
        if module not in shapes:
            raise AdapterError(f"{where} adapts {module}, which the base model does not have", reason="wrong-base")
        if (shape.outputs, shape.inputs) != tuple(shapes[module]):
            raise AdapterError(
                f"{where} fits a {shape.outputs} x {shape.inputs} layer at {module}, the base model has "
                f"{shapes[module][0]} x {shapes[module][1]}: it was trained on another base",
                reason="wrong-base",
            )


def _gains(slots: Mapping[str, StoredTensor]) -> Mapping[str, str]:
    """Key of every gain -> its module."""
    return {key: module for key in slots if (module := gain_of(key)) is not None}


def gain_of(key: str) -> str | None:
    """The module whose gain a tensor of this name is, in the form of a store; None of any other tensor."""
    match = _GAIN.fullmatch(key) if len(key) <= MAX_KEY else None
    return None if match is None else match["module"]


def _check_gains(
    gains: Mapping[str, str], slots: Mapping[str, StoredTensor], found: Mapping[str, _FactorShapes], where: str
) -> None:
    for key, module in gains.items():
        check_dtype(key, slots[key].dtype, ("F32",), where)
        if module not in found or slots[key].shape != (found[module].outputs,):
            raise AdapterError(
                f"{where} holds {key[:120]!a} of shape {list(slots[key].shape)}, which fits no factors of {module}",
                reason="shape",
            )


def _load(
    content: Sealed, layout: Mapping[str, tuple[int, float]], kinds: Mapping[str, LayerForm], where: str
) -> Mapping[str, Factors]:
    tensors = load_tensors(content, where)
    return {
        module: Factors(
            tensors[factor_key(module, "A")],
            tensors[factor_key(module, "B")],
            scaling,
            tensors.get(gain_key(module)),
            kinds.get(module, "linear"),
        )
        for module, (_, scaling) in layout.items()
    }


def load_tensors(content: Sealed, where: str) -> dict[str, "torch.Tensor"]:
    """Every tensor of a safetensors file whose header was checked.

    Raises:
        AdapterError: a value is not finite ("not-finite"), or the safetensors library refuses the file ("bad-header").
    """
    import safetensors
    import safetensors.torch
    import torch

    try:
        if isinstance(content.memory, bytes):
            tensors: dict[str, torch.Tensor] = safetensors.torch.load(content.memory)
        else:
            tensors = safetensors.torch.load_file(f"/proc/self/fd/{content.memory}")
    except safetensors.SafetensorError as error:
        raise AdapterError(f"{where} is not a safetensors file: {error}", reason="bad-header") from None
    for key, tensor in tensors.items():  # of one byte is no factor, and torch cannot ask it
        # What adds up to a finite number is finite, and a sum takes a tenth of the time of asking every number.
        plain = tensor.is_floating_point() and tensor.element_size() > 1 and torch.isfinite(tensor.sum())
        if tensor.element_size() > 1 and not plain and not torch.isfinite(tensor).all():
            raise AdapterError(f"{where} holds NaN or infinity in {key[:120]!a}", reason="not-finite")
    return tensors


def factor_key(module: str, side: str) -> str:
    """The name PEFT gives factor "A" or "B" of a module of a causal language model."""
    return f"{PREFIX}{module}.lora_{side}.weight"


def gain_key(module: str) -> str:
    """The name of what every output of a module's weight gains, in the form of a store."""
    return f"{PREFIX}{module}.gain"


def header_of(content: Sealed, where: str) -> Mapping[str, StoredTensor]:
    """What the header of a safetensors file says, by name of tensor.

    Args:
        where: names the file in errors.

    Raises:
        AdapterError: reason of `parse_header`.
    """
    try:
        with content.open() as file:
            return parse_header(file, content.size, max_header=_MAX_HEADER, max_tensors=_MOST_FACTORS)
    except HeaderError as error:
        raise AdapterError(f"{where} {error}", reason=error.reason) from None


def _factor_shapes(slots: Mapping[str, StoredTensor], where: str) -> Mapping[str, _FactorShapes]:
    """Module path -> shapes of its factors, sorted by path, from a PEFT LoRA file's header.

    Raises:
        AdapterError: reason "bad-key", "embedding", "dora", "dtype", "missing-factor", "shape" or "empty".
    """
    sides: dict[str, dict[str, StoredTensor]] = {}
    for key, slot in slots.items():
        module, side = split_key(key, where)
        check_dtype(key, slot.dtype, WORDS, where)
        sides.setdefault(module, {})[side] = slot
    if not sides:
        raise AdapterError(f"{where} holds no LoRA factors", reason="empty")
    return {module: _pair(module, pair, where) for module, pair in sorted(sides.items())}


def check_dtype(key: str, dtype: str, allowed: Collection[str], where: str) -> None:
    """Refuse a tensor that is stored in another dtype (reason "dtype")."""
    if dtype not in allowed:
        raise AdapterError(f"{where} stores {key!r} as {dtype}; allowed: {', '.join(allowed)}", reason="dtype")


def split_key(key: str, where: str) -> tuple[str, str]:
    """Module and side of a factor under the name that PEFT gives it.

    Raises:
        AdapterError: the tensor is none (reason "bad-key", "embedding" or "dora").
    """
    shown = ascii(key[:120])
    if len(key) > MAX_KEY:
        raise AdapterError(f"{where} holds a tensor with a name of {len(key)} characters ({shown})", reason="bad-key")
    if _EMBEDDING.search(key):
        raise AdapterError(
            f"{where} holds {shown}, of an embedding or of a head as a whole, and a store holds factors of linear layers: "
            f"{EXTRACT}",
            reason="embedding",
        )
    if key.endswith((".lora_magnitude_vector", ".lora_magnitude_vector.weight")):
        raise AdapterError(f"{where} holds DoRA magnitudes ({shown}), which no factors say: {EXTRACT}", reason="dora")
    match = _KEY.fullmatch(key)
    if match is None:
        raise AdapterError(
            f"{where} holds {shown}, which is not a LoRA factor of a linear layer "
            f"({PREFIX}<module>.lora_A.weight or lora_B.weight)",
            reason="bad-key",
        )
    return match["module"], match["side"]


def _pair(module: str, pair: Mapping[str, StoredTensor], where: str) -> _FactorShapes:
    for side in "AB":
        if side not in pair:
            raise AdapterError(f"{where} has no lora_{side} for {module}", reason="missing-factor")
    a, b = pair["A"].shape, pair["B"].shape
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or 0 in (*a, *b):
        raise AdapterError(
            f"{where} has factors of {module} that do not fit: A {list(a)} must be [rank, in], B {list(b)} [out, rank]",
            reason="shape",
        )
    return _FactorShapes(rank=a[0], inputs=a[1], outputs=b[0])
