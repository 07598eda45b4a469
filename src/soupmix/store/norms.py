"""The norm of the base weights that a store's adapters change: what a bound on the norm of a soup is relative to."""

import math
from collections.abc import Iterable

import torch

from soupmix.base import Base, TensorInfo
from soupmix.dtypes import TORCH, torch_dtype
from soupmix.errors import BaseModelError

__all__ = ["base_norm"]


def base_norm(base: Base, modules: Iterable[str]) -> float:
    """Frobenius norm of the weights of these modules together, to ten digits.

    Raises:
        BaseModelError: a weight is stored in a dtype without a norm (reason "dtype"), or its file was cut short.
    """
    tensors = base.tensors()
    square = math.fsum(_square(f"{module}.weight", tensors[f"{module}.weight"]) for module in modules)
    return float(f"{math.sqrt(square):.10g}")


def _square(name: str, info: TensorInfo) -> float:
    if info.dtype not in TORCH:
        raise BaseModelError(f"weight {name} of the base is stored as {info.dtype}, which has no norm", reason="dtype")
    with info.file.open("rb") as file:
        file.seek(info.start)
        data = bytearray(file.read(info.end - info.start))
    if len(data) < info.end - info.start:
        raise BaseModelError(f"base model file {info.file} was cut short while it was read", reason="truncated")
    return float(torch.frombuffer(data, dtype=torch_dtype(info.dtype)).double().square().sum())
