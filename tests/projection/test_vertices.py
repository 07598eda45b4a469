"""Vertices, the ends of coordinates, and random points, against oracles that try everything."""

import itertools
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings

from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.projection import vertices as module
from soupmix.projection.constraints import Ball, Choice, Constraint
from soupmix.projection.extent import _Along, extent
from soupmix.projection.hit_and_run import sample
from soupmix.projection.region import Region, Space
from soupmix.projection.vertices import vertices, vertices_of
from tests.support import brute_force
from tests.support.brute_force import CROSSING, LAMINAR, Half, is_inside, problems, rows_of, rule

NAMES = ("a", "b", "c", "d")


def region_of(halves: Sequence[Half], *more: Choice | Ball, **norm: object) -> Region:
    size = len(halves[0][0])
    linear = [Constraint(coefs, bound, rule(index), "") for index, (coefs, bound) in enumerate(halves)]
    return Region.compile([*linear, *more], Space(NAMES[:size], **norm))  # type: ignore[arg-type]


def compiled(halves: Sequence[Half]) -> Region:
    try:
        return region_of(halves)
    except PolicyError:
        assume(False)
        raise


def box(*highs: int) -> list[Half]:
    units = [tuple(int(index == each) for each in range(len(highs))) for index in range(len(highs))]
    ups = [(unit, high) for unit, high in zip(units, highs, strict=True)]
    return ups + [(tuple(-coef for coef in unit), 0) for unit in units]


@settings(max_examples=150, deadline=None)
@given(problems({2: LAMINAR[2] + CROSSING[2], 3: LAMINAR[3] + CROSSING[3]}, (2, 3)))
def test_vertices_are_those_found_by_trying_all(problem: tuple[list[int], list[Half]]) -> None:
    asked, halves = problem
    found = vertices(rows_of(halves), len(asked))
    assert len(found) == len(set(found))
    assert set(found) == brute_force.vertices(halves, len(asked))


@settings(max_examples=15, deadline=None)
@given(problems({4: LAMINAR[4] + CROSSING[4]}, (4,)))
def test_vertices_of_four_coordinates(problem: tuple[list[int], list[Half]]) -> None:
    _, halves = problem
    assert set(vertices(rows_of(halves), 4)) == brute_force.vertices(halves, 4)


def test_a_point_a_line_and_nothing() -> None:
    assert vertices(rows_of(box(0, 0)), 2) == [(0, 0)]
    assert sorted(vertices(rows_of([*box(5, 5), ((1, 1), 3), ((-1, -1), -3)]), 2)) == [(0, 3), (3, 0)]
    assert vertices(rows_of([*box(5, 5), ((-1, -1), -11)]), 2) == []
    assert vertices((), 0) == [()]


def test_vertices_between_whole_points_are_exact() -> None:
    pairs: list[Half] = [((1, 1, 0), 1), ((0, 1, 1), 1), ((1, 0, 1), 1)]
    half = Fraction(1, 2)
    assert (half, half, half) in vertices(rows_of([*box(1, 1, 1), *pairs]), 3)


def test_too_many_vertices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 8)
    assert len(vertices(rows_of(box(1, 1, 1)), 3)) == 8
    monkeypatch.setattr(module, "_MOST", 7)
    with pytest.raises(PolicyRefusal, match="more than 7 vertices") as caught:
        vertices(rows_of(box(1, 1, 1)), 3)
    assert caught.value.reason == "too-many-vertices"


def test_vertices_of_a_union_are_those_of_every_part() -> None:
    either = Choice(((frozenset({0}), 3), (frozenset({1}), None)), rule(9), "")
    assert vertices_of(region_of(box(5, 7), either)) == [(0, 0), (0, 7), (3, 0)]


def test_a_vertex_beyond_a_ball_is_drawn_in_and_one_inside_stays() -> None:
    """The norm of (w0, w1) is at most 100: the corner (90, 90) is not, (90, 0) and (0, 90) are."""
    ball = {"gram": ((1, 0), (0, 1)), "base": Fraction(1)}
    region = region_of(box(90, 90), Ball(100, rule(9), ""), **ball)
    assert vertices_of(region) == [(0, 0), (0, 90), (70, 70), (90, 0)]
    assert extent(region, 0) == (0, 90)
    assert extent(region_of(box(200, 200), Ball(100, rule(9), ""), **ball), 1) == (0, 100)


def wholes(halves: Sequence[Half]) -> list[tuple[int, ...]]:
    """All whole points of a set, whose box begins at 0 and is small."""
    return [each for each in itertools.product(range(13), repeat=len(halves[0][0])) if is_inside(halves, each)]


@settings(max_examples=100, deadline=None)
@given(problems(LAMINAR, (2, 3)))
def test_ends_are_those_of_all_whole_points(problem: tuple[list[int], list[Half]]) -> None:
    _, halves = problem
    region, points = compiled(halves), wholes(halves)
    for index in range(len(region.space.names)):
        values = [point[index] for point in points]
        assert extent(region, index) == (min(values), max(values))


@settings(max_examples=100, deadline=None)
@given(problems(CROSSING, (2, 3)))
def test_ends_are_attained_where_groups_overlap(problem: tuple[list[int], list[Half]]) -> None:
    _, halves = problem
    region, points = compiled(halves), wholes(halves)
    for index in range(len(region.space.names)):
        values = {point[index] for point in points}
        try:
            least, most = extent(region, index)
        except PolicyRefusal:
            continue
        assert {least, most} <= values
        assert (least - min(values), max(values) - most) <= (1, 1)


def test_an_end_is_found_from_any_position_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """a + b + c and 2 a + b are bounded, so that a reaches 7 of the 10 that it may be alone."""
    made = region_of([*box(10, 9, 9), ((2, 1, 0), 15), ((1, 1, 1), 20), ((-1, 0, 0), -2)])
    for away in range(5):
        monkeypatch.setattr(_Along, "_near", lambda self, away=away: (7 if self._sign > 0 else -2) - away)
        assert extent(made, 0) == (2, 7)


def test_an_end_without_whole_points_is_refused() -> None:
    pairs: list[Half] = [((1, 1, 0), 1), ((0, 1, 1), 1), ((1, 0, 1), 1)]
    triangle = region_of([*box(1, 1, 1), *pairs, *[(tuple(-coef for coef in coefs), -1) for coefs, _ in pairs]])
    with pytest.raises(PolicyRefusal, match="no whole millionths of a at an end") as caught:
        extent(triangle, 0)
    assert caught.value.reason == "no-integer-point"


def test_an_end_is_looked_for_behind_one_without_whole_points() -> None:
    """a + b + c = 5 and b + d = c + d = 2 make a + 2 b = 5: a reaches 4, but a whole point only at 3."""
    sums: list[Half] = [((1, 1, 1, 0), 5), ((0, 1, 0, 1), 2), ((0, 0, 1, 1), 2)]
    equal = [*sums, *[(tuple(-coef for coef in coefs), -high) for coefs, high in sums]]
    halves = [*box(4, 5, 5, 5), *equal]
    assert max(each[0] for each in wholes(halves)) == 3
    assert extent(region_of(halves), 0) == (1, 3)


M = 1_000_000


def test_points_are_uniform_in_a_simplex() -> None:
    """Of a uniform point of {w >= 0, sum <= 1} every weight has the mean 1 / (K + 1), and is beyond a half with chance 1 / 8."""
    points = sample(region_of([*box(M, M, M), ((1, 1, 1), M)]), 1500, 7)
    for index in range(3):
        values = [point[index] for point in points]
        assert sum(values) / len(values) == pytest.approx(M / 4, rel=0.06)
        assert sum(value > M / 2 for value in values) / len(values) == pytest.approx(1 / 8, abs=0.03)


def test_points_are_uniform_in_a_ball() -> None:
    """A quarter of a disc of radius r: the mean is 4 r / (3 pi), and half of the points are beyond r / sqrt(2)."""
    region = region_of(box(M, M), Ball(M // 2, rule(9), ""), gram=((1, 0), (0, 1)), base=Fraction(1))
    points = sample(region, 1500, 7)
    assert all(a * a + b * b <= (M // 2) ** 2 for a, b in points)
    for index in range(2):
        assert sum(each[index] for each in points) / len(points) == pytest.approx(0.2122 * M, rel=0.06)
    outer = sum(a * a + b * b > (M // 2) ** 2 / 2 for a, b in points)
    assert outer / len(points) == pytest.approx(1 / 2, abs=0.04)


def test_points_of_flat_sets_and_of_single_points() -> None:
    flat = region_of([*box(M, M, M), ((1, 1, 1), M), ((-1, -1, -1), -M)])
    points = sample(flat, 50, 3)
    assert all(sum(point) == M for point in points)
    assert len(set(points)) == 50
    assert max(point[0] for point in points) > 0.7 * M
    assert sample(region_of(box(0, 0)), 3, 0) == [(0, 0)] * 3
    assert sample(Region.compile([], Space(())), 2, 0) == [(), ()]


def test_every_part_of_a_union_is_drawn_alike_and_a_norm_that_nothing_changes_holds_nothing_back() -> None:
    either = Choice(((frozenset({0}), 1000), (frozenset({1}), None)), rule(9), "")
    points = sample(region_of(box(M, M), either, Ball(M, rule(8), ""), gram=((1, 0), (0, 0)), base=Fraction(1)), 400, 5)
    small, large = ([point for point in points if point[index]] for index in range(2))
    assert len(small) + len(large) >= 398
    assert len(small) / 400 == pytest.approx(1 / 2, abs=0.1)
    assert sum(point[1] for point in large) / len(large) == pytest.approx(M / 2, rel=0.1)


def test_a_seed_says_which_points() -> None:
    region = region_of([*box(M, M, M), ((1, 1, 0), M), ((0, 1, 1), M)])
    assert sample(region, 5, 1) == sample(region, 9, 1)[:5]
    assert sample(region, 5, 1) != sample(region, 5, 2)
    assert sample(region, 0, 1) == []
