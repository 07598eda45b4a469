"""How far a feasible set reaches along one coordinate, in whole millionths that a whole point attains."""

from soupmix.errors import PolicyRefusal
from soupmix.projection.constraints import Row
from soupmix.projection.faces import Face
from soupmix.projection.laminar import forest
from soupmix.projection.region import Region
from soupmix.projection.time_budget import check_time

__all__ = ["extent"]

_FAR = 10**9
_STEPS = 12


def extent(region: Region, index: int) -> tuple[int, int]:
    """The least and the most that a weight can be, the other weights being whatever that takes.

    Both are attained by a whole point of the set. They are the exact ends where groups nest or are disjoint; where they overlap,
    or a norm is bounded, an end may be up to 12 millionths off, as far as whole points beside the boundary are looked for.

    Raises:
        PolicyRefusal: no whole point was found near an end (reason "no-integer-point").
    """
    size = len(region.space.names)
    ends = [[_Along(face, size, index, sign).end() for face in region.faces] for sign in (-1, 1)]
    least, most = ([each for each in found if each is not None] for found in ends)
    if not least or not most:
        raise PolicyRefusal(
            f"the rules leave no whole millionths of {region.space.names[index]} at an end of its range; {region.advice}",
            reason="no-integer-point",
        )
    return min(least), max(most)


class _Along:
    """A face, walked along one coordinate up (sign 1) or down (-1); positions are sign * weight."""

    def __init__(self, face: Face, size: int, index: int, sign: int) -> None:
        self._face, self._size, self._index, self._sign = face, size, index, sign

    def end(self) -> int | None:
        """The farthest weight of a whole point of the face, None if none was found near the end."""
        last = self._last()
        for position in range(last, last - _STEPS, -1):
            if self._whole(self._sign * position):
                return self._sign * position
        return None

    def _last(self) -> int:
        """The last whole position at which the face has a point, be it whole or not."""
        (row,) = (each for each in self._face.rows if each.alone == self._index)
        edge = row.high if self._sign > 0 else row.low
        beyond = self._sign * (edge or 0) + 1
        if self._has(beyond - 1):
            return beyond - 1
        there = self._near()
        probe = there + 1
        while beyond - there > 1:
            check_time()
            there, beyond = (probe, beyond) if self._has(probe) else (there, probe)
            probe = (there + beyond) // 2
        return there

    def _near(self) -> int:
        """A whole position not beyond the end, as a rule the last: of the point that is nearest to one far out."""
        far = [0] * self._size
        far[self._index] = self._sign * _FAR
        found = self._face.project(far, None)
        if found is None:  # pragma: no cover  # a region has no empty face
            raise ArithmeticError("a face that is not empty has no nearest point")
        return self._sign * found.scaled[self._index] // found.scale

    def _has(self, position: int) -> bool:
        return self._cut(self._sign * position).project([0] * self._size, None) is not None

    def _whole(self, weight: int) -> bool:
        cut = self._cut(weight)
        origin = [0] * self._size
        found = cut.project(origin, None)
        return found is not None and cut.whole(origin, found, None) is not None

    def _cut(self, weight: int) -> Face:
        """The part of the face where the weight is this."""
        rows = tuple(_held(row, weight) if row.alone == self._index else row for row in self._face.rows)
        return Face(rows, self._face.ball, forest(rows, self._size))


def _held(row: Row, weight: int) -> Row:
    return Row(row.coefs, weight, weight)
