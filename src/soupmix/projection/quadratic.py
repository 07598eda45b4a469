"""What is minimised: the squared distance from a request, in one of two metrics, with a share of a norm added.

And linear systems over the integers, solved without rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from operator import mul

from soupmix.projection.solution import Exact

__all__ = ["Matrix", "Quadratic", "form", "inverse_of", "solve", "times", "unit"]

Matrix = tuple[tuple[int, ...], ...]
"""A symmetric matrix of integers [coordinates, coordinates]."""


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
    return 1 if metric is None else max((row[index] for index, row in enumerate(metric)), default=1)


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
        return None if self.matrix is None else inverse_of(self.matrix)

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


def solve(matrix: Sequence[Sequence[int]], right: Sequence[int]) -> list[Fraction] | None:
    """The solution of a square system, or None if the matrix is singular.

    Bareiss (1968): elimination in which every division comes out even, so no fraction is formed before the end.
    """
    table = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    if not _eliminate(table):
        return None
    found: list[Fraction] = [Fraction(0)] * len(table)
    for index in range(len(table) - 1, -1, -1):
        row = table[index]
        known = sum((row[j] * found[j] for j in range(index + 1, len(table)) if row[j]), start=Fraction(0))
        found[index] = (row[-1] - known) / row[index]
    return found


def inverse_of(matrix: Sequence[Sequence[int]]) -> list[list[Fraction]] | None:
    """The inverse of a square matrix, or None if it is singular."""
    size = range(len(matrix))
    columns = [solve(matrix, [int(row == column) for row in size]) for column in size]
    if any(column is None for column in columns):
        return None
    return [[column[row] for column in columns if column is not None] for row in size]


def _eliminate(table: list[list[int]]) -> bool:
    """Bring a square system with its right-hand side into upper triangular form; False if it is singular."""
    before, size = 1, len(table)
    for step in range(size):
        pivot = next((row for row in range(step, size) if table[row][step]), None)
        if pivot is None:
            return False
        table[step], table[pivot] = table[pivot], table[step]
        top = table[step]
        head = top[step]
        for row in table[step + 1 :]:
            factor = row[step]
            row[step + 1 :] = [
                (head * a - factor * b) // before for a, b in zip(row[step + 1 :], top[step + 1 :], strict=True)
            ]
            row[step] = 0
        before = head
    return True
