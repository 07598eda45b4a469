"""The vertices of a feasible set, exact.

The double description method (Motzkin, Raiffa, Thompson and Thrall 1953; as told by Fukuda and Prodon 1996): a polytope is a
cone in one more dimension, its vertices are the cone's extreme rays, and half-spaces are taken in one after the other. A new one
removes the rays outside of it, and makes a ray of every two adjacent ones that it parts. All in integers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from soupmix.errors import PolicyRefusal
from soupmix.projection.constraints import Row, Side, sides_of
from soupmix.projection.region import Region
from soupmix.projection.solution import Exact, Solution, scaled
from soupmix.projection.time_budget import check_time

__all__ = ["vertices", "vertices_of"]

_MOST = 2048


@dataclass(frozen=True, slots=True)
class _Ray:
    """A ray (w, t): the point w / t, or a direction where t is 0. `tight` has a bit for every half-space that it touches."""

    ray: tuple[int, ...]
    tight: int


def vertices_of(region: Region) -> list[tuple[Exact, ...]]:
    """The vertices of every face in exact millionths, each once, sorted.

    Where the norm is bounded, a vertex of the polytope beyond the ball is replaced by the nearest whole point of its face: a ball
    is round, so that the face has infinitely many extreme points there.

    Raises:
        PolicyRefusal: there are more than 2,048 vertices of one face (reason "too-many-vertices").
    """
    found: set[tuple[Exact, ...]] = set()
    for face in region.faces:
        alone = Region(region.space, (face,), region.ball)
        for vertex in vertices(face.rows, len(region.space.names)):
            inside = face.ball is None or face.ball.holds(*scaled(vertex))
            found.add(vertex if inside else alone.project([round(value) for value in vertex]).weights)
    return sorted(found)


def vertices(rows: Sequence[Row], size: int) -> list[tuple[Exact, ...]]:
    """The vertices of a polytope whose rows bound every weight alone, from below and from above.

    Raises:
        PolicyRefusal: there are more than 2,048 on the way (reason "too-many-vertices").
    """
    sides = sides_of(rows)
    first = {side.normal[0][0]: side for side in sides if side.sign > 0 and rows[side.row].alone is not None}
    corner = tuple(first[index].bound for index in range(size))
    every = (1 << size + 1) - 1  # bit i is the lower bound of weight i, bit `size` is t >= 0
    rays = [_Ray((*corner, 1), every ^ (1 << size))]
    rays += [_Ray((*(int(index == each) for each in range(size)), 0), every ^ (1 << index)) for index in range(size)]
    # sums of many weights cut away most: what is looked at on the way stays small
    rest = sorted((side for side in sides if side not in first.values()), key=lambda side: -len(side.normal))
    for place, side in enumerate(rest, size + 1):
        rays = _cut(rays, side, 1 << place, size - 1)
    return [Solution(ray.ray[:-1], {}, ray.ray[-1]).weights for ray in rays if ray.ray[-1]]


def _cut(rays: Sequence[_Ray], side: Side, bit: int, shared: int) -> list[_Ray]:
    """What is left of a cone by one half-space more. Two rays can only be adjacent if they share so many tight ones."""
    inside: list[tuple[_Ray, int]] = []
    outside: list[tuple[_Ray, int]] = []
    kept: list[_Ray] = []
    for each in rays:
        value = sum(coef * each.ray[index] for index, coef in side.normal) - side.bound * each.ray[-1]
        if value > 0:
            inside.append((each, value))
        elif value < 0:
            outside.append((each, value))
        kept += [each] if value > 0 else [_Ray(each.ray, each.tight | bit)] if not value else []
    tights = [each.tight for each in rays]
    for one, ahead in inside:
        check_time()
        for other, behind in outside:
            common = one.tight & other.tight
            if common.bit_count() >= shared and sum(tight & common == common for tight in tights) == 2:
                kept.append(_Ray(_met(one.ray, ahead, other.ray, behind), common | bit))
    if len(kept) > _MOST:
        raise PolicyRefusal(
            f"this feasible set has more than {_MOST} vertices; ask for points of it (`sample`) or its bounds instead",
            reason="too-many-vertices",
        )
    return kept


def _met(one: Sequence[int], ahead: int, other: Sequence[int], behind: int) -> tuple[int, ...]:
    """The ray between two where the half-space ends, in lowest terms."""
    mixed = [ahead * b - behind * a for a, b in zip(one, other, strict=True)]
    divisor = gcd(*mixed)
    return tuple(value // divisor for value in mixed)
