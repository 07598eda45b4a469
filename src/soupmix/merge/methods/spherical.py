"""Deltas as points on spheres: the way from one to another, and the mean of several. Both lie in the span of the deltas, so that
only lengths and angles are computed, and the factors are stacked."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from soupmix.errors import RecipeError
from soupmix.merge.methods import Parts, combined, only_factors
from soupmix.merge.methods.angles import lengths_and_cosines
from soupmix.merge.stack import Stack
from soupmix.methods import DEFAULT

__all__ = ["karcher", "slerp"]

_PARALLEL = 0.9995  # a cosine beyond which the arc is a line
_STEPS, _DONE = 200, 1e-14


def slerp(path: str, parts: Parts) -> Stack:
    """(w_1 + w_2) times the point at t = w_2 / (w_1 + w_2) of the arc from one delta to the other (Shoemake 1985).

    A layer that only one of them changes has it by its weight. Deltas that are parallel, opposite or nothing are added.

    Raises:
        RecipeError: there are more than two ("two-adapters").
        AdapterError: an adapter changes the layer by more than factors ("whole").
    """
    only_factors("slerp", path, parts)
    if len(parts) > 2:
        names = ", ".join(part.name for part in parts)
        raise RecipeError(
            f"method slerp goes from one adapter to another, and {len(parts)} were granted a weight ({names}): use method "
            f"karcher or {DEFAULT}",
            reason="two-adapters",
        )
    weights = [part.weight for part in parts]
    return combined(parts, weights if len(parts) < 2 else _arc(weights, *lengths_and_cosines(parts)))


def _arc(weights: Sequence[float], lengths: Tensor, cosines: Tensor) -> Sequence[float]:
    """Coefficients of the two."""
    cosine = cosines[0, 1].item()
    if abs(cosine) > _PARALLEL or not lengths.all():
        return weights
    total, angle = math.fsum(weights), math.acos(cosine)
    return [total * math.sin(weight / total * angle) / math.sin(angle) for weight in weights]


def karcher(path: str, parts: Parts) -> Stack:
    """(sum_k w_k |d_k|) u, with the u of |u| = 1 for which sum_k w_k angle(u, d_k)^2 is least (Karcher 1977).

    Where directions cancel, so that there is no such u, the update is 0.

    Raises:
        AdapterError: an adapter changes the layer by more than factors ("whole").
    """
    only_factors("karcher", path, parts)
    lengths, cosines = lengths_and_cosines(parts)
    weights = torch.tensor([part.weight for part in parts], dtype=torch.float64)
    weights = torch.where(lengths > 0.0, weights, 0.0)
    along = _mean_direction(weights, cosines)
    return combined(parts, torch.where(lengths > 0.0, (weights @ lengths) * along / lengths, 0.0).tolist())


def _mean_direction(weights: Tensor, cosines: Tensor) -> Tensor:
    """Coefficients [K] of the mean in the unit vectors whose cosines are given; gradient steps of length 1."""
    found = weights / weights.sum().clamp(min=torch.finfo(torch.float64).tiny)
    shares, norm = found, _norm(found, cosines)
    if norm < 1e-9:
        return torch.zeros_like(found)
    found = found / norm
    for _ in range(_STEPS):
        toward = (cosines @ found).clamp(-1.0, 1.0)
        angles = toward.acos()
        stretch = torch.where(angles > 1e-7, angles / angles.sin().clamp(min=1e-12), 1.0)
        tangent = shares * stretch - (shares * stretch * toward).sum() * found
        step = _norm(tangent, cosines)
        if step < _DONE:
            break
        found = math.cos(step) * found + math.sin(step) / step * tangent
        found = found / _norm(found, cosines)
    return found


def _norm(coefficients: Tensor, cosines: Tensor) -> float:
    return math.sqrt(max(float(coefficients @ cosines @ coefficients), 0.0))
