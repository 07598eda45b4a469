"""The nearest of many faces, by branch and bound: what is proved to be farther than the best so far is not projected onto.

The proof is a lower bound on the squared distance, in exact integers: the distance to the face's box, or what weak duality gives
for any multipliers, here those that floats find. So leaving faces out changes no answer, not even where faces tie.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import repeat
from operator import mul, sub

from soupmix.errors import PolicyRefusal
from soupmix.projection.active_set import least
from soupmix.projection.certificate import certified
from soupmix.projection.constraints import Row
from soupmix.projection.faces import Face
from soupmix.projection.quadratic import Matrix, Quadratic, form
from soupmix.projection.solution import Solution
from soupmix.projection.time_budget import check_time

__all__ = ["away", "nearest"]


def nearest(faces: Sequence[Face], requested: Sequence[int], metric: Matrix | None) -> tuple[Solution, Face]:
    """The nearest point and its face. Ties go to the point that changes fewer weights, then to the face that comes first.

    Raises:
        PolicyRefusal: a projection could not be certified (reason "uncertified").
    """
    if len(faces) == 1:
        return _certified(faces[0], requested, metric), faces[0]
    shrinks = _shrinks(metric)
    floors = [shrinks * _outside(face.rows, requested) for face in faces]
    best: tuple[tuple[Fraction, int, int], Solution] | None = None
    for index in sorted(range(len(faces)), key=floors.__getitem__):
        check_time()
        if best is not None and floors[index] > best[0][0]:
            break
        if best is not None and _beyond(faces[index], requested, metric, best[0][0]):
            continue
        solution = _certified(faces[index], requested, metric)
        found = (*_ahead(requested, solution, metric), index), solution
        if best is None or found[0] < best[0]:
            best = found
    if best is None:  # pragma: no cover  # a region without faces is refused when it is compiled
        raise ArithmeticError("there is no face")
    return best[1], faces[best[0][2]]


def _certified(face: Face, requested: Sequence[int], metric: Matrix | None) -> Solution:
    solution = face.project(requested, metric)
    if solution is None or not certified(requested, face.rows, solution, metric, face.ball):
        raise PolicyRefusal(
            "the clamped weights could not be certified, so nothing is granted; this is a defect of soupmix, "
            "please report it with the policy and the request",
            reason="uncertified",
        )
    return solution


def _outside(rows: Sequence[Row], requested: Sequence[int]) -> int:
    """The squared distance to what the rows of single weights allow."""
    total = 0
    for row in rows:
        if row.alone is not None:
            value = requested[row.alone]
            if row.low is not None and value < row.low:
                total += (row.low - value) ** 2
            elif row.high is not None and value > row.high:
                total += (value - row.high) ** 2
    return total


def _shrinks(metric: Matrix | None) -> int:
    """No squared Euclidean distance counts less than so many times itself in a metric (Gershgorin); 0 proves nothing."""
    if metric is None:
        return 1
    return max(0, min((2 * row[index] - sum(map(abs, row)) for index, row in enumerate(metric)), default=0))


def _beyond(face: Face, requested: Sequence[int], metric: Matrix | None, distance: Fraction) -> bool:
    """Whether a face is certainly farther than a squared distance. A closed form is as fast as any bound."""
    return (
        (face.forest is None or face.ball is not None)
        and metric is None
        and least(Quadratic.distance(requested, None), face.rows) > distance
    )


def away(requested: Sequence[int], solution: Solution) -> list[int]:
    """What was requested without the solution, in the solution's units."""
    return list(map(sub, map(mul, requested, repeat(solution.scale)), solution.scaled))


def _ahead(requested: Sequence[int], solution: Solution, metric: Matrix | None) -> tuple[Fraction, int]:
    """What makes a face's solution win: its squared distance from what was requested, then how many weights differ."""
    moved = away(requested, solution)
    return Fraction(form(metric, moved), solution.scale**2), len(moved) - moved.count(0)
