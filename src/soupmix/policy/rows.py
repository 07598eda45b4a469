"""Constraints gathered into rows, `low <= coefs . w <= high`, and the exact solution of a projection onto them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from soupmix.policy.constraints import Constraint

__all__ = ["Exact", "Row", "Solution", "certified", "gather"]

Exact = int | Fraction
"""A number without rounding."""


@dataclass(frozen=True, slots=True)
class Row:
    """All constraints over one left-hand side, as one interval with the rules that set its ends.

    Attributes:
        coefs: (adapter index, coefficient) of the non-zero coefficients; the first is positive.
        low, high: millionths, None for no bound.
        low_from, high_from: the constraints that set them; several if they tie.
    """

    coefs: tuple[tuple[int, int], ...]
    low: int | None
    high: int | None
    low_from: tuple[Constraint, ...] = ()
    high_from: tuple[Constraint, ...] = ()

    def value(self, weights: Sequence[Exact]) -> Exact:
        """The left-hand side at `weights`."""
        return sum((coef * weights[index] for index, coef in self.coefs), start=0)

    def holds(self, value: Exact) -> bool:
        """Whether a left-hand side is within the interval."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True, slots=True)
class Solution:
    """The projection w of v, with the multipliers that prove it.

    Attributes:
        weights: w, exact millionths.
        multipliers: row index -> lambda with v - w = sum(lambda * coefs); positive where the row's upper bound
            holds w back, negative where its lower bound does; zeros are left out.
    """

    weights: tuple[Exact, ...]
    multipliers: Mapping[int, Exact]


def gather(constraints: Iterable[Constraint]) -> tuple[Row, ...]:
    """One row per left-hand side, with the tightest bounds. An interval may come out empty."""
    ends: dict[tuple[tuple[int, int], ...], tuple[list[Constraint], list[Constraint]]] = {}
    for constraint in sorted(constraints, key=lambda each: (each.rule, each.coefs, each.bound)):
        coefs = tuple((index, coef) for index, coef in enumerate(constraint.coefs) if coef)
        negative = bool(coefs) and coefs[0][1] < 0
        key = tuple((index, -coef) for index, coef in coefs) if negative else coefs
        ends.setdefault(key, ([], []))[0 if negative else 1].append(constraint)
    rows = []
    for key, (lows, highs) in sorted(ends.items()):
        low, high = max((-each.bound for each in lows), default=None), min((each.bound for each in highs), default=None)
        low_from = tuple(each for each in lows if -each.bound == low)
        high_from = tuple(each for each in highs if each.bound == high)
        rows.append(Row(key, low, high, low_from, high_from))
    return tuple(rows)


def certified(requested: Sequence[int], rows: Sequence[Row], solution: Solution) -> bool:
    """Whether a solution satisfies the Karush-Kuhn-Tucker conditions exactly, which makes it THE projection.

    w is in every row; v - w is the sum of multipliers times coefficients; a positive multiplier only where the
    upper bound is met with equality, a negative one only where the lower bound is.
    """
    rest: list[Exact] = [asked - given for asked, given in zip(requested, solution.weights, strict=True)]
    for index, row in enumerate(rows):
        value, multiplier = row.value(solution.weights), solution.multipliers.get(index, 0)
        if not row.holds(value) or (multiplier > 0 and value != row.high) or (multiplier < 0 and value != row.low):
            return False
        for adapter, coef in row.coefs if multiplier else ():
            rest[adapter] -= multiplier * coef
    return not any(rest)
