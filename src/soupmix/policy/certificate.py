"""The check that every clamp passes before it is granted: the Karush-Kuhn-Tucker conditions, in exact arithmetic."""

from collections.abc import Sequence

from soupmix.policy.norm import Ellipsoid
from soupmix.policy.quadratic import Matrix, form, times, unit
from soupmix.policy.rows import Exact, Row, Solution

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
    weights, multipliers, scale = solution.whole()
    rest = times(metric, [scale * asked - given for asked, given in zip(requested, weights, strict=True)])
    if ball is not None:
        slack = ball.limit - form(ball.gram, solution.weights)
        if slack < 0 or solution.share < 0 or solution.share * slack > unit(metric):
            return False
        pull = times(ball.gram, weights) if solution.share else [0] * len(rest)
        rest = [value - solution.share * part for value, part in zip(rest, pull, strict=True)]
    elif solution.share:
        return False
    for index, multiplier in multipliers.items():
        for adapter, coef in rows[index].coefs:
            rest[adapter] -= multiplier * coef
    return not any(rest) and all(
        _fits(row, row.value(weights), multipliers.get(index, 0), scale) for index, row in enumerate(rows)
    )


def _fits(row: Row, value: Exact, multiplier: int, scale: int) -> bool:
    """Whether a row holds, with equality where it pulls; its value comes in units of 1 / scale."""
    if row.high is not None and (value > row.high * scale or (multiplier > 0 and value != row.high * scale)):
        return False
    if row.low is not None and (value < row.low * scale or (multiplier < 0 and value != row.low * scale)):
        return False
    return not (multiplier > 0 and row.high is None) and not (multiplier < 0 and row.low is None)
