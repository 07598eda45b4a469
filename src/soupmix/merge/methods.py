"""The two ways to merge LoRA adapters by weights, as pure functions from adapters to stacks.

    delta   delta_m = sum_k w_k s_k B_k A_k                                       exact, the default
    factor  delta_m = (sum_k w_k sqrt(s_k) B_k) (sum_k w_k sqrt(s_k) A_k)         cross terms B_i A_j remain

`factor` is what the released code of Personalized Soups (Jang et al. 2023, arXiv 2310.11564) does: A and B are averaged
separately. It needs weights that sum to 1 and adapters that share their A initialisation to mean anything.
An adapter of weight zero is left out, never multiplied, so nothing of it can leak (0 * inf is NaN).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from soupmix.errors import AdapterError, RecipeError
from soupmix.merge.stack import Stack
from soupmix.store.adapter import Adapter, Factors

__all__ = ["METHODS", "check_method", "factor_warnings", "merge_modules"]

Weighted = Sequence[tuple[Adapter, float]]
_Parts = Sequence[tuple[str, float, Factors]]

_SAME_START = 0.5


def merge_modules(weighted: Weighted, method: str = "delta") -> Mapping[str, Stack]:
    """Every module that any adapter of non-zero weight has -> its merged update, sorted by module path.

    Args:
        weighted: adapters with their weights. Stacked in the order of the adapters' digests, whatever the order given.
        method: "delta" or "factor".

    Raises:
        RecipeError: unknown method ("unknown-method").
        AdapterError: adapters disagree about a layer's shape ("shape-mismatch"); for `factor`, about its rank
            ("rank-mismatch"), or a scaling is negative ("negative-scaling").
    """
    merge_one = check_method(method)
    live = sorted(((a, w) for a, w in weighted if w != 0.0), key=lambda pair: pair[0].digest)
    paths = sorted({path for adapter, _ in live for path in adapter.modules})
    return {path: merge_one(path, _parts(path, live)) for path in paths}


def check_method(method: str) -> Callable[[str, _Parts], Stack]:
    """The function behind a method's name. Raises `RecipeError` for any other name."""
    if method not in METHODS:
        raise RecipeError(
            f"unknown merge method {method!r}: use 'delta' (exact sum of deltas) or 'factor' (A and B averaged apart)",
            reason="unknown-method",
        )
    return METHODS[method]


def factor_warnings(weighted: Weighted) -> tuple[str, ...]:
    """Why `factor` may mean little here: weights that do not sum to 1, adapters from different A initialisations."""
    live = sorted(((a, w) for a, w in weighted if w != 0.0), key=lambda pair: pair[0].digest)
    found = []
    total = round(math.fsum(weight for _, weight in live), 9)
    if live and total != 1.0:
        found.append(
            f"method factor is meant for weights that sum to 1; these sum to {total:g}, the delta grows with its square"
        )
    apart = [(_cosine(a, b), a.name, b.name) for (a, _), (b, _) in combinations(live, 2)]
    cosine, one, other = min(apart, default=(1.0, "", ""))
    if cosine < _SAME_START:
        found.append(
            f"method factor needs adapters from one A initialisation; {one} and {other} differ (cosine {cosine:.2f}), "
            "so averaging their A factors cancels: use method delta"
        )
    return tuple(found)


def _parts(path: str, live: Weighted) -> _Parts:
    parts = [(adapter.name, weight, adapter.modules[path]) for adapter, weight in live if path in adapter.modules]
    first = parts[0]
    for name, _, factors in parts:
        shape, expected = _shape(factors), _shape(first[2])
        if shape != expected:
            raise AdapterError(
                f"adapters {first[0]} and {name} disagree about the shape of {path}: {expected} and {shape}; "
                "they cannot belong to one base model",
                reason="shape-mismatch",
            )
    return parts


def _shape(factors: Factors) -> tuple[int, int]:
    return factors.B.shape[0], factors.A.shape[1]


def _delta(path: str, parts: _Parts) -> Stack:
    ranks = torch.tensor([f.rank for _, _, f in parts])
    weights, scale = torch.tensor([(w, f.scaling) for _, w, f in parts], dtype=torch.float64).T
    return Stack(
        A=torch.cat([f.A.float() for _, _, f in parts]),
        B=torch.cat([f.B.float() for _, _, f in parts], 1),
        weights=weights.repeat_interleave(ranks),
        scale=scale.repeat_interleave(ranks),
    )


def _factor(path: str, parts: _Parts) -> Stack:
    for name, _, factors in parts:
        if factors.rank != parts[0][2].rank:
            raise AdapterError(
                f"method factor adds the factors themselves, so all ranks must be equal; at {path} {parts[0][0]} has "
                f"rank {parts[0][2].rank} and {name} has rank {factors.rank}: use method delta",
                reason="rank-mismatch",
            )
        if factors.scaling < 0:
            raise AdapterError(
                f"method factor takes the square root of the scaling; at {path} {name} has "
                f"{factors.scaling:g}: use method delta",
                reason="negative-scaling",
            )
    a, b = (_mean([(w * math.sqrt(f.scaling), getattr(f, side)) for _, w, f in parts]) for side in "AB")
    ones = torch.ones(a.shape[0], dtype=torch.float64)
    return Stack(a, b, weights=ones, scale=ones)


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


METHODS: Mapping[str, Callable[[str, _Parts], Stack]] = {"delta": _delta, "factor": _factor}
