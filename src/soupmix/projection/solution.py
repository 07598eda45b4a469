"""The exact solution of a projection: the nearest point, and the multipliers that prove it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

__all__ = ["Exact", "Solution", "scaled"]

Exact = int | Fraction
"""A number without rounding."""


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
        whole, scale = scaled([*weights, *multipliers.values()])
        pulling = dict(zip(multipliers, whole[len(weights) :], strict=True))
        return cls(whole[: len(weights)], pulling, scale, share, gap)

    @property
    def weights(self) -> tuple[Exact, ...]:
        """w, exact millionths."""
        return tuple(_exact(value, self.scale) for value in self.scaled)

    @property
    def multipliers(self) -> dict[int, Exact]:
        """Row index -> lambda."""
        return {row: _exact(value, self.scale) for row, value in self.pulling.items()}


def scaled(numbers: Sequence[Exact]) -> tuple[tuple[int, ...], int]:
    """Numbers over their least common denominator: (numerators, denominator)."""
    scale = lcm(*(number.denominator for number in numbers))
    return tuple(number.numerator * (scale // number.denominator) for number in numbers), scale


def _exact(value: int, scale: int) -> Exact:
    whole, rest = divmod(value, scale)
    return Fraction(value, scale) if rest else whole
