"""The check that every clamp passes before it is granted: the Karush-Kuhn-Tucker conditions, in exact arithmetic."""

from collections.abc import Sequence
from itertools import repeat
from operator import mul, sub

from soupmix.projection.constraints import Row
from soupmix.projection.norm import Ellipsoid
from soupmix.projection.quadratic import Matrix, times, unit
from soupmix.projection.solution import Exact, Solution

__all__ = ["certified"]


def certified(
    requested: Sequence[int],
    rows: Sequence[Row],
    solution: Solution,
    metric: Matrix | None = None,
    ball: Ellipsoid | None = None,
) -> bool:
    """Whether a solution satisfies the conditions, which makes it THE projection (with a bound on the norm: within `gap` of it).

    w is in every row, and in the ball; M (v - w) - share G w is the sum of multipliers times coefficients; a positive
    multiplier only where the upper bound is met with equality, a negative one only where the lower bound is; and the
    squared distance to the projection is at most share * (limit - w' G w), which must not exceed a squared millionth.
    """
    weights, scale, pulling = solution.scaled, solution.scale, solution.pulling
    rest: list[Exact] = list(times(metric, list(map(sub, map(mul, requested, repeat(scale)), weights))))
    if ball is not None:
        slack = ball.limit - ball.norm(solution)
        if slack < 0 or solution.share < 0 or solution.share * slack > unit(metric):
            return False
        pull = times(ball.gram, weights) if solution.share else [0] * len(rest)
        rest = [value - solution.share * part for value, part in zip(rest, pull, strict=True)]
    elif solution.share:
        return False
    for index, row in enumerate(rows):
        value, low, high = row.value(weights), row.low, row.high
        if (low is not None and value < low * scale) or (high is not None and value > high * scale):
            return False
        if multiplier := pulling.get(index):
            bound = high if multiplier > 0 else low
            if bound is None or value != bound * scale:
                return False
            for coordinate, coef in row.coefs:
                rest[coordinate] -= multiplier * coef
    return not any(rest)
