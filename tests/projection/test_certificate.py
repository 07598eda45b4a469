"""The conditions of a projection one by one, each just held and just broken; and floats that find what is then proved."""

import random
from collections.abc import Sequence
from fractions import Fraction

import pytest

from soupmix.projection import active_set
from soupmix.projection.certificate import certified
from soupmix.projection.constraints import sides_of
from soupmix.projection.dual import active_in_floats
from soupmix.projection.norm import Ellipsoid
from soupmix.projection.quadratic import Quadratic
from soupmix.projection.solution import Exact, Solution
from tests.support.brute_force import Half, rows_of

UP, DOWN, BOTH = ((1,), 10), ((-1,), 0), [((1,), 10), ((-1,), 0)]


@pytest.mark.parametrize(
    ("halves", "asked", "weight", "multiplier", "right"),
    [
        (BOTH, 11, 10, 1, True),
        (BOTH, 12, 11, 1, False),  # outside above
        (BOTH, 10, 9, 1, False),  # pulled by a bound that is not met
        (BOTH, -1, 0, -1, True),
        (BOTH, -2, -1, -1, False),  # outside below
        (BOTH, 0, 1, -1, False),
        (BOTH, 11, 10, 0, False),  # something of the gradient is left
        (BOTH, 9, 10, -1, False),  # pushed up against the upper bound
        (BOTH, 1, 0, 1, False),
        ([UP], 11, 10, 1, True),
        ([UP], 9, 10, -1, False),  # there is no lower bound
        ([DOWN], -1, 0, -1, True),
        ([DOWN], 1, 0, 1, False),  # there is no upper bound
        ([UP], -50, -50, 0, True),
        ([DOWN], 50, 50, 0, True),
        (BOTH, Fraction(21, 2), 10, Fraction(1, 2), True),
        (BOTH, Fraction(21, 2), Fraction(19, 2), 1, False),
        ([((2,), 5)], 3, Fraction(5, 2), Fraction(1, 4), True),
        ([((2,), 5)], 3, Fraction(5, 2), Fraction(1, 2), False),
    ],
)
def test_one_weight(halves: list[Half], asked: int, weight: Exact, multiplier: Exact, right: bool) -> None:
    multipliers = {0: multiplier} if multiplier else {}
    assert certified([asked], rows_of(halves), Solution((weight,), multipliers)) == right


@pytest.mark.parametrize(
    ("asked", "weight", "share", "limit", "right"),
    [
        (6, 3, 1, 9, True),
        (6, 3, 1, 8, False),  # outside the ball
        (6, 3, 1, 10, True),  # a squared millionth away, at most
        (6, 3, 1, 11, False),
        (3, 3, 0, 100, True),
        (6, 3, Fraction(1, 2), 9, False),  # something of the gradient is left
        (0, 3, -1, 9, False),
    ],
)
def test_one_weight_in_a_ball(asked: int, weight: int, share: Exact, limit: int, right: bool) -> None:
    rows = rows_of([((1,), 10), ((-1,), 0)])
    ball = Ellipsoid(((1,),), limit)
    assert certified([asked], rows, Solution.of((weight,), {}, Fraction(share)), None, ball) == right
    # in a metric that counts seven for one, all of it sevenfold: then the gap of one is a seventh of what is allowed
    wide = Ellipsoid(((7,),), 7 * limit)
    assert certified([asked], rows, Solution.of((weight,), {}, Fraction(share)), ((7,),), wide) == right


def test_a_share_needs_a_ball() -> None:
    rows = rows_of([((1,), 10), ((-1,), 0)])
    assert certified([3], rows, Solution((3,), {}))
    assert not certified([3], rows, Solution.of((3,), {}, Fraction(1)))


def problem(draw: random.Random, size: int) -> tuple[list[int], list[Half]]:
    """A request, the box, and groups that nest, cross or are demanded."""
    halves: list[Half] = []
    for index in range(size):
        up = tuple(int(k == index) for k in range(size))
        halves += [(up, draw.randrange(200_000, 1_000_001)), (tuple(-c for c in up), -draw.randrange(0, 100_000))]
    for _ in range(draw.randrange(0, 5)):
        up = tuple(int(draw.random() < 0.5) for _ in range(size))
        halves.append((up, draw.randrange(600_000, 1_500_001)))
        if draw.random() < 0.3:
            halves.append((tuple(-c for c in up), -draw.randrange(0, 600_001)))
    return [draw.randrange(-300_000, 1_300_001) for _ in range(size)], halves


def metric_of(draw: random.Random, size: int) -> tuple[tuple[int, ...], ...]:
    factors = [[draw.randrange(-9, 10) for _ in range(size)] for _ in range(size)]
    dot = lambda a, b: sum(x * y for x, y in zip(a, b, strict=True))  # noqa: E731
    return tuple(tuple(dot(factors[i], factors[j]) + (i == j) for j in range(size)) for i in range(size))


def found_by_floats(target: Quadratic, sides: Sequence[active_set.Side]) -> Solution | None:
    guess = active_in_floats(target, sides)
    return None if guess is None else active_set._solved(target, sides, guess[0])


@pytest.mark.parametrize("in_a_metric", [False, True])
def test_floats_find_the_active_sides(in_a_metric: bool) -> None:
    """Rationals are for the rare case; here they only say whether there is anything to find."""
    draw, possible = random.Random(5), 0
    for _ in range(150):
        size = draw.randrange(1, 7)
        asked, halves = problem(draw, size)
        target = Quadratic.distance(asked, metric_of(draw, size) if in_a_metric else None)
        sides = [side for side in sides_of(rows_of(halves)) if side.normal]
        exact, found = active_set._in_rationals(target, sides), found_by_floats(target, sides)
        assert (found is None) == (exact is None)
        if found is not None and exact is not None:
            possible += 1
            assert found.weights == exact.weights
    assert 100 < possible < 150
