"""What an adapter's safetensors file says it holds, checked before the safetensors library sees it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from soupmix.base.safetensors import HeaderError, Slot, parse_header
from soupmix.dtypes import WORDS
from soupmix.errors import AdapterError

__all__ = ["FactorShapes", "factor_shapes", "tensor_key"]

_MAX_HEADER = 4 << 20
_MAX_TENSORS = 50_000
_MAX_PATH = 256
_PREFIX = "base_model.model."
_KEY = re.compile(r"base_model\.model\.(?P<module>\w+(?:\.\w+)*)\.lora_(?P<side>[AB])\.weight", re.ASCII)
_EMBEDDING = re.compile(r"lora_embedding_|(^|\.)(embed_tokens|wte|lm_head)\.", re.ASCII)


@dataclass(frozen=True, slots=True)
class FactorShapes:
    """Shapes of one module's factors: rank, in and out features."""

    rank: int
    inputs: int
    outputs: int


def tensor_key(module: str, side: str) -> str:
    """The name PEFT gives factor "A" or "B" of a module of a causal language model."""
    return f"{_PREFIX}{module}.lora_{side}.weight"


def factor_shapes(file: BinaryIO, size: int, where: str) -> Mapping[str, FactorShapes]:
    """Module path -> shapes of its factors, sorted by path, from a PEFT LoRA file's header.

    Args:
        file: the file, at its start. size: its length in bytes. where: names the file in errors.

    Raises:
        AdapterError: reason of `parse_header`, or "bad-key", "embedding", "dora", "dtype", "missing-factor",
            "shape" or "empty".
    """
    try:
        slots = parse_header(file, size, max_header=_MAX_HEADER, max_tensors=_MAX_TENSORS)
    except HeaderError as error:
        raise AdapterError(f"{where} {error}", reason=error.reason) from None
    sides: dict[str, dict[str, Slot]] = {}
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


def _pair(module: str, pair: Mapping[str, Slot], where: str) -> FactorShapes:
    for side in "AB":
        if side not in pair:
            raise AdapterError(f"{where} has no lora_{side} for {module}", reason="missing-factor")
    a, b = pair["A"].shape, pair["B"].shape
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or 0 in (*a, *b):
        raise AdapterError(
            f"{where} has factors of {module} that do not fit: A {list(a)} must be [rank, in], B {list(b)} [out, rank]",
            reason="shape",
        )
    return FactorShapes(rank=a[0], inputs=a[1], outputs=b[0])
