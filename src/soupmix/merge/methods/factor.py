"""A and B averaged apart, as the released code of Personalized Soups does (Jang et al. 2023, arXiv 2310.11564).

The product of the averages has cross terms B_i A_j. It needs weights that sum to 1 and adapters that share their A
initialisation to mean anything.
"""

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from soupmix.errors import AdapterError
from soupmix.merge.methods import Parts, Weighted
from soupmix.merge.stack import Stack
from soupmix.methods import DEFAULT
from soupmix.store.adapter import Adapter

__all__ = ["stack", "warnings"]

_SAME_START = 0.5


def stack(path: str, parts: Parts) -> Stack:
    """(sum_k w_k sqrt(s_k) B_k) (sum_k w_k sqrt(s_k) A_k), of the rank that all parts have.

    Raises:
        AdapterError: the ranks differ ("rank-mismatch"), a scaling is negative ("negative-scaling"), or there is more than
            factors ("whole").
    """
    for part in parts:
        name, factors = part.name, part.factors
        if factors.gain is not None or factors.kind != "linear":
            raise AdapterError(
                f"method factor adds the factors themselves, and {name} changes {path} by more than factors of a linear layer: "
                f"use method {DEFAULT}",
                reason="whole",
            )
        if factors.rank != parts[0].factors.rank:
            raise AdapterError(
                f"method factor adds the factors themselves, so all ranks must be equal; at {path} {parts[0].name} has "
                f"rank {parts[0].factors.rank} and {name} has rank {factors.rank}: use method {DEFAULT}",
                reason="rank-mismatch",
            )
        if factors.scaling < 0:
            raise AdapterError(
                f"method factor takes the square root of the scaling; at {path} {name} has "
                f"{factors.scaling:g}: use method {DEFAULT}",
                reason="negative-scaling",
            )
    a, b = (
        _mean([(p.weight * math.sqrt(p.factors.scaling), getattr(p.factors, side)) for p in parts]) for side in "AB"
    )
    ones = torch.ones(a.shape[0], dtype=torch.float64)
    return Stack(a, b, weights=ones, scale=ones)


def warnings(weighted: Weighted) -> tuple[str, ...]:
    """Weights that do not sum to 1, adapters from different A initialisations. No weight is 0."""
    found = []
    total = round(math.fsum(weight for _, weight in weighted), 9)
    if weighted and total != 1.0:
        found.append(
            f"method factor is meant for weights that sum to 1; these sum to {total:g}, the delta grows with its square"
        )
    apart = [(_cosine(a, b), a.name, b.name) for (a, _), (b, _) in combinations(weighted, 2)]
    cosine, one, other = min(apart, default=(1.0, "", ""))
    if cosine < _SAME_START:
        found.append(
            f"method factor needs adapters from one A initialisation; {one} and {other} differ (cosine {cosine:.2f}), "
            f"so averaging their A factors cancels: use method {DEFAULT}"
        )
    return tuple(found)


def _mean(terms: Sequence[tuple[float, Tensor]]) -> Tensor:
    total = torch.zeros_like(terms[0][1], dtype=torch.float64)
    for weight, tensor in terms:
        total.add_(tensor.double(), alpha=weight)
    return total.float()


def _cosine(one: Adapter, other: Adapter) -> float:
    """Cosine between the A factors of two adapters over the modules they share; 1 where they share none."""
    dot = left = right = 0.0
    for path in sorted(one.modules.keys() & other.modules.keys()):
        a, b = one.modules[path].A.double(), other.modules[path].A.double()
        if a.shape == b.shape:
            dot, left, right = (
                dot + (a * b).sum().item(),
                left + a.square().sum().item(),
                right + b.square().sum().item(),
            )
    return dot / math.sqrt(left * right) if left and right else 1.0
