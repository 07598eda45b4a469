"""Exact minimisation of a convex quadratic over any polytope: floats find the active set, integers solve for it.

The dual active-set method of Goldfarb and Idnani (1983) runs in float64; the system of its active set is then solved over the
integers and checked. Only if that does not pass the check is the whole method run in rationals, where it cannot go wrong.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction

from soupmix.projection.constraints import Row, Side, sides_of
from soupmix.projection.quadratic import Quadratic, solve
from soupmix.projection.solution import Exact, Solution
from soupmix.projection.time_budget import check_time

__all__ = ["least", "minimise", "project"]

_Sparse = tuple[tuple[int, int], ...]
_FINE = 1 << 20


def project(requested: Sequence[int], rows: Sequence[Row]) -> Solution | None:
    """The nearest point of the set to `requested` (millionths, Euclidean), or None if the set is empty."""
    return minimise(Quadratic.distance(requested, None), rows)


def minimise(target: Quadratic, rows: Sequence[Row]) -> Solution | None:
    """The point of the set where `target` is least, with multipliers, or None if the set is empty."""
    sides = sides_of(rows)
    if any(not side.normal and side.bound > 0 for side in sides):
        return None
    sides = [side for side in sides if side.normal]
    from soupmix.projection.dual import active_in_floats  # numpy, which a closed form does without

    guess = active_in_floats(target, sides)
    found = None if guess is None else _solved(target, sides, guess[0])
    return found or _in_rationals(target, sides)


def least(target: Quadratic, rows: Sequence[Row]) -> Fraction:
    """A lower bound on the squared Euclidean distance of a request v from the set, by weak duality.

    For any multipliers l >= 0 of the sides N w >= b, 2 l' (b - N v) - |N' l|^2 <= |w - v|^2 for every w of the set. Whatever else
    bounds the set can only make it farther.
    """
    sides = [side for side in sides_of(rows) if side.normal]
    from soupmix.projection.dual import active_in_floats

    guess = active_in_floats(target, sides)
    if guess is None:
        return Fraction(0)
    pull, missing = [0] * len(target.pull), 0
    for index, multiplier in zip(*guess, strict=True):
        share = round(multiplier * _FINE)
        missing += share * int(sides[index].shortfall(target.pull))
        for coordinate, coef in sides[index].normal:
            pull[coordinate] += share * coef
    return Fraction(2 * _FINE * missing - sum(value * value for value in pull), _FINE**2)


def _solved(target: Quadratic, sides: Sequence[Side], active: Sequence[int]) -> Solution | None:
    """The exact minimum where these sides are met with equality; None unless it is the minimum over all."""
    size = len(target.pull)
    if target.matrix is None:
        chosen = [sides[side] for side in active]
        gram = [[_product(a.normal, b.normal) for b in chosen] for a in chosen]
        multipliers = solve(gram, [int(side.shortfall(target.pull)) for side in chosen])
        if multipliers is None:
            return None
        weights: list[Exact] = list(target.pull)
        for side, multiplier in zip(chosen, multipliers, strict=True):
            for coordinate, coef in side.normal:
                weights[coordinate] += multiplier * coef
    else:
        both = _stationary(target, sides, active)
        if both is None:
            return None
        weights, multipliers = list(both[:size]), [-value for value in both[size:]]
    if min(multipliers, default=0) < 0 or any(side.shortfall(weights) > 0 for side in sides):
        return None
    return _solution(weights, sides, dict(zip(active, multipliers, strict=True)))


def _stationary(target: Quadratic, sides: Sequence[Side], active: Sequence[int]) -> list[Fraction] | None:
    """Weights, then negated multipliers, of M w - N' l = pull with N w = bounds."""
    matrix, size = [list(row) for row in target.matrix or ()], len(target.pull)
    for row in matrix:
        row.extend([0] * len(active))
    for place, side in enumerate(active):
        below = [0] * (size + len(active))
        for coordinate, coef in sides[side].normal:
            below[coordinate] = matrix[coordinate][size + place] = coef
        matrix.append(below)
    return solve(matrix, [*target.pull, *(sides[side].bound for side in active)])


def _solution(weights: Sequence[Exact], sides: Sequence[Side], multipliers: Mapping[int, Exact]) -> Solution:
    by_row: dict[int, Exact] = {}
    for side, value in multipliers.items():
        by_row[sides[side].row] = by_row.get(sides[side].row, 0) - sides[side].sign * value
    return Solution.of(weights, {row: value for row, value in by_row.items() if value})


def _in_rationals(target: Quadratic, sides: Sequence[Side]) -> Solution | None:
    """Start at the free minimum, add one violated side after the other, drop those whose multiplier would turn negative.

    In exact arithmetic the dual objective rises with every addition, so it ends.
    """
    weights, active = target.free(), dict[int, Exact]()
    lifted = [target.lift(side.normal) for side in sides]
    while True:
        check_time()
        missing = [(side.shortfall(weights), -index) for index, side in enumerate(sides) if index not in active]
        worst, index = max(missing, default=(0, 0))
        if worst <= 0:
            return _solution(weights, sides, active)
        if not _add(-index, weights, sides, lifted, active):
            return None


def _add(
    new: int,
    weights: list[Exact],
    sides: Sequence[Side],
    lifted: Sequence[Sequence[Exact]],
    active: dict[int, Exact],
) -> bool:
    """Move `weights` and the multipliers until side `new` is met with equality; False if no point can meet it."""
    multiplier: Exact = 0
    while True:
        check_time()
        names = list(active)
        pull = _independent(
            [[_dot(sides[i].normal, lifted[j]) for j in names] for i in names],
            [_dot(sides[i].normal, lifted[new]) for i in names],
        )
        step = list(lifted[new])
        for factor, i in zip(pull, names, strict=True):
            step = [change - factor * part for change, part in zip(step, lifted[i], strict=True)]
        gain = _dot(sides[new].normal, step)
        full = Fraction(sides[new].shortfall(weights)) / gain if gain else None
        blocked = min(
            ((active[i] / factor, i) for factor, i in zip(pull, names, strict=True) if factor > 0), default=None
        )
        length = blocked[0] if blocked and (full is None or blocked[0] < full) else full
        if length is None:
            return False
        for i, factor in zip(names, pull, strict=True):
            active[i] -= length * factor
        multiplier += length
        if gain:
            weights[:] = [weight + length * change for weight, change in zip(weights, step, strict=True)]
        if blocked is None or length == full:
            active[new] = multiplier
            return True
        del active[blocked[1]]


def _dot(sparse: _Sparse, dense: Sequence[Exact]) -> Exact:
    return sum((coef * dense[index] for index, coef in sparse), start=0)


def _product(left: _Sparse, right: _Sparse) -> int:
    other = dict(right)
    return sum(coef * other.get(index, 0) for index, coef in left)


def _independent(matrix: list[list[Exact]], right: list[Exact]) -> list[Fraction]:
    """Gauss-Jordan for the products of independent normals, which are positive definite: pivots are never zero."""
    table = [[*map(Fraction, row), Fraction(value)] for row, value in zip(matrix, right, strict=True)]
    for column, pivot in enumerate(table):
        pivot[:] = [value / pivot[column] for value in pivot]
        for row in table:
            if row is not pivot and row[column]:
                row[:] = [value - row[column] * base for value, base in zip(row, pivot, strict=True)]
    return [row[-1] for row in table]
