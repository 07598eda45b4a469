"""Exact projection where every two groups are nested or disjoint: one multiplier search per group, in closed form.

Under a multiplier t on its sum, a single weight answers clip(v - t, low, high); the sum of a group is a piecewise
linear, non-increasing function of t, and a bound on the sum clamps t to an interval. Functions are built from the
leaves up, the multipliers are read from the roots down. For one sum this is the breakpoint search of the continuous
quadratic knapsack problem (survey of methods: Condat 2016, doi 10.1007/s10107-015-0946-6).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from math import lcm
from operator import mul, sub

from soupmix.projection.constraints import Row
from soupmix.projection.solution import Solution

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

    Attributes:
        rows: as given. box: for every coordinate, the index of the row on it alone. roots: the sums that lie in no other sum.
        lows, highs: the bounds of the box. empty: whether some row has its low above its high.
    """

    rows: tuple[Row, ...]
    box: tuple[int, ...] = field(repr=False)
    roots: tuple[_Node, ...] = field(repr=False)
    scale: int = field(repr=False)
    lows: tuple[int, ...] = field(repr=False)
    highs: tuple[int, ...] = field(repr=False)
    empty: bool = field(repr=False)

    def project(self, requested: Sequence[int]) -> Solution | None:
        """The nearest point of the set to `requested` (millionths), or None if the set is empty."""
        if self.empty:
            return None
        asked = list(map(mul, requested, repeat(self.scale)))
        weights, pulling, shift = self._clipped(asked), dict[int, int](), [0] * len(asked)
        for root in self.roots:
            if root.children:
                if not self._nested(root, asked, pulling, shift):
                    return None
            elif (moved := self._plain(root, asked, weights)) is None:
                return None
            elif moved:
                pulling[root.row] = moved
                for leaf in root.leaves:
                    shift[leaf] = moved
        if pulling:
            asked = list(map(sub, asked, shift))
            weights = self._clipped(asked)
        for row, free, weight in zip(self.box, asked, weights, strict=True):
            if free != weight:
                pulling[row] = free - weight
        return Solution(tuple(weights), pulling, self.scale)

    def _clipped(self, free: Sequence[int]) -> list[int]:
        bounded = zip(free, self.lows, self.highs, strict=True)
        return [low if value < low else high if value > high else value for value, low, high in bounded]

    def _plain(self, node: _Node, asked: Sequence[int], clipped: Sequence[int]) -> int | None:
        """The multiplier of a sum of weights alone, 0 if it needs none; None if none brings it into its interval."""
        row, lows, highs = self.rows[node.row], self.lows, self.highs
        total = row.value(clipped)
        if row.high is not None and total > self.scale * row.high:
            spans = [(asked[leaf] - highs[leaf], asked[leaf] - lows[leaf]) for leaf in node.leaves]
            return _until(total - self.scale * row.high, spans)
        if row.low is not None and total < self.scale * row.low:
            spans = [(lows[leaf] - asked[leaf], highs[leaf] - asked[leaf]) for leaf in node.leaves]
            moved = _until(self.scale * row.low - total, spans)
            return None if moved is None else -moved
        return 0

    def _nested(self, root: _Node, asked: Sequence[int], pulling: dict[int, int], shift: list[int]) -> bool:
        """Put down the multipliers of a sum and of all sums inside it; False if they cannot all be in their intervals."""
        clamps: dict[int, tuple[int | None, int | None]] = {}
        if self._sum(root, asked, clamps) is None:
            return False
        stack = [(root, 0)]
        while stack:
            node, above = stack.pop()
            first, last = clamps[node.row]
            here = first if first is not None and above < first else above
            here = last if last is not None and here > last else here
            if here != above:
                pulling[node.row] = here - above
            for leaf in node.leaves:
                shift[leaf] = here
            stack += [(child, here) for child in node.children]
        return True

    def _sum(
        self, node: _Node, asked: Sequence[int], clamps: dict[int, tuple[int | None, int | None]]
    ) -> "_Sum | None":
        value = 0
        bends: list[tuple[int, int]] = []
        for leaf in node.leaves:
            value += self.highs[leaf]
            bends += ((asked[leaf] - self.highs[leaf], -1), (asked[leaf] - self.lows[leaf], 1))
        for child in node.children:
            part = self._sum(child, asked, clamps)
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


def _until(distance: int, spans: Iterable[tuple[int, int]]) -> int | None:
    """The first t > 0 by which weights, each of which moves while t is in its span, have come so far in sum."""
    gone = moving = at = 0
    bends: list[tuple[int, int]] = []
    for start, stop in spans:
        if stop > 0:
            bends.append((stop, -1))
            if start > 0:
                bends.append((start, 1))
            else:
                moving += 1
    bends.sort()
    for bend, change in bends:
        after = gone + moving * (bend - at)
        if after >= distance:
            return at + (distance - gone) // moving
        gone, at, moving = after, bend, moving + change
    return None


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


def forest(rows: Sequence[Row], size: int) -> Forest | None:
    """Rows over `size` coordinates as a forest, or None if they are not a bounded box and laminar sums."""
    box = {row.coefs[0][0]: index for index, row in enumerate(rows) if len(row.coefs) == 1 and row.coefs[0][1] == 1}
    bounded = all(
        leaf in box and rows[box[leaf]].low is not None and rows[box[leaf]].high is not None for leaf in range(size)
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
    scale = lcm(*range(1, size + 1)) ** max(map(_depth, nodes), default=0)
    bounds = [rows[box[leaf]] for leaf in range(size)]
    return Forest(
        tuple(rows),
        tuple(box[leaf] for leaf in range(size)),
        nodes,
        scale,
        tuple(scale * (row.low or 0) for row in bounds),
        tuple(scale * (row.high or 0) for row in bounds),
        any(row.low is not None and row.high is not None and row.low > row.high for row in rows),
    )
