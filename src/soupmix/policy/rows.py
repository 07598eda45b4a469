"""Constraints gathered into rows, `low <= coefs . w <= high`, and the exact solution of a projection onto them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

from soupmix.policy.pieces import Constraint

__all__ = ["Exact", "Row", "Solution", "gather"]

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
        value: Exact = 0
        for index, coef in self.coefs:
            value += weights[index] if coef == 1 else coef * weights[index]
        return value

    def holds(self, value: Exact) -> bool:
        """Whether a left-hand side is within the interval."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True, slots=True)
class Solution:
    """The projection w of v, with the multipliers that prove it; M is the matrix of the metric, G that of the norm.

    Attributes:
        weights: w, exact millionths.
        multipliers: row index -> lambda with M (v - w) - share G w = sum(lambda * coefs); positive where the row's
            upper bound holds w back, negative where its lower bound does; zeros are left out.
        share: multiplier of the norm's bound. gap: what w may be worse than the best point, in squared millionths of the
            metric; 0 without a bound on the norm.
    """

    weights: tuple[Exact, ...]
    multipliers: Mapping[int, Exact]
    share: Fraction = Fraction(0)
    gap: Exact = 0

    def whole(self) -> tuple[list[int], dict[int, int], int]:
        """Weights and multipliers as integers, in units of one over the number that is given last."""
        scale = lcm(*(w.denominator for w in self.weights), *(m.denominator for m in self.multipliers.values()))
        if scale == 1:
            return [int(w) for w in self.weights], {row: int(m) for row, m in self.multipliers.items()}, 1
        weights = [w.numerator * (scale // w.denominator) for w in self.weights]
        return weights, {row: m.numerator * (scale // m.denominator) for row, m in self.multipliers.items()}, scale


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
