"""Exact projection where every two groups are nested or disjoint: one multiplier search per group, in closed form.

Under a multiplier t on its sum, a single weight answers clip(v - t, low, high); the sum of a group is a piecewise
linear, non-increasing function of t, and a bound on the sum clamps t to an interval. Functions are built from the
leaves up, the multipliers are read from the roots down. For one sum this is the breakpoint search of the continuous
quadratic knapsack problem (survey of methods: Condat 2016, doi 10.1007/s10107-015-0946-6).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm

from soupmix.policy.rows import Exact, Row, Solution

__all__ = ["Forest", "forest"]


@dataclass(frozen=True, slots=True)
class _Node:
    row: int
    leaves: tuple[int, ...]
    children: tuple["_Node", ...]


@dataclass(frozen=True, slots=True)
class Forest:
    """Rows of a bounded box and of laminar sums, arranged for projection.

    Everything is computed in integers, in units of 1 / scale: a multiplier is a quotient whose divisor counts weights, and every
    level of nesting divides once more, so with scale = lcm(1..K) ** depth every division comes out even.
    """

    rows: tuple[Row, ...]
    box: tuple[int, ...] = field(repr=False)
    roots: tuple[_Node, ...] = field(repr=False)
    scale: int = field(repr=False)

    def project(self, requested: Sequence[int]) -> Solution | None:
        """The nearest point of the set to `requested` (millionths), or None if the set is empty."""
        if any(row.low is not None and row.high is not None and row.low > row.high for row in self.rows):
            return None
        scaled = [self.scale * asked for asked in requested]
        lows = [self.scale * (self.rows[row].low or 0) for row in self.box]
        highs = [self.scale * (self.rows[row].high or 0) for row in self.box]
        clamps: dict[int, tuple[int | None, int | None]] = {}
        if any(self._sum(node, scaled, lows, highs, clamps) is None for node in self.roots):
            return None
        multipliers, shift = self._multipliers(clamps, len(requested))
        weights = []
        for asked, moved, low, high, row in zip(scaled, shift, lows, highs, self.box, strict=True):
            free = asked - moved
            weight = low if free < low else high if free > high else free
            weights.append(weight)
            multipliers[row] = free - weight
        return Solution(
            tuple(self._exact(weight) for weight in weights),
            {row: self._exact(value) for row, value in multipliers.items() if value},
        )

    def _exact(self, value: int) -> Exact:
        whole, rest = divmod(value, self.scale)
        return Fraction(value, self.scale) if rest else whole

    def _multipliers(
        self, clamps: dict[int, tuple[int | None, int | None]], adapters: int
    ) -> tuple[dict[int, int], list[int]]:
        """The multiplier of every sum, and what all sums together pull at every weight, from the roots down."""
        multipliers: dict[int, int] = {}
        shift = [0] * adapters
        stack: list[tuple[_Node, int]] = [(node, 0) for node in self.roots]
        while stack:
            node, above = stack.pop()
            first, last = clamps[node.row]
            here = first if first is not None and above < first else above
            here = last if last is not None and here > last else here
            multipliers[node.row] = here - above
            for leaf in node.leaves:
                shift[leaf] = here
            stack += [(child, here) for child in node.children]
        return multipliers, shift

    def _sum(
        self,
        node: _Node,
        asked: Sequence[int],
        lows: Sequence[int],
        highs: Sequence[int],
        clamps: dict[int, tuple[int | None, int | None]],
    ) -> "_Sum | None":
        value = 0
        bends: list[tuple[int, int]] = []
        for leaf in node.leaves:
            value += highs[leaf]
            bends += ((asked[leaf] - highs[leaf], -1), (asked[leaf] - lows[leaf], 1))
        for child in node.children:
            part = self._sum(child, asked, lows, highs, clamps)
            if part is None:
                return None
            value += part.value
            bends += part.bends
        row = self.rows[node.row]
        low = None if row.low is None else self.scale * row.low
        high = None if row.high is None else self.scale * row.high
        bends.sort()
        made = _clamped(_Sum(value, bends), low, high)
        if made is None:
            return None
        clamps[node.row] = made[1:]
        return made[0]


@dataclass(frozen=True, slots=True)
class _Sum:
    """A non-increasing piecewise linear function of t: its value at minus infinity, and where its slope changes."""

    value: int
    bends: list[tuple[int, int]]


def _clamped(total: _Sum, low: int | None, high: int | None) -> tuple[_Sum, int | None, int | None] | None:
    """`total` clamped to [low, high], with the first and the last t at which it is inside (None: no limit)."""
    value, slope, at = total.value, 0, 0
    if low is not None and value < low:
        return None
    first: int | None = None
    over = high is not None and value > high
    kept: list[tuple[int, int]] = []
    for bend, change in total.bends:
        after = value + slope * (bend - at)
        if over and high is not None and after <= high:
            first = at + (high - value) // slope
            kept, over = [(first, slope)], False
        if low is not None and after < low:
            last = at + (low - value) // slope
            return _Sum(_start(total, high), [*kept, (last, -slope)]), first, last
        if not over:
            kept.append((bend, change))
        value, at, slope = after, bend, slope + change
    return None if over else (_Sum(_start(total, high), kept), first, None)


def _start(total: _Sum, high: int | None) -> int:
    return total.value if high is None else min(total.value, high)


def _depth(node: _Node) -> int:
    return 1 + max((_depth(child) for child in node.children), default=0)


def forest(rows: Sequence[Row], adapters: int) -> Forest | None:
    """Arrange rows as a forest, or None if they are not a bounded box and laminar sums."""
    box = {row.coefs[0][0]: index for index, row in enumerate(rows) if len(row.coefs) == 1 and row.coefs[0][1] == 1}
    bounded = all(
        leaf in box and rows[box[leaf]].low is not None and rows[box[leaf]].high is not None for leaf in range(adapters)
    )
    sums = [(frozenset(leaf for leaf, _ in row.coefs), index) for index, row in enumerate(rows) if len(row.coefs) != 1]
    plain = all(coef == 1 for row in rows for _, coef in row.coefs) and all(members for members, _ in sums)
    if not (bounded and plain and len(box) + len(sums) == len(rows)):
        return None
    roots: list[tuple[frozenset[int], _Node]] = []
    for members, index in sorted(sums, key=lambda each: (len(each[0]), each[1])):
        inside = [root for root in roots if root[0] & members]
        if not all(part <= members for part, _ in inside):
            return None
        covered = frozenset[int]().union(*(part for part, _ in inside))
        node = _Node(index, tuple(sorted(members - covered)), tuple(node for _, node in inside))
        roots = [root for root in roots if root not in inside] + [(members, node)]
    nodes = tuple(node for _, node in roots)
    scale = lcm(*range(1, adapters + 1)) ** max(map(_depth, nodes), default=0)
    return Forest(tuple(rows), tuple(box[leaf] for leaf in range(adapters)), nodes, scale)
