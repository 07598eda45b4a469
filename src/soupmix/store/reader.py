"""A PEFT LoRA folder, read as if its author wanted to harm us.

What its safetensors file says it holds is checked before the safetensors library sees it.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from soupmix.base.safetensors import HeaderError, StoredTensor, parse_header
from soupmix.dtypes import WORDS
from soupmix.errors import AdapterError
from soupmix.sealed import Sealed, read_sealed, sealed
from soupmix.store.adapter import Factors
from soupmix.store.config import LoraSettings, parse_config

__all__ = [
    "CONFIG",
    "TENSORS",
    "AdapterFiles",
    "open_adapter",
    "read_adapter",
]

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
_MAX_CONFIG = 1 << 20
_MAX_TENSORS = 4 << 30
_PICKLES = {".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"}
_MAX_HEADER = 4 << 20
_MOST_FACTORS = 50_000
_MAX_PATH = 256
_PREFIX = "base_model.model."
_KEY = re.compile(r"base_model\.model\.(?P<module>\w+(?:\.\w+)*)\.lora_(?P<side>[AB])\.weight", re.ASCII)
_EMBEDDING = re.compile(r"lora_embedding_|(^|\.)(embed_tokens|wte|lm_head)\.", re.ASCII)


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
        tensors: sealed copy of adapter_model.safetensors, with its own sha256.
    """

    folder: Path
    config: bytes
    config_sha256: str
    tensors: Sealed

    def settings(self) -> LoraSettings:
        """The checked config."""
        return parse_config(self.config, str(self.folder / CONFIG))

    def factors(self, shapes: Mapping[str, tuple[int, int]] | None = None) -> Mapping[str, Factors]:
        """Module path -> factors, sorted by path, in the dtypes of the file; every check of this room has passed.

        Args:
            shapes: module path -> (out, in) of the base model's linear layers; None skips the comparison, which is
                for adapters whose digests are already known.

        Raises:
            AdapterError: reason "rank", "not-targeted", "wrong-base", "missing-module", "not-finite", or those of
                `parse_config`.
        """
        where = str(self.folder / TENSORS)
        settings = self.settings()
        with self.tensors.open() as file:
            found = _factor_shapes(file, self.tensors.size, where)
        layout = settings.layout(found)
        _check_ranks(found, layout, where)
        _check_targets(found, settings, shapes, where)
        if shapes is not None:
            _check_shapes(found, shapes, where)
        return _load(self.tensors, layout, where)


@contextmanager
def open_adapter(folder: Path) -> Iterator[AdapterFiles]:
    """Read the two files of an adapter folder into sealed memory.

    Raises:
        AdapterError: reason "missing", "symlink", "unreadable", "pickle", or those of `sealed`.
    """
    _check_folder(folder)
    config, config_sha256 = read_sealed(folder / CONFIG, cap=_MAX_CONFIG, error=AdapterError)
    with sealed(folder / TENSORS, cap=_MAX_TENSORS, error=AdapterError) as tensors:
        yield AdapterFiles(folder, config, config_sha256, tensors)


def read_adapter(folder: Path, shapes: Mapping[str, tuple[int, int]] | None = None) -> Mapping[str, Factors]:
    """The checked factors of a PEFT LoRA folder; see `AdapterFiles.factors`."""
    with open_adapter(Path(folder)) as files:
        return files.factors(shapes)


def _check_folder(folder: Path) -> None:
    for path in _entries(folder):
        if path.suffix.lower() in _PICKLES:
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


def _check_ranks(found: Mapping[str, _FactorShapes], layout: Mapping[str, tuple[int, float]], where: str) -> None:
    for module, shape in found.items():
        if shape.rank != layout[module][0]:
            raise AdapterError(
                f"{where} has rank {shape.rank} for {module}, {CONFIG} says {layout[module][0]}", reason="rank"
            )


def _check_targets(
    found: Mapping[str, _FactorShapes],
    settings: LoraSettings,
    shapes: Mapping[str, tuple[int, int]] | None,
    where: str,
) -> None:
    for module in sorted(set(found) - settings.targeted(found)):
        raise AdapterError(f"{where} adapts {module}, which {CONFIG} does not target", reason="not-targeted")
    if shapes is not None and settings.targets is not None:
        for module in sorted(settings.targeted(shapes) - set(found)):
            raise AdapterError(f"{where} has no factors for {module}, which {CONFIG} targets", reason="missing-module")


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


def _load(content: Sealed, layout: Mapping[str, tuple[int, float]], where: str) -> Mapping[str, Factors]:
    import safetensors
    import safetensors.torch
    import torch

    try:
        if isinstance(content.memory, bytes):
            tensors = safetensors.torch.load(content.memory)
        else:
            tensors = safetensors.torch.load_file(f"/proc/self/fd/{content.memory}")
    except safetensors.SafetensorError as error:
        raise AdapterError(f"{where} is not a safetensors file: {error}", reason="bad-header") from None
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"{where} holds NaN or infinity in {key}", reason="not-finite")
    return {
        module: Factors(tensors[_tensor_key(module, "A")], tensors[_tensor_key(module, "B")], scaling)
        for module, (_, scaling) in layout.items()
    }


def _tensor_key(module: str, side: str) -> str:
    """The name PEFT gives factor "A" or "B" of a module of a causal language model."""
    return f"{_PREFIX}{module}.lora_{side}.weight"


def _factor_shapes(file: BinaryIO, size: int, where: str) -> Mapping[str, _FactorShapes]:
    """Module path -> shapes of its factors, sorted by path, from a PEFT LoRA file's header.

    Args:
        file: the file, at its start. size: its length in bytes. where: names the file in errors.

    Raises:
        AdapterError: reason of `parse_header`, or "bad-key", "embedding", "dora", "dtype", "missing-factor",
            "shape" or "empty".
    """
    try:
        slots = parse_header(file, size, max_header=_MAX_HEADER, max_tensors=_MOST_FACTORS)
    except HeaderError as error:
        raise AdapterError(f"{where} {error}", reason=error.reason) from None
    sides: dict[str, dict[str, StoredTensor]] = {}
    for key, slot in slots.items():
        module, side = _split(key, where)
        if slot.dtype not in WORDS:
            raise AdapterError(f"{where} stores {key!r} as {slot.dtype}; allowed: {', '.join(WORDS)}", reason="dtype")
        sides.setdefault(module, {})[side] = slot
    if not sides:
        raise AdapterError(f"{where} holds no LoRA factors", reason="empty")
    return {module: _pair(module, pair, where) for module, pair in sorted(sides.items())}


def _split(key: str, where: str) -> tuple[str, str]:
    shown = ascii(key[:120])
    if len(key) > _MAX_PATH:
        raise AdapterError(f"{where} holds a tensor with a name of {len(key)} characters ({shown})", reason="bad-key")
    if _EMBEDDING.search(key):
        raise AdapterError(
            f"{where} adapts an embedding or the output head ({shown}): not supported", reason="embedding"
        )
    if key.endswith((".lora_magnitude_vector", ".lora_magnitude_vector.weight")):
        raise AdapterError(f"{where} holds DoRA magnitudes ({shown}): DoRA is not supported", reason="dora")
    match = _KEY.fullmatch(key)
    if match is None:
        raise AdapterError(
            f"{where} holds {shown}, which is not a LoRA factor of a linear layer "
            f"({_PREFIX}<module>.lora_A.weight or lora_B.weight)",
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
