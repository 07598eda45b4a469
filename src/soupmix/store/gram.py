"""Inner products of LoRA deltas from r x r products: a delta [out, in] is never formed."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from soupmix.store.adapter import Factors
from soupmix.store.manifest import Gram

__all__ = ["gram_of_module", "grams"]


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


def _rounded(values: Tensor) -> tuple[float, ...]:
    # Ten digits are the same on machines whose float64 products differ in the last bits.
    return tuple(float(f"{value:.10g}") for value in values.tolist())
