"""Exact projection onto any polytope: the dual active-set method of Goldfarb and Idnani (1983), in rationals."""

from collections.abc import Sequence
from fractions import Fraction

from soupmix.policy.rows import Exact, Row, Solution

__all__ = ["project"]

_Sparse = tuple[tuple[int, int], ...]


def project(requested: Sequence[int], rows: Sequence[Row]) -> Solution | None:
    """The nearest point of the set to `requested` (millionths), or None if the set is empty.

    Starts at `requested`, adds one violated inequality after the other, and drops those whose multiplier would turn
    negative; in exact arithmetic the dual objective rises with every addition, so it ends.
    """
    sides = [(index, sign, row) for index, row in enumerate(rows) for sign in (-1, 1)]
    normals: list[_Sparse] = []
    bounds: list[int] = []
    origin: list[tuple[int, int]] = []
    for index, sign, row in sides:
        bound = row.high if sign < 0 else row.low
        if bound is not None:
            normals.append(tuple((adapter, sign * coef) for adapter, coef in row.coefs))
            bounds.append(sign * bound)
            origin.append((index, sign))
    if any(not normal and bound > 0 for normal, bound in zip(normals, bounds, strict=True)):
        return None
    weights: list[Exact] = list(requested)
    active: dict[int, Exact] = {}
    while (worst := _most_violated(weights, normals, bounds, active)) is not None:
        if not _add(worst, weights, normals, bounds, active):
            return None
    multipliers: dict[int, Exact] = {}
    for side, value in active.items():
        index, sign = origin[side]
        multipliers[index] = multipliers.get(index, 0) - sign * value
    return Solution(tuple(weights), {index: value for index, value in multipliers.items() if value})


def _most_violated(
    weights: Sequence[Exact], normals: Sequence[_Sparse], bounds: Sequence[int], active: dict[int, Exact]
) -> int | None:
    """The side with the largest shortfall; the first of equals."""
    shortfalls = [
        (_dot(normal, weights) - bound, side)
        for side, (normal, bound) in enumerate(zip(normals, bounds, strict=True))
        if side not in active
    ]
    worst = min(shortfalls, default=(0, 0))
    return worst[1] if worst[0] < 0 else None


def _add(
    side: int, weights: list[Exact], normals: Sequence[_Sparse], bounds: Sequence[int], active: dict[int, Exact]
) -> bool:
    """Move `weights` and the multipliers until `side` is met with equality; False if no point can meet it."""
    multiplier: Exact = 0
    while True:
        names = list(active)
        pull = _solve(
            [[_product(normals[i], normals[j]) for j in names] for i in names],
            [_product(normals[i], normals[side]) for i in names],
        )
        step = [Fraction(0)] * len(weights)
        for factor, normal in [
            (Fraction(1), normals[side]),
            *((-f, normals[i]) for f, i in zip(pull, names, strict=True)),
        ]:
            for adapter, coef in normal:
                step[adapter] += factor * coef
        gain = _dot(normals[side], step)
        full = (bounds[side] - _dot(normals[side], weights)) / Fraction(gain) if gain else None
        drops = [(active[i] / factor, i) for factor, i in zip(pull, names, strict=True) if factor > 0]
        blocked = min(drops, default=None)
        if full is None and blocked is None:
            return False
        length = blocked[0] if blocked and (full is None or blocked[0] < full) else full
        if length is None:
            return False
        for i, factor in zip(names, pull, strict=True):
            active[i] -= length * factor
        multiplier += length
        if gain:
            weights[:] = [weight + length * change for weight, change in zip(weights, step, strict=True)]
        if length == full:
            active[side] = multiplier
            return True
        if blocked:
            del active[blocked[1]]


def _dot(sparse: _Sparse, dense: Sequence[Exact]) -> Exact:
    return sum((coef * dense[index] for index, coef in sparse), start=0)


def _product(left: _Sparse, right: _Sparse) -> int:
    other = dict(right)
    return sum(coef * other.get(index, 0) for index, coef in left)


def _solve(matrix: list[list[int]], right: list[int]) -> list[Fraction]:
    """Gauss-Jordan for the Gram matrix of independent normals, which is positive definite: pivots are never zero."""
    table = [[*map(Fraction, row), Fraction(value)] for row, value in zip(matrix, right, strict=True)]
    for column, pivot in enumerate(table):
        pivot[:] = [value / pivot[column] for value in pivot]
        for row in table:
            if row is not pivot and row[column]:
                row[:] = [value - row[column] * base for value, base in zip(row, pivot, strict=True)]
    return [row[-1] for row in table]
