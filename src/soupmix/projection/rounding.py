"""From the exact projection to integer millionths that are still inside."""

from collections.abc import Sequence

from soupmix.errors import PolicyRefusal
from soupmix.projection.constraints import Row
from soupmix.projection.solution import Solution
from soupmix.projection.time_budget import check_time

__all__ = ["round_inside"]

_MOST_STATES, _MOST_NUMBERS = 1 << 16, 1 << 22


def round_inside(solution: Solution, rows: Sequence[Row]) -> tuple[int, ...] | None:
    """The nearest integer point inside all rows beside a solution that is, every weight rounded down or up, or None.

    For bounds and nested or disjoint groups there is always one (their matrix is totally unimodular). Found by dynamic
    programming over the weights that are not integers, with what they add to each row that could be violated as
    state. Among equally near points the smallest total wins, then the one that rounds up the first coordinate.

    Raises:
        PolicyRefusal: there are too many states (reason "too-slow").
    """
    scale = solution.scale
    parts = [divmod(weight, scale) for weight in solution.scaled]
    floors, rests = [low for low, _ in parts], {index: rest for index, (_, rest) in enumerate(parts) if rest}
    # bounds are whole, so where one is on a weight alone, that can be rounded either way
    tight = [row for row in rows if row.alone is None and not _safe(row, floors, rests)] if rests else []
    if len(tight) == 1 and tight[0].plain and len(set(rests.values())) == 1:
        return _one_sum(tight[0], floors, rests, scale)
    spans = [_Span(row, floors, rests) for row in tight]
    # state -> (distance, total, -mask): the mask has the first coordinate at its highest bit
    table: dict[tuple[int, ...], tuple[int, int, int]] = {(0,) * len(tight): (0, 0, 0)}
    for position, (index, rest) in enumerate(rests.items()):
        check_time()
        bit = 1 << (len(rests) - position - 1)
        steps = tuple(span.coefs.get(index, 0) for span in spans)
        cost = scale - 2 * rest  # of rounding up instead of down, in squares of 1 / scale
        after: dict[tuple[int, ...], tuple[int, int, int]] = {}
        for state, (distance, total, mask) in table.items():
            up = tuple(a + b for a, b in zip(state, steps, strict=True))
            for key, value in ((state, (distance, total, mask)), (up, (distance + cost, total + 1, mask - bit))):
                if all(span.open(added, index) for span, added in zip(spans, key, strict=True)):
                    after[key] = min(after.get(key, value), value)
            if len(after) > _MOST_STATES or len(after) * len(spans) > _MOST_NUMBERS:
                raise PolicyRefusal(
                    "so many groups overlap near these weights that they cannot be rounded to whole millionths; ask for fewer "
                    "adapters, or have the policy's overlapping groups made fewer",
                    reason="too-slow",
                )
        table = after
    if not table:
        return None
    chosen = -min(table.values())[2]
    for position, index in enumerate(rests):
        floors[index] += chosen >> (len(rests) - position - 1) & 1
    return tuple(floors)


def _one_sum(row: Row, floors: list[int], rests: dict[int, int], scale: int) -> tuple[int, ...]:
    """Rounding where only one sum could be violated, and all weights have the same fractional part.

    Then it only matters how many of its weights are rounded up, and the first ones are. As the solution is inside and the bounds
    are whole, at least one number of them fits.
    """
    within = [index for index, _ in row.coefs if index in rests]
    outside = [index for index in rests if index not in within]
    base, up = row.value(floors), 2 * next(iter(rests.values())) > scale
    least = 0 if row.low is None else max(row.low - base, 0)
    most = len(within) if row.high is None else min(row.high - base, len(within))
    for index in [*within[: most if up else least], *(outside if up else ())]:
        floors[index] += 1
    return tuple(floors)


def _safe(row: Row, floors: Sequence[int], rests: dict[int, int]) -> bool:
    """Whether a row holds however its weights are rounded."""
    base, up, down = row.value(floors), 0, 0
    for index, coef in row.coefs:
        if index in rests:
            up, down = (up + coef, down) if coef > 0 else (up, down + coef)
    return (row.high is None or base + up <= row.high) and (row.low is None or base + down >= row.low)


class _Span:
    """What may be added to one row, and how much the weights after each one can still add."""

    def __init__(self, row: Row, floors: Sequence[int], rests: dict[int, int]) -> None:
        self._row, self._base = row, row.value(floors)
        self._later: dict[int, tuple[int, int]] = {}
        self.coefs = dict(row.coefs)
        least = most = 0
        for index in reversed(rests):
            self._later[index] = (least, most)
            coef = self.coefs.get(index, 0)
            least, most = least + min(coef, 0), most + max(coef, 0)

    def open(self, added: int, index: int) -> bool:
        """Whether a row with so much added can still end inside, once the weight at `index` is decided."""
        least, most = self._later[index]
        value = self._base + added
        return (self._row.high is None or value + least <= self._row.high) and (
            self._row.low is None or value + most >= self._row.low
        )
