"""The singular values of a change, its largest singular vectors, and a certified bound on what they leave out.

Small matrices are decomposed exactly. Of large ones a subspace is found that holds the largest singular vectors (Halko,
Martinsson and Tropp 2011, algorithms 4.4 and 5.1, with a fixed seed), and what lies outside it is measured, not estimated.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from soupmix.merge.approximation import subspace
from soupmix.public import public

__all__ = ["NOTHING", "LayerChange", "decomposed", "least_rank", "losses"]

NOTHING: Final = 1e-7
"""A share of a change that no fp32 factor can hold."""

_EXACT: Final = 1024  # up to this smaller side a matrix is decomposed exactly
_FIRST, _MORE, _SPARE = 32, 4, 8


@public
@dataclass(frozen=True, slots=True)
class LayerChange:
    """What a source changes of one linear layer: tuned minus base, [out, in], by its singular values.

    Attributes:
        left: [out, k] fp32, the largest left singular vectors.
        right: [k, in] fp32, the right ones.
        values: [n] float64, n >= k, falling: every singular value that is known; all, of a layer with a side up to 1024.
        rest: Frobenius norm of what the known ones leave out.
    """

    left: Tensor
    right: Tensor
    values: Tensor
    rest: float

    @property
    def norm(self) -> float:
        """Frobenius norm of the whole change."""
        return math.hypot(float(self.values.norm()), self.rest)

    def error(self, rank: int) -> float:
        """What the update of this rank misses, relative to `norm`; an upper bound where not all singular values are known."""
        found = losses([self])
        return float(found[min(rank, len(found) - 1)] / found[0])

    def needed(self, error: float) -> int | None:
        """The least rank that misses no more than this share, or an upper bound; None if no known rank does."""
        return least_rank(losses([self]), error)

    def __repr__(self) -> str:
        shape = f"{self.right.shape[1]} -> {self.left.shape[0]}"
        return f"<LayerChange of norm {self.norm:.3g}, {len(self.values)} singular values known, {shape}>"


def decomposed(delta: Tensor, most: int) -> LayerChange:
    """Decompose a change that is not zero.

    Args:
        delta: [out, in] float64, finite. most: how many singular vectors are kept at most.
    """
    return _exact(delta, most) if min(delta.shape) <= _EXACT else _sketched(delta, most)


def _exact(delta: Tensor, most: int) -> LayerChange:
    left, values, right = torch.linalg.svd(delta, full_matrices=False)
    kept = min(most, int((values > 0.0).sum()))
    return LayerChange(left[:, :kept].float(), right[:kept].float(), values, 0.0)


def _sketched(delta: Tensor, most: int) -> LayerChange:
    norm, columns = float(torch.linalg.vector_norm(delta)), _FIRST
    while True:
        columns = min(columns, most)
        if _MORE * columns > min(delta.shape):
            return _exact(delta, most)
        basis = subspace(delta, columns + _SPARE)
        inner, values, right = torch.linalg.svd(basis.T @ delta, full_matrices=False)
        left, values, right = (basis @ inner)[:, :columns], values[:columns], right[:columns]
        rest = float(torch.linalg.vector_norm(torch.addmm(delta, left * values, right, alpha=-1)))
        if rest <= NOTHING * norm or columns == most:
            return LayerChange(left.float(), right.float(), values, rest)
        columns *= _MORE


def losses(layers: Iterable[LayerChange], left_out: float = 0.0) -> Tensor:
    """[n + 1] float64: the norm of what all changes together lose at the common rank 0, 1, ..., n; first, that of them all.

    Args:
        left_out: norm of further changes that are lost at any rank.
    """
    tails = [_tails(each) for each in layers]
    total = torch.full((max(map(len, tails), default=1),), left_out**2, dtype=torch.float64)
    for tail in tails:
        total[: len(tail)] += tail
        total[len(tail) :] += tail[-1]
    return total.sqrt()


def _tails(layer: LayerChange) -> Tensor:
    """[n + 1] float64: the square of what is lost of one layer."""
    squares = layer.values.square().flip(0).cumsum(0).flip(0)
    return torch.cat([squares, squares.new_zeros(1)]) + layer.rest**2


def least_rank(found: Tensor, error: float) -> int | None:
    """The least rank at which no more than this share is lost, of what `losses` gave; None if no known rank does."""
    enough = torch.nonzero(found <= error * found[0])
    return int(enough[0]) if len(enough) else None
