"""Projection when the norm of the merged delta is bounded too: a polytope cut by an ellipsoid.

The bound w' G w <= limit gets a multiplier m >= 0; for a given m the minimum over the polytope is that of one more quadratic
(`Quadratic.plus`) and is exact. m itself is irrational in general: it is searched in float64 and rounded up, so that the bound
holds exactly, and what that costs is known exactly too: m (limit - w' G w), by weak duality.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt

from soupmix.projection.active_set import minimise
from soupmix.projection.constraints import Row
from soupmix.projection.quadratic import Matrix, Quadratic, form
from soupmix.projection.solution import Solution
from soupmix.projection.time_budget import check_time

__all__ = ["Ellipsoid", "minimise_inside"]

_STEPS = 100


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """All w (millionths) with w' gram w <= limit, in integers; a limit of 0 would have no multiplier, so rows hold it instead."""

    gram: Matrix
    limit: int

    def holds(self, weights: Sequence[int], scale: int = 1) -> bool:
        """Whether a point in millionths, each of them so many parts as `scale` says, is inside."""
        return form(self.gram, weights) <= self.limit * scale**2

    def norm(self, solution: Solution) -> Fraction:
        """w' gram w of a solution."""
        return Fraction(form(self.gram, solution.scaled), solution.scale**2)


def minimise_inside(target: Quadratic, rows: Sequence[Row], ball: Ellipsoid) -> Solution | None:
    """The point of rows and ball where `target` is least, up to `gap`, or None if there is none."""
    free = minimise(target, rows)
    if free is None or ball.norm(free) <= ball.limit:
        return free
    low, high = (0.0, free), (1.0 / max(row[index] for index, row in enumerate(ball.gram)), free)
    while ball.norm((high := (high[0], _at(high[0], target, rows, ball)))[1]) > ball.limit:
        low, high = high, (high[0] * 16, high[1])
        if high[0] > 1e30:
            return None
    for step in range(_STEPS):
        check_time()
        if high[1].gap <= target.unit:
            break
        # aim at half the gap that is allowed, from either side; bisect now and then, should the curve be bent too much
        aim = ball.limit - Fraction(target.unit) / (2 * Fraction(high[0]))
        middle = _between(low, high, ball, aim) if step % 4 < 3 else (low[0] + high[0]) / 2
        tried = (middle, _at(middle, target, rows, ball))
        low, high = (low, tried) if ball.norm(tried[1]) <= ball.limit else (tried, high)
    return high[1]


def _between(low: tuple[float, Solution], high: tuple[float, Solution], ball: Ellipsoid, aim: Fraction) -> float:
    """Where 1 / norm, which is nearly linear in the multiplier, meets the one that is aimed at.

    Differences of almost equal numbers are taken exactly, before anything is a float. `low` is outside and `high` inside by
    more than is aimed for, so below > aim > above; and aim > 0, as the limit is, and more than is missing.
    """
    below, above = (ball.norm(each) for _, each in (low, high))
    wide, small, here = sqrt(below), sqrt(above), sqrt(aim)
    share = float((below - aim) / (below - above)) * (wide + small) / (wide + here) * small / here
    return low[0] + (high[0] - low[0]) * share


def _at(multiplier: float, target: Quadratic, rows: Sequence[Row], ball: Ellipsoid) -> Solution:
    share = Fraction(multiplier)
    penalised = target.plus(share, ball.gram)
    found = minimise(penalised, rows)
    if found is None:  # pragma: no cover  # the first minimum was found, so the set is not empty
        raise ArithmeticError("a set that is not empty for one target is empty for another")
    scaled = tuple(penalised.scale * value for value in found.scaled)  # the target was, so its multipliers are
    gap = share * (ball.limit - ball.norm(found))
    return Solution(scaled, found.pulling, penalised.scale * found.scale, share, gap)
