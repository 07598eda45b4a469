"""Corners of the exact arithmetic: wrong guesses, floats that fail, every tie."""

import itertools
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from soupmix.errors import PolicyError
from soupmix.projection import active_set, dual, region
from soupmix.projection.certificate import certified
from soupmix.projection.constraints import Ball, Choice, Constraint, sides_of
from soupmix.projection.containment import witness
from soupmix.projection.dual import active_in_floats
from soupmix.projection.faces import Face
from soupmix.projection.nearest import nearest
from soupmix.projection.norm import Ellipsoid
from soupmix.projection.quadratic import Quadratic, form, inverse_of, solve
from soupmix.projection.region import Region, Space
from soupmix.projection.rounding import round_inside
from soupmix.projection.solution import Exact, Solution
from tests.support.brute_force import CROSSING, LAMINAR, Half, nearest_neighbour, problems, projection, rows_of, rule

small = st.integers(-4, 4)


def square(size: int) -> st.SearchStrategy[list[list[int]]]:
    return st.lists(st.lists(small, min_size=size, max_size=size), min_size=size, max_size=size)


def determinant(matrix: list[list[int]]) -> int:
    """By Leibniz, over all permutations."""
    total = 0
    for order in itertools.permutations(range(len(matrix))):
        swaps = sum(order[i] > order[j] for i, j in itertools.combinations(range(len(matrix)), 2))
        product = (-1) ** swaps
        for row, column in enumerate(order):
            product *= matrix[row][column]
        total += product
    return total


@given(st.integers(0, 4).flatmap(lambda n: st.tuples(square(n), st.lists(small, min_size=n, max_size=n))))
def test_a_system_is_solved_exactly_or_called_singular(system: tuple[list[list[int]], list[int]]) -> None:
    matrix, right = system
    found, turned = solve(matrix, right), inverse_of(matrix)
    assert (found is None) == (turned is None) == (determinant(matrix) == 0)
    if found is not None and turned is not None:
        assert [sum(a * x for a, x in zip(row, found, strict=True)) for row in matrix] == right
        product = [
            [sum(a * b for a, b in zip(row, column, strict=True)) for column in zip(*turned, strict=True)]
            for row in matrix
        ]
        assert product == [[int(i == j) for j in range(len(matrix))] for i in range(len(matrix))]


@settings(max_examples=150, deadline=None)
@given(problems(CROSSING, (2, 3)), st.data(), st.booleans())
def test_a_guess_of_the_active_sides_is_taken_only_if_it_is_right(
    problem: tuple[list[int], list[Half]], data: st.DataObject, in_a_metric: bool
) -> None:
    asked, halves = problem
    rows = rows_of(halves)
    metric = (
        tuple(tuple(3 if i == j else 1 for j in range(len(asked))) for i in range(len(asked))) if in_a_metric else None
    )
    target = Quadratic.distance(asked, metric)
    sides = sides_of(rows)
    guess = data.draw(st.lists(st.integers(0, len(sides) - 1), unique=True, max_size=len(asked) + 1))
    found = active_set._solved(target, sides, guess)
    right = active_set.minimise(target, rows)
    assert found is None or (right is not None and found.weights == right.weights)
    assert found is None or certified(asked, rows, found, metric)
    if right is not None and not right.multipliers:
        assert active_set._solved(target, sides, []) is not None, "nothing is active where the request is inside"


@settings(max_examples=60, deadline=None)
@given(problems(CROSSING, (2, 3)))
def test_floats_that_go_in_circles_cost_only_time(problem: tuple[list[int], list[Half]]) -> None:
    asked, halves = problem
    rows = rows_of(halves)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            dual, "_step", lambda new, weights, normals, bounds, lifted, active, pulls: (weights, active, pulls)
        )
        found = active_set.project(asked, rows)
    expected = projection(asked, halves)
    assert (found is None) == (expected is None)
    assert found is None or list(found.weights) == expected


def test_a_metric_that_is_singular_in_floats_is_not_so_in_rationals() -> None:
    metric = ((10**20 + 1, 10**20), (10**20, 10**20))
    rows = rows_of([((1, 0), 5), ((0, 1), 5), ((-1, 0), 0), ((0, -1), 0)])
    target = Quadratic.distance([9, 3], metric)
    assert active_in_floats(target, [side for side in sides_of(rows) if side.normal]) is None
    found = active_set.minimise(target, rows)
    assert found is not None
    assert found.weights == (5, 5)
    assert certified([9, 3], rows, found, metric)


def test_a_ball_holds_the_points_whose_norm_is_within_it_in_parts_of_a_millionth_too() -> None:
    ball = Ellipsoid(((2, 1), (1, 3)), 47)
    for scale in (1, 2, 3):
        for a, b in itertools.product(range(-8 * scale, 8 * scale + 1, 2), repeat=2):
            norm = Fraction(2 * a * a + 2 * a * b + 3 * b * b, scale * scale)
            assert ball.holds((a, b), scale) == (norm <= 47)


def test_one_rule_that_holds_several_weights_back_says_all_of_them() -> None:
    """And how hard it pulls is how hard it pulls where it pulls hardest."""
    said, other = [((1, 0, 0), 5), ((0, 1, 0), 5)], ((0, 0, 1), 5)
    linear = [Constraint(coefs, bound, rule(0), "at most 5") for coefs, bound in said]
    made = Region.compile([*linear, Constraint(*other, rule(1), "at most 5")], Space(("a", "b", "c")))
    for asked in ([9, 7, 6], [7, 9, 6]):
        pulls = made.project(asked).pulls
        alone = [made.project([value if k == each else 0 for k, value in enumerate(asked)]) for each in range(3)]
        most = [each.pulls[0].multiplier for each in alone]
        found = [(sorted(pull.coordinates), pull.multiplier) for pull in pulls]
        assert found == [([0, 1], max(most[:2])), ([2], most[2])]


@pytest.mark.parametrize("bounds", range(2, 6))
def test_of_a_rule_in_a_conflict_three_bounds_are_told(bounds: int) -> None:
    zeros = [Constraint(tuple(int(k == n) for k in range(5)), 0, rule(0), "is 0") for n in range(bounds)]
    some = Constraint(tuple(-int(k < bounds) for k in range(5)), -1, rule(1), "some")
    with pytest.raises(PolicyError) as caught:
        Region.compile([*zeros, some], Space(tuple("abcde")))
    told = ", ".join([f"{name} is 0" for name in "abcde"[: min(bounds, 3)]] + ["..."] * (bounds > 3))
    assert f"together: r0: {told}; r1: some;" in str(caught.value)


@pytest.mark.parametrize("kind", ["plain", "wide", "sheared"])
def test_the_nearest_face_is_the_one_found_by_looking_at_all(kind: str) -> None:
    """Far by plain distance may be near in a metric that counts some ways little."""
    draw, decided = random.Random(5), 0
    for _ in range(60):
        a, b, c = (draw.randrange(-3, 4) for _ in range(3))
        shears = [[1, 0, 0], [a, 1, 0], [b, c, 1]]  # of determinant 1, so that little stands beside much
        rows = {"wide": [[3, 0, 1], [0, 2, 0], [1, 0, 4]], "sheared": _squared(shears)}.get(kind)
        metric = None if rows is None else tuple(map(tuple, rows))
        faces = []
        for _ in range(3):
            halves: list[Half] = [((1, 1, 0), draw.randrange(8, 18)), ((0, 1, 1), draw.randrange(8, 18))]
            for n in range(3):
                least = draw.randrange(5)
                halves += [(tuple(-int(k == n) for k in range(3)), -least)]
                halves += [(tuple(int(k == n) for k in range(3)), least + draw.randrange(5))]
            faces.append(Face(rows_of(halves), None, None))
        asked = [draw.randrange(12) for _ in range(3)]
        found, face = nearest(faces, asked, metric)
        every = [each.project(asked, metric) for each in faces]
        lengths = [_length(metric, asked, each) for each in every if each is not None]
        assert _length(metric, asked, found) == min(lengths)
        assert face.holds(found.scaled, found.scale)
        decided += lengths.count(min(lengths)) == 1 and lengths[0] != min(lengths)
    assert decided > 10


def _squared(factors: list[list[int]]) -> list[list[int]]:
    return [[sum(x * y for x, y in zip(one, other, strict=True)) for other in factors] for one in factors]


def _length(metric: Any, asked: list[int], point: Solution) -> Any:
    return form(metric, [a - b for a, b in zip(asked, point.weights, strict=True)])


@pytest.mark.parametrize("metric", [None, ((2, 1), (1, 2))])
def test_what_many_faces_cost_is_refused_beyond_the_most(metric: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two faces of two bounds each, one in closed form counts for a sixteenth of its bounds, and one in a metric for all."""
    choice = Choice(((frozenset({0}), None), (frozenset({1}), None)), rule(1), "either")
    ends = [Constraint(tuple(sign * int(k == n) for k in range(2)), 5 if sign > 0 else 0, rule(0), "box")
            for n in range(2) for sign in (1, -1)]  # fmt: skip
    made = Region.compile([*ends, choice], Space(("a", "b"), metric))
    cost = 2 if metric is None else sum(len(face.rows) for face in made.faces)
    assert len(made.faces) == 2
    monkeypatch.setattr(region, "_MOST_COST", cost)
    Region.compile([*ends, choice], Space(("a", "b"), metric))
    monkeypatch.setattr(region, "_MOST_COST", cost - 1)
    with pytest.raises(PolicyError, match=f"a clamp would cost {cost}, and at most {cost - 1}"):
        Region.compile([*ends, choice], Space(("a", "b"), metric))


def test_a_part_that_a_norm_leaves_empty_has_no_point_beyond_another_norm() -> None:
    """a + b beyond 6 is within the box, and in no ball of 3: there is nothing to climb to, and then c is tried."""
    units = [tuple(int(k == n) for k in range(3)) for n in range(3)]
    ends = [(unit, 10) for unit in units] + [(tuple(-coef for coef in unit), 0) for unit in units]
    either = Choice(((frozenset({0, 1}), 6), (frozenset({0, 1, 2}), 30)), rule(7), "either")

    def made(share: int, *more: Choice) -> Region:
        linear = [Constraint(coefs, bound, rule(n), "") for n, (coefs, bound) in enumerate(ends)]
        return Region.compile(
            [*linear, *more, Ball(share, rule(9), "")], Space(("a", "b", "c"), None, tuple(units), Fraction(1))
        )

    inner, outer = made(3), made(2, either)
    found = witness(inner, outer)
    assert found is not None
    assert inner.holds(found)
    assert not outer.holds(found)


thirds = st.integers(-30, 30).map(lambda n: Fraction(n, 3))
halfs = st.integers(-20, 20).map(lambda n: Fraction(2 * n + 1, 2))


@settings(max_examples=300, deadline=None)
@given(
    problems({3: LAMINAR[3] + CROSSING[3]}, (3,)),
    st.one_of(*(st.lists(each, min_size=3, max_size=3) for each in (thirds, halfs, st.integers(-3, 14)))),
)
def test_points_inside_are_rounded_to_the_nearest_neighbour_inside_if_there_is_one(
    problem: tuple[list[int], list[Half]], point: list[Exact]
) -> None:
    rows = rows_of(problem[1])
    assume(
        all(sum(coef * weight for coef, weight in zip(coefs, point, strict=True)) <= most for coefs, most in problem[1])
    )
    assert round_inside(Solution.of(point, {}), rows) == nearest_neighbour(point, rows)


def test_every_tie_and_every_tight_sum_is_rounded_as_by_trying_all() -> None:
    """Points inside, groups that nest and cross with little room: most have an answer, and many round up later weights."""
    draw, answers, later = random.Random(11), 0, 0
    for _ in range(600):
        size, parts = draw.randrange(2, 6), draw.choice((2, 3, 6, 7))
        point = [Fraction(draw.randrange(0, 5 * parts), parts) for _ in range(size)]
        halves: list[Half] = []
        for _ in range(draw.randrange(0, 4)):
            coefs = tuple(draw.choice((0, 1, 1, 2) if draw.random() < 0.2 else (0, 1)) for _ in range(size))
            total = sum((coef * weight for coef, weight in zip(coefs, point, strict=True)), Fraction(0))
            halves.append((coefs, total.__ceil__() + draw.randrange(0, 2)))
            if draw.random() < 0.5:
                halves.append((tuple(-coef for coef in coefs), -total.__floor__() + draw.randrange(0, 2)))
        rows = rows_of(halves)
        found = round_inside(Solution.of(point, {}), rows)
        assert found == nearest_neighbour(point, rows)
        if found is not None:
            answers += 1
            later += any(up > weight for up, weight in list(zip(found, point, strict=True))[1:])
    assert answers > 500
    assert later > 300


@pytest.mark.parametrize("rest", [Fraction(1, 3), Fraction(1, 2), Fraction(2, 3)])
@pytest.mark.parametrize("signs", [(0, 1), (1, 0, -1)], ids=["sums", "differences"])
def test_two_tight_rows_of_weights_with_one_fraction_are_rounded_as_by_trying_all(
    rest: Fraction, signs: tuple[int, ...]
) -> None:
    size = 4 if len(signs) == 2 else 3
    forms = [each for each in itertools.product(signs, repeat=size) if sum(map(abs, each)) > 1]
    point = [number + rest for number in range(size)]
    for pair, ends in itertools.product(itertools.permutations(forms, 2), (slice(1), slice(1, 2), slice(2))):
        halves: list[Half] = []
        for coefs in pair:
            total = sum((coef * weight for coef, weight in zip(coefs, point, strict=True)), Fraction(0))
            halves += [(coefs, total.__ceil__()), (tuple(-coef for coef in coefs), -total.__floor__())][ends]
        rows = rows_of(halves)
        assert round_inside(Solution.of(point, {}), rows) == nearest_neighbour(point, rows)
