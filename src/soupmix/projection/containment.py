"""Does one feasible set lie inside another? Decided exactly over whole millionths, with a point outside as witness.

A point is outside a union of polytopes if, for every polytope, it breaks one of its bounds by at least a millionth. So the
first set is cut by one broken bound per polytope, depth first; a branch ends as soon as nothing is left of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from soupmix.projection.active_set import project
from soupmix.projection.constraints import Row
from soupmix.projection.faces import Face
from soupmix.projection.norm import Ellipsoid
from soupmix.projection.region import Region
from soupmix.projection.rounding import round_inside

__all__ = ["Undecided", "witness"]

_MOST_BRANCHES = 20_000
_ASCENTS = 8


class Undecided(Exception):
    """Neither containment nor a witness was found."""


def witness(inner: Region, outer: Region) -> tuple[int, ...] | None:
    """A point (millionths) of `inner` that is not in `outer`; None if there is none.

    Raises:
        Undecided: a bound on a norm, an overlap without whole points, or too many faces kept it open.
    """
    search = _Search(inner, outer)
    for face in inner.faces:
        found = search.outside(face, face.rows, 0)
        if found is not None:
            return found
    if search.doubts:
        raise Undecided("; ".join(sorted(search.doubts)))
    return None


@dataclass
class _Search:
    inner: Region
    outer: Region

    def __post_init__(self) -> None:
        self.doubts: set[str] = set()
        self._branches = 0

    def outside(self, face: Face, rows: tuple[Row, ...], place: int) -> tuple[int, ...] | None:
        """A point of `rows` that is in none of the outer faces from `place` on."""
        size = len(self.inner.space.names)
        self._branches += 1
        if self._branches > _MOST_BRANCHES:
            self.doubts.add("there are too many combinations to decide")
            return None
        if project([0] * size, rows) is None:
            return None
        if place == len(self.outer.faces):
            return self._whole(face, rows)
        other = self.outer.faces[place]
        for row in other.rows:
            for broken in _broken(row):
                found = self.outside(face, (*rows, broken), place + 1)
                if found is not None:
                    return found
        return self._beyond_ball(face, rows, other, place)

    def _whole(self, face: Face, rows: tuple[Row, ...]) -> tuple[int, ...] | None:
        """A whole point of `rows` inside the face's ball."""
        solution = Face(rows, face.ball, None).project([0] * len(self.inner.space.names), None)
        if solution is None:
            return None
        found = round_inside(solution, rows)
        if found is None or not face.holds(found) or self.outer.holds(found):
            self.doubts.add("where groups overlap without nesting, or a norm is bounded, no whole point was found")
            return None
        return found

    def _beyond_ball(self, face: Face, rows: tuple[Row, ...], other: Face, place: int) -> tuple[int, ...] | None:
        """A point beyond the outer ball, found by walking to where the norm grows; or a proof that there is none."""
        ball = other.ball
        if ball is None or (face.ball is not None and face.ball.limit <= ball.limit):
            return None
        most = [_largest(rows, index) for index in range(len(self.inner.space.names))]
        if all(value is not None for value in most) and _bound(ball, most) <= ball.limit:
            return None
        for start in range(_ASCENTS + 1):
            found = self._climb(face, rows, ball, start)
            if found is not None and not self.outer.holds(found):
                return found
        self.doubts.add(
            "no point was found beyond the outer bound on the norm, which does not prove that there is none"
        )
        return None

    def _climb(self, face: Face, rows: tuple[Row, ...], ball: Ellipsoid, start: int) -> tuple[int, ...] | None:
        size = len(self.inner.space.names)
        # all coordinates at once, then each alone (of many, several at a time)
        direction = [1] * size if not start else [int(index % _ASCENTS == start - 1) for index in range(size)]
        for _ in range(2 * size):
            far = [10**9 * value for value in direction]
            solution = Face(rows, face.ball, None).project(far, None)
            found = None if solution is None else round_inside(solution, rows)
            if found is None or not face.holds(found):
                return None
            if not ball.holds(found):
                return found
            pull = [sum(a * b for a, b in zip(line, found, strict=True)) for line in ball.gram]
            top = max(map(abs, pull))
            if not top:
                return None
            direction = [round(1000 * value / top) for value in pull]
        return None


def _broken(row: Row) -> tuple[Row, ...]:
    """The row's bounds, each broken by a millionth."""
    above = () if row.high is None else (Row(row.coefs, row.high + 1, None),)
    below = () if row.low is None else (Row(row.coefs, None, row.low - 1),)
    return above + below


def _largest(rows: Sequence[Row], index: int) -> int | None:
    """The most that a weight can be in magnitude, by the rows on it alone."""
    own = [row for row in rows if row.coefs == ((index, 1),)]
    highs, lows = [row.high for row in own if row.high is not None], [row.low for row in own if row.low is not None]
    return max(abs(min(highs)), abs(max(lows))) if highs and lows else None


def _bound(ball: Ellipsoid, most: Sequence[int | None]) -> int:
    return sum(
        abs(value) * (most[i] or 0) * (most[j] or 0) for i, line in enumerate(ball.gram) for j, value in enumerate(line)
    )
