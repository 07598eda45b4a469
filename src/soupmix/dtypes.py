"""The dtypes of tensors: how safetensors, people and torch spell them, and how many bits a value has."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from soupmix.errors import RecipeError

if TYPE_CHECKING:
    import torch

__all__ = ["BITS", "HELD", "TORCH", "WORDS", "Word", "dtype_code", "dtype_or", "held_code", "torch_dtype"]

BITS: Final[Mapping[str, int]] = {
    "F4": 4, "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip
"""Every dtype that a safetensors file may hold, as safetensors spells it -> bits of a value."""

Word = Literal["fp32", "fp16", "bf16"]
WORDS: Final[Mapping[str, Word]] = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}
"""The dtypes of adapters, merges and kernels: safetensors' spelling -> what people write."""

HELD: Final[Mapping[str, int]] = {"int8": 8, "int4": 4}
"""What the weights of a base can be held in beside that while all else is bf16 -> bits of a number."""

TORCH: Final[Mapping[str, str]] = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The dtypes of numbers that have a norm: safetensors' spelling -> torch's."""

_CODES: Final = {word: code for code, word in WORDS.items()} | {TORCH[code]: code for code in WORDS}


def dtype_code(name: str) -> str:
    """ "fp32", "fp16", "bf16" (or torch's names) -> safetensors' spelling. Raises `RecipeError` for any other."""
    if name not in _CODES:
        raise RecipeError(f"unknown dtype {name!r}: use {', '.join(WORDS.values())}", reason="unknown-dtype")
    return _CODES[name]


def dtype_or(name: str | None, own: "torch.dtype") -> str:
    """As `dtype_code`; where nobody says one, the dtype of a model's own."""
    return dtype_code(name or str(own).removeprefix("torch."))


def held_code(name: str) -> str:
    """As `dtype_code`, and "I8" or "I4" for what is in `HELD`."""
    return f"I{HELD[name]}" if name in HELD else dtype_code(name)


def torch_dtype(code: str) -> "torch.dtype":
    """The dtype that safetensors spells so, of those in `TORCH`."""
    import torch

    found: torch.dtype = getattr(torch, TORCH[code])
    return found
