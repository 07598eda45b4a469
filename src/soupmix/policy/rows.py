"""Constraints gathered into rows, `low <= coefs . w <= high`, and the exact solution of a projection onto them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from operator import itemgetter
from typing import Any

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
        adapters: their indices. plain: whether there are any, and every coefficient is 1. alone: the one adapter of a plain row.
    """

    coefs: tuple[tuple[int, int], ...]
    low: int | None
    high: int | None
    low_from: tuple[Constraint, ...] = ()
    high_from: tuple[Constraint, ...] = ()
    adapters: tuple[int, ...] = field(init=False, repr=False, compare=False)
    plain: bool = field(init=False, repr=False, compare=False)
    alone: int | None = field(init=False, repr=False, compare=False)
    _pick: Callable[[Sequence[int]], Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        adapters = tuple(index for index, _ in self.coefs)
        plain = bool(adapters) and all(coef == 1 for _, coef in self.coefs)
        object.__setattr__(self, "adapters", adapters)
        object.__setattr__(self, "plain", plain)
        object.__setattr__(self, "alone", adapters[0] if plain and len(adapters) == 1 else None)
        object.__setattr__(self, "_pick", itemgetter(*(adapters or (0,))))

    def value(self, weights: Sequence[int]) -> int:
        """The left-hand side at `weights`."""
        if self.alone is not None:
            return weights[self.alone]
        if self.plain:
            return sum(self._pick(weights))
        return sum([coef * weights[index] for index, coef in self.coefs])

    def holds(self, value: int) -> bool:
        """Whether a left-hand side, in whole millionths, is within the interval."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True, slots=True)
class Solution:
    """The projection w of v, with the multipliers that prove it; M is the matrix of the metric, G that of the norm.

    Attributes:
        scaled: scale * w, whole: exact weights in millionths over one denominator, as nearly all there is to do with them
            is done in integers. `weights` are the same as fractions.
        pulling: row index -> scale * lambda with M (v - w) - share G w = sum(lambda * coefs); positive where the row's
            upper bound holds w back, negative where its lower bound does; zeros are left out.
        scale: the common denominator, not always the least.
        share: multiplier of the norm's bound. gap: what w may be worse than the best point, in squared millionths of the
            metric; 0 without a bound on the norm.
    """

    scaled: tuple[int, ...]
    pulling: Mapping[int, int]
    scale: int = 1
    share: Fraction = Fraction(0)
    gap: Exact = 0

    @classmethod
    def of(
        cls,
        weights: Sequence[Exact],
        multipliers: Mapping[int, Exact],
        share: Fraction = Fraction(0),
        gap: Exact = 0,
    ) -> "Solution":
        """From weights and multipliers as fractions."""
        scale = lcm(*(w.denominator for w in weights), *(m.denominator for m in multipliers.values()))
        scaled = tuple(w.numerator * (scale // w.denominator) for w in weights)
        pulling = {row: m.numerator * (scale // m.denominator) for row, m in multipliers.items()}
        return cls(scaled, pulling, scale, share, gap)

    @property
    def weights(self) -> tuple[Exact, ...]:
        """w, exact millionths."""
        return tuple(_exact(value, self.scale) for value in self.scaled)

    @property
    def multipliers(self) -> dict[int, Exact]:
        """Row index -> lambda."""
        return {row: _exact(value, self.scale) for row, value in self.pulling.items()}


def _exact(value: int, scale: int) -> Exact:
    whole, rest = divmod(value, scale)
    return Fraction(value, scale) if rest else whole


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
