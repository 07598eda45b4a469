"""Random points of a feasible set: hit-and-run (Smith 1984, doi 10.1287/opre.32.6.1296).

From where a walk stands it draws a line in a random direction, and goes to a random point of the line inside the set; in the long
run it is everywhere with the same chance. Directions are differences of points of the set, so that the walk does not leave the
plane of sets that are flat. The walk is in floats; every point is made whole and exact by a projection at the end.
"""

from collections.abc import Iterator, Sequence
from math import inf, sqrt
from operator import mul, sub
from random import Random

from soupmix.projection.faces import Face
from soupmix.projection.region import Region
from soupmix.projection.time_budget import check_time
from soupmix.weights import MILLION

__all__ = ["sample"]

_STEPS = 10  # between two points, times the number of coordinates; ten times as many before the first
_FLAT = 1e-7  # a row that changes by so little along a direction, relative to it, is parallel to it


def sample(region: Region, count: int, seed: int) -> list[tuple[int, ...]]:
    """So many points in whole millionths. The same region and seed give the same points, and fewer of them are the first ones.

    Every face is drawn with the same chance, whatever its size; within a face the points are approximately uniform.
    """
    draw = Random(seed)
    walks = [_walk(face, len(region.space.names), Random(f"{seed} {place}")) for place, face in enumerate(region.faces)]
    points = (next(walks[int(draw.random() * len(walks))]) for _ in range(count))
    return [region.project([round(weight) for weight in point]).weights for point in points]


def _walk(face: Face, size: int, draw: Random) -> Iterator[list[float]]:
    pool = _pool(face, size, draw)
    here = [sum(weights) / len(pool) for weights in zip(*pool, strict=True)]
    steps = 10 * _STEPS * size
    while True:
        for _ in range(steps):
            check_time()
            one, other = (pool[int(draw.random() * len(pool))] for _ in range(2))
            direction = list(map(sub, one, other))
            low, high = _chord(face, here, direction)
            if low < high:
                step = low + (high - low) * draw.random()
                here = [weight + step * change for weight, change in zip(here, direction, strict=True)]
        steps = _STEPS * size
        yield here


def _pool(face: Face, size: int, draw: Random) -> list[list[float]]:
    """Points of a face: what is nearest to points in and around the box of [0, 1]."""
    asked = ([round((3 * draw.random() - 1) * MILLION) for _ in range(size)] for _ in range(4 * size + 4))
    found = (face.project(each, None) for each in asked)
    return [[weight / each.scale for weight in each.scaled] for each in found if each is not None]


def _chord(face: Face, here: Sequence[float], direction: Sequence[float]) -> tuple[float, float]:
    """The multiples of a direction that do not leave the face; an empty interval if there is no line to go along."""
    length = max(map(abs, direction), default=0.0)
    low, high = -inf, inf
    for row in face.rows:
        change = sum(coef * direction[index] for index, coef in row.coefs)
        if abs(change) <= _FLAT * length:
            continue
        value = sum(coef * here[index] for index, coef in row.coefs)
        for bound, upper in ((row.high, change > 0), (row.low, change < 0)):
            if bound is not None:
                reach = (bound - value) / change
                low, high = (low, min(high, reach)) if upper else (max(low, reach), high)
    if face.ball is not None and length:
        first, last = _within(face.ball.gram, face.ball.limit, here, direction)
        low, high = max(low, first), min(high, last)
    return (low, high) if -inf < low and high < inf else (0.0, 0.0)


def _within(
    gram: Sequence[Sequence[int]], limit: int, here: Sequence[float], direction: Sequence[float]
) -> tuple[float, float]:
    """The multiples s with (here + s direction)' gram (here + s direction) <= limit: the roots of a quadratic."""
    pulled = [sum(map(mul, line, direction)) for line in gram]
    a, b = sum(map(mul, direction, pulled)), sum(map(mul, here, pulled))
    c = sum(weight * sum(map(mul, line, here)) for weight, line in zip(here, gram, strict=True)) - limit
    if a <= 0:  # nothing changes along this direction
        return -inf, inf
    root = sqrt(max(b * b - a * c, 0.0))
    return (-b - root) / a, (-b + root) / a
