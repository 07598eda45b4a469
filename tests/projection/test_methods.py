"""Two exact methods against a brute-force oracle that knows neither: all Karush-Kuhn-Tucker systems, in rationals."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from soupmix.projection import active_set
from soupmix.projection.certificate import certified
from soupmix.projection.constraints import Constraint, Row, sides_of
from soupmix.projection.laminar import forest
from soupmix.projection.quadratic import Quadratic
from soupmix.projection.region import Space, minimal_conflict
from soupmix.projection.rounding import round_inside
from soupmix.projection.solution import Solution
from tests.support.brute_force import CROSSING, LAMINAR, Half, nearest_neighbour, problems, projection, rows_of, rule

SPACE = Space(("a", "b", "c"))


def check(asked: list[int], rows: tuple[Row, ...], found: Solution | None, expected: list[Fraction] | None) -> None:
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert list(found.weights) == expected
        assert certified(asked, rows, found)


def in_rationals(asked: list[int], rows: tuple[Row, ...]) -> Solution | None:
    """The way that is taken where floats do not find the active set."""
    sides = sides_of(rows)
    if any(not side.normal and side.bound > 0 for side in sides):
        return None
    return active_set._in_rationals(Quadratic.distance(asked, None), [side for side in sides if side.normal])


@settings(max_examples=300, deadline=None)
@given(problems(LAMINAR, (2, 3)))
def test_laminar_is_the_projection(problem: tuple[list[int], list[Half]]) -> None:
    asked, sides = problem
    rows = rows_of(sides)
    arranged = forest(rows, len(asked))
    assert arranged is not None
    expected = projection(asked, sides)
    check(asked, rows, arranged.project(asked), expected)
    check(asked, rows, active_set.project(asked, rows), expected)


@settings(max_examples=200, deadline=None)
@given(problems(CROSSING, (2, 3)))
def test_active_set_is_the_projection(problem: tuple[list[int], list[Half]]) -> None:
    asked, sides = problem
    rows = rows_of(sides)
    expected = projection(asked, sides)
    check(asked, rows, active_set.project(asked, rows), expected)
    check(asked, rows, in_rationals(asked, rows), expected)


@settings(max_examples=25, deadline=None)
@given(problems({4: LAMINAR[4] + CROSSING[4]}, (4,)))
def test_four_adapters(problem: tuple[list[int], list[Half]]) -> None:
    asked, sides = problem
    rows = rows_of(sides)
    check(asked, rows, active_set.project(asked, rows), projection(asked, sides))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_both_methods_agree_on_larger_forests(data: st.DataObject) -> None:
    groups = [[0, 1], [2, 3], [4, 5, 6], [0, 1, 2, 3], list(range(8))]
    asked = data.draw(st.lists(st.integers(-500, 1500), min_size=8, max_size=8))
    sides: list[Half] = []
    for group in [[k] for k in range(8)] + data.draw(st.lists(st.sampled_from(groups), unique_by=tuple)):
        up = tuple(int(k in group) for k in range(8))
        high = data.draw(st.integers(100, 1000))
        low = data.draw(st.integers(0, 100)) if data.draw(st.booleans()) else 0
        sides += [(up, high), (tuple(-c for c in up), -low)]
    rows = rows_of(sides)
    arranged = forest(rows, 8)
    assert arranged is not None
    left, right = arranged.project(asked), active_set.project(asked, rows)
    assert (left is None) == (right is None)
    if left is not None and right is not None:
        assert left.weights == right.weights
        assert certified(asked, rows, left)
        assert certified(asked, rows, right)
        assert round_inside(left, rows) is not None


def test_groups_that_cross_are_no_forest() -> None:
    box: list[Half] = [
        ((1, 0, 0), 1),
        ((0, 1, 0), 1),
        ((0, 0, 1), 1),
        ((-1, 0, 0), 0),
        ((0, -1, 0), 0),
        ((0, 0, -1), 0),
    ]
    assert forest(rows_of([*box, ((1, 1, 0), 1)]), 3) is not None
    assert forest(rows_of([*box, ((1, 1, 0), 1), ((0, 1, 1), 1)]), 3) is None
    assert forest(rows_of([*box, ((1, 2, 0), 1)]), 3) is None
    assert forest(rows_of(box[1:]), 3) is None


@settings(max_examples=200, deadline=None)
@given(problems(LAMINAR, (2, 3)), st.data())
def test_a_wrong_solution_is_not_certified(problem: tuple[list[int], list[Half]], data: st.DataObject) -> None:
    asked, sides = problem
    rows = rows_of(sides)
    found = active_set.project(asked, rows)
    if found is None:
        return
    moved = list(found.weights)
    moved[data.draw(st.integers(0, len(asked) - 1))] += data.draw(st.sampled_from([-1, 1, Fraction(1, 1000)]))
    assert not certified(asked, rows, Solution.of(moved, found.multipliers))
    index = data.draw(st.integers(0, len(rows) - 1))
    changed = {**found.multipliers, index: found.multipliers.get(index, 0) + Fraction(1, 7)}
    assert not certified(asked, rows, Solution.of(found.weights, changed))


def test_a_feasible_point_that_is_not_nearest_is_not_certified() -> None:
    rows = rows_of([((1,), 10), ((-1,), 0)])
    assert certified([4], rows, Solution((4,), {}))
    assert not certified([4], rows, Solution((3,), {0: 1}))
    assert not certified([4], rows, Solution((10,), {0: -6}))
    assert not certified([14], rows, Solution((14,), {})), "nor is the request itself where it is outside"


@settings(max_examples=300, deadline=None)
@given(problems({3: LAMINAR[3] + CROSSING[3], 4: LAMINAR[4] + CROSSING[4]}, (3, 4)))
def test_rounding_is_the_nearest_neighbour_inside(problem: tuple[list[int], list[Half]]) -> None:
    asked, sides = problem
    rows = rows_of(sides)
    found = active_set.project(asked, rows)
    if found is not None:
        assert round_inside(found, rows) == nearest_neighbour(found.weights, rows)


@given(st.integers(2, 40), st.integers(1, 10**6))
def test_rounding_a_large_tie(adapters: int, total: int) -> None:
    rows = rows_of([((1,) * adapters, total), ((-1,) * adapters, -total)])
    rounded = round_inside(Solution.of([Fraction(total, adapters)] * adapters, {}), rows)
    assert rounded is not None
    assert sum(rounded) == total
    assert list(rounded) == sorted(rounded, reverse=True)


def test_a_triangle_without_an_integer_point() -> None:
    pairs = [(1, 1, 0), (0, 1, 1), (1, 0, 1)]
    rows = rows_of([(p, 1) for p in pairs] + [(tuple(-c for c in p), -1) for p in pairs])
    assert round_inside(Solution.of([Fraction(1, 2)] * 3, {}), rows) is None


@settings(max_examples=150, deadline=None)
@given(problems(CROSSING, (3,)), st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), max_size=3))
def test_a_conflict_is_minimal(problem: tuple[list[int], list[Half]], demands: list[tuple[int, int]]) -> None:
    asked, sides = problem
    sides = sides + [(tuple(-int(k == index) for k in range(3)), -low) for index, low in demands]
    if projection(asked, sides) is not None:
        return
    constraints = [Constraint(coefs, bound, rule(index), "") for index, (coefs, bound) in enumerate(sides)]
    parts = minimal_conflict(constraints, SPACE)
    named = [(each.coefs, each.bound) for part in parts for each in part]
    assert projection(asked, named) is None
    for left_out in named:
        assert projection(asked, [each for each in named if each is not left_out]) is not None
    assert minimal_conflict(constraints[::-1], SPACE) == parts
