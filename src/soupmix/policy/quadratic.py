"""What is minimised: the squared distance from a request, in one of two metrics, with a share of a norm added."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from operator import mul

from soupmix.policy.exact import inverse
from soupmix.policy.rows import Exact

__all__ = ["Matrix", "Quadratic", "form", "times", "unit"]

Matrix = tuple[tuple[int, ...], ...]
"""A symmetric matrix of integers [adapters, adapters]."""


def times(matrix: Matrix | None, vector: Sequence[int]) -> list[int]:
    """matrix @ vector; None is the identity."""
    if matrix is None:
        return list(vector)
    return [sum([a * b for a, b in zip(row, vector, strict=True) if a]) for row in matrix]


def form(matrix: Matrix | None, vector: Sequence[int]) -> int:
    """vector' matrix vector."""
    return sum(map(mul, vector, vector if matrix is None else times(matrix, vector)))


def unit(metric: Matrix | None) -> int:
    """The most that one squared millionth of distance counts in a metric."""
    return 1 if metric is None else max(row[index] for index, row in enumerate(metric))


@dataclass(frozen=True)
class Quadratic:
    """w' M w / 2 - pull' w, up to a factor: M = metric + share * gram, pull = metric @ request.

    Attributes:
        matrix: M scaled to integers, None for the identity. pull: scaled alike. scale: by how much.
        unit: what one squared millionth of distance counts, at the largest.
    """

    matrix: Matrix | None
    pull: tuple[int, ...]
    scale: int = 1
    unit: int = 1

    @classmethod
    def distance(cls, requested: Sequence[int], metric: Matrix | None) -> "Quadratic":
        """The squared distance from a request (millionths)."""
        return cls(metric, tuple(times(metric, requested)), unit=unit(metric))

    def plus(self, share: Fraction, gram: Matrix) -> "Quadratic":
        """With `share` of the squared norm w' gram w added, as a multiplier of a bound on it does."""
        size = range(len(self.pull))
        metric = self.matrix or tuple(tuple(int(i == j) for j in size) for i in size)
        scale = share.denominator
        matrix = tuple(tuple(scale * metric[i][j] + share.numerator * gram[i][j] for j in size) for i in size)
        return Quadratic(matrix, tuple(scale * value for value in self.pull), scale * self.scale, self.unit)

    @cached_property
    def inverse(self) -> list[list[Fraction]] | None:
        """M^-1 in rationals, None for the identity."""
        return None if self.matrix is None else inverse(self.matrix)

    def free(self) -> list[Exact]:
        """The minimum without constraints: M^-1 pull."""
        return list(self.pull) if self.inverse is None else [_dot(row, self.pull) for row in self.inverse]

    def lift(self, normal: Sequence[tuple[int, int]]) -> list[Exact]:
        """M^-1 normal, dense, for a sparse normal: the direction in which a side pulls."""
        dense: list[Exact] = [0] * len(self.pull)
        for index, coef in normal:
            dense[index] = coef
        return dense if self.inverse is None else [_dot(row, dense) for row in self.inverse]


def _dot(left: Sequence[Exact], right: Sequence[Exact]) -> Exact:
    return sum((a * b for a, b in zip(left, right, strict=True) if b), start=0)
