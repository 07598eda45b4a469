"""How large adapters are: inner products of their deltas, and the norm of the base weights that they change.

Inner products come from r x r products: a delta [out, in] is never formed. A bound on the norm of a soup is relative to that of
the base.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from soupmix.base import Base, TensorInfo
from soupmix.dtypes import TORCH, torch_dtype
from soupmix.errors import BaseModelError
from soupmix.store.adapter import Factors
from soupmix.store.manifest import Gram

__all__ = ["base_norm", "gram_of_module", "grams"]


def gram_of_module(factors: Sequence[Factors | None]) -> Tensor:
    """[K, K] float64 inner products <delta_k, delta_l> of one module's deltas; None is a zero delta.

    With delta_k = s_k B_k A_k:  <delta_k, delta_l> = s_k s_l tr((B_k^T B_l)(A_l A_k^T)), the sum of the elementwise
    product of the two [r_k, r_l] matrices B_k^T B_l and A_k A_l^T.
    """
    gram = torch.zeros(len(factors), len(factors), dtype=torch.float64)
    present = [(k, factor) for k, factor in enumerate(factors) if factor is not None]
    if not present:
        return gram
    A = torch.cat([factor.A.double() for _, factor in present])  # [R, in]
    B = torch.cat([factor.B.double() * factor.scaling for _, factor in present], dim=1)  # [out, R]
    products = (B.T @ B) * (A @ A.T)  # [R, R]
    owner = torch.cat([torch.full((factor.rank,), k) for k, factor in present])
    rows = torch.zeros(len(factors), len(owner), dtype=torch.float64).index_add_(0, owner, products)
    gram.index_add_(1, owner, rows)
    return (gram + gram.T) / 2


def grams(adapters: Sequence[Mapping[str, Factors]]) -> Gram:
    """The `Gram` of a set of adapters, in the order given (a store gives them sorted by name)."""
    upper = torch.triu_indices(len(adapters), len(adapters))
    total = torch.zeros(len(adapters), len(adapters), dtype=torch.float64)
    modules: dict[str, tuple[float, ...]] = {}
    for module in sorted({module for adapter in adapters for module in adapter}):
        gram = gram_of_module([adapter.get(module) for adapter in adapters])
        total += gram
        modules[module] = _rounded(gram[upper[0], upper[1]])
    return Gram(total=_rounded(total[upper[0], upper[1]]), modules=modules)


def base_norm(base: Base, modules: Iterable[str]) -> float:
    """Frobenius norm of the weights of these modules together, to ten digits.

    Raises:
        BaseModelError: a weight is stored in a dtype without a norm (reason "dtype"), or its file was cut short.
    """
    tensors = base.tensors()
    square = math.fsum(_square(f"{module}.weight", tensors[f"{module}.weight"]) for module in modules)
    return float(f"{math.sqrt(square):.10g}")


def _rounded(values: Tensor) -> tuple[float, ...]:
    # Ten digits are the same on machines whose float64 products differ in the last bits.
    return tuple(float(f"{value:.10g}") for value in values.tolist())


def _square(name: str, info: TensorInfo) -> float:
    if info.dtype not in TORCH:
        raise BaseModelError(f"weight {name} of the base is stored as {info.dtype}, which has no norm", reason="dtype")
    with info.file.open("rb") as file:
        file.seek(info.start)
        data = bytearray(file.read(info.end - info.start))
    if len(data) < info.end - info.start:
        raise BaseModelError(f"base model file {info.file} was cut short while it was read", reason="truncated")
    return float(torch.frombuffer(data, dtype=torch_dtype(info.dtype)).double().square().sum())
