"""From the exact projection to integer millionths that are still inside."""

from collections.abc import Sequence
from math import lcm

from soupmix.policy.rows import Exact, Row

__all__ = ["round_inside"]


def round_inside(weights: Sequence[Exact], rows: Sequence[Row]) -> tuple[int, ...] | None:
    """The nearest integer point inside all rows among those that round every weight down or up, or None.

    For bounds and nested or disjoint groups there is always one (their matrix is totally unimodular). Found by dynamic
    programming over the weights that are not integers, with what they add to each row that could be violated as
    state. Among equally near points the smallest total wins, then the one that rounds up the adapter that comes first;
    adapters are ordered by digest.
    """
    scale = lcm(*(weight.denominator for weight in weights))
    if scale == 1:
        exact = tuple(int(weight) for weight in weights)
        return exact if all(row.holds(row.value(exact)) for row in rows) else None
    floors, rests = [], {}
    for index, weight in enumerate(weights):
        low, rest = divmod(weight.numerator * (scale // weight.denominator), scale)
        floors.append(low)
        if rest:
            rests[index] = rest
    tight = [row for row in rows if not _safe(row, floors, rests)]
    if len(tight) == 1 and len(set(rests.values())) == 1 and all(coef == 1 for _, coef in tight[0].coefs):
        return _one_sum(tight[0], floors, rests, scale)
    spans = [_Span(row, floors, rests) for row in tight]
    # state -> (distance, total, -mask): the mask puts the first adapter at its highest bit
    table: dict[tuple[int, ...], tuple[int, int, int]] = {(0,) * len(tight): (0, 0, 0)}
    for position, (index, rest) in enumerate(rests.items()):
        bit = 1 << (len(rests) - position - 1)
        steps = tuple(span.coefs.get(index, 0) for span in spans)
        cost = scale - 2 * rest  # of rounding up instead of down, in squares of 1 / scale
        after: dict[tuple[int, ...], tuple[int, int, int]] = {}
        for state, (distance, total, mask) in table.items():
            up = tuple(a + b for a, b in zip(state, steps, strict=True))
            for key, value in ((state, (distance, total, mask)), (up, (distance + cost, total + 1, mask - bit))):
                if all(span.open(added, index) for span, added in zip(spans, key, strict=True)):
                    after[key] = min(after.get(key, value), value)
        table = after
    if not table:
        return None
    chosen = -min(table.values())[2]
    for position, index in enumerate(rests):
        floors[index] += chosen >> (len(rests) - position - 1) & 1
    return tuple(floors)


def _one_sum(row: Row, floors: list[int], rests: dict[int, int], scale: int) -> tuple[int, ...] | None:
    """One sum is all that could be violated, and every weight misses the same: only how many round up matters, the first do."""
    inside = [index for index, _ in row.coefs if index in rests]
    outside = [index for index in rests if index not in inside]
    base, up = row.value(floors), 2 * next(iter(rests.values())) > scale
    least = 0 if row.low is None else max(row.low - int(base), 0)
    most = len(inside) if row.high is None else min(row.high - int(base), len(inside))
    if least > most:
        return None
    for index in [*inside[: most if up else least], *(outside if up else ())]:
        floors[index] += 1
    return tuple(floors)


def _safe(row: Row, floors: Sequence[int], rests: dict[int, int]) -> bool:
    """Whether a row holds however its weights are rounded."""
    base = up = down = 0
    for index, coef in row.coefs:
        base += coef * floors[index]
        if index in rests:
            up, down = up + max(coef, 0), down + min(coef, 0)
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
