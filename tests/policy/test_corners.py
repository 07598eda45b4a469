"""Corners of the exact arithmetic: wrong guesses, floats that fail, points outside, norms of 0 and norms far apart."""

import itertools
import json
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.policy import Policy, active_set, dual, norm, parse_document, rulebook
from soupmix.policy.certificate import certified
from soupmix.policy.compare import difference
from soupmix.policy.dual import active_in_floats
from soupmix.policy.exact import inverse, solve
from soupmix.policy.quadratic import Quadratic
from soupmix.policy.recorded import read_record
from soupmix.policy.rounding import round_inside
from soupmix.policy.rows import Exact, Solution
from tests.policy.test_norm import Measured, measured, policy
from tests.policy.test_projection import CROSSING, LAMINAR, Half, nearest_neighbour, oracle, problems, rows_of
from tests.support.oracle import NAMES, SHELF, digest_of

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
    found, turned = solve(matrix, right), inverse(matrix)
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
    sides = active_set._sides(rows)
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
    expected = oracle(asked, halves)
    assert (found is None) == (expected is None)
    assert found is None or list(found.weights) == expected


def test_a_metric_that_is_singular_in_floats_is_not_so_in_rationals() -> None:
    metric = ((10**20 + 1, 10**20), (10**20, 10**20))
    rows = rows_of([((1, 0), 5), ((0, 1), 5), ((-1, 0), 0), ((0, -1), 0)])
    target = Quadratic.distance([9, 3], metric)
    assert active_in_floats(target, [side for side in active_set._sides(rows) if side.normal]) is None
    found = active_set.minimise(target, rows)
    assert found is not None
    assert found.weights == (5, 5)
    assert certified([9, 3], rows, found, metric)


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


# --- bounds on a norm


def test_a_norm_of_nothing_grants_nothing() -> None:
    grant = policy(measured(3), 0.0).clamp("friendly=0.5,expert=0.3")
    assert dict(grant.granted) == {}
    assert [(each.rule, each.limit) for each in grant.binding] == [
        ("norm", "the merged delta has at most 0 of the base's norm")
    ]


def opposed(one: str, other: str) -> Measured:
    """A shelf on which two adapters undo each other, and the others do nothing."""
    made = Measured(SHELF)
    made.gram = np.zeros((6, 6))
    for a, b, product in ((one, one, 1), (other, other, 1), (one, other, -1), (other, one, -1)):
        made.gram[NAMES.index(a), NAMES.index(b)] = product
    return made


def test_a_norm_of_nothing_grants_what_has_no_norm() -> None:
    grant = policy(opposed("friendly", "concise"), 0.0).clamp("friendly=0.5,concise=0.3,expert=0.4")
    assert grant.granted.decimals() == {"concise": "0.4", "expert": "0.4", "friendly": "0.4"}


@pytest.mark.parametrize("metric", ["weights", "delta"])
@pytest.mark.parametrize("small", [1e-200, 1e-30, 1e-6])
def test_norms_far_apart_are_no_hindrance(small: float, metric: str) -> None:
    shelf = Measured(SHELF)
    shelf.gram = np.diag([small if name in ("expert", "elementary") else 1 / small for name in NAMES])
    grant = policy(shelf, 0.001, metric).clamp("friendly=1.5,expert=0.3")
    assert grant.granted["expert"] == pytest.approx(300_000, abs=1 if small < 1e-20 else 1000)
    assert grant.granted.get("friendly", 0) == pytest.approx(1e5 * small**0.5, abs=2)


def test_the_search_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The curve is followed; bisection alone takes 1056 minimisations for these requests, and this takes 301."""
    counts = []
    at = norm._at

    def counted(*given: Any) -> Any:
        counts[-1] += 1
        return at(*given)

    monkeypatch.setattr(norm, "_at", counted)
    for seed in range(12):
        made = policy(measured(seed), 0.004 + 0.002 * seed)
        counts.append(0)
        made.clamp({name: (seed * 7 + index * 3) % 10 / 10 for index, name in enumerate(NAMES)})
    assert sum(counts) <= 330


def test_a_search_that_is_cut_short_grants_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = policy(measured(3), 0.01)
    monkeypatch.setattr(norm, "_STEPS", 0)
    with pytest.raises(PolicyRefusal) as caught:
        made.clamp("elementary=1,friendly=1,concise=0.4")
    assert caught.value.reason == "uncertified"


@pytest.mark.parametrize(
    ("one", "other"), [("friendly", "concise"), ("friendly", "informative"), ("concise", "expert")]
)
def test_a_point_beyond_a_norm_is_found_where_all_weights_together_have_none(one: str, other: str) -> None:
    tight, none = (policy(opposed(one, other), share) for share in (0.002, None))
    found = difference(tight, none)
    assert found.widenings
    for each in found.widenings:
        assert none.clamp(each.weights).granted == each.weights.nonzero()
        assert tight.clamp(each.weights).clamped


def test_a_point_beyond_a_norm_is_found_by_walking_where_the_norm_grows() -> None:
    """All together cancel, each alone is too short; only two of them reach beyond."""
    shelf = Measured(SHELF)
    direction = np.array([{"friendly": 1, "concise": 1, "expert": -2}.get(name, 0) for name in NAMES])
    shelf.gram = np.outer(direction, direction)
    free = {"rule": "deny", "adapter": "unfriendly"}
    half = {"rule": "bounds", "adapter": "expert", "at_most": "0.5"}
    (found,) = difference(*(policy(shelf, share, "weights", free, half) for share in (0.012, None))).widenings
    assert found.weights.decimals() == {"concise": "0.75", "friendly": "0.75"}


def test_what_is_not_proved_is_said() -> None:
    """The box reaches a norm of 2 at most by its corners, really only 1: 1.5 lies between."""
    loose, none = (policy(opposed("friendly", "concise"), share) for share in (0.015, None))
    found = difference(loose, none)
    assert not found.contained
    assert not found.widenings
    assert "does not prove that there is none" in found.undecided[0]
    vast = policy(opposed("friendly", "concise"), 0.03)
    assert difference(vast, none).contained


def test_an_empty_rest_inside_a_norm_is_contained() -> None:
    """The new policy lets `expert` pass 0.5 only where its own norm forbids it."""
    shelf = measured(2)
    reach = float(np.sqrt(shelf.gram[NAMES.index("expert"), NAMES.index("expert")])) / shelf.base_norm
    cap = {"rule": "bounds", "adapter": "expert", "at_most": "0.5"}
    others = [{"rule": "deny", "adapter": name} for name in NAMES if name != "expert"]
    old, new = policy(shelf, None, "weights", cap, *others), policy(shelf, 0.4 * reach, "weights", *others)
    assert difference(old, new).contained
    assert not difference(old, policy(shelf, 0.6 * reach, "weights", *others)).contained


# --- rules and policies


def load(*rules: dict[str, Any]) -> Policy:
    content = {"tier": "organisation", "issuer": "A", "version": "1", "rules": list(rules)}
    return Policy.assemble([("x.yaml", parse_document(json.dumps(content), "x.yaml"))], SHELF)


def test_where_no_whole_point_is_left_the_comparison_says_so() -> None:
    trio = [("elementary", "concise"), ("concise", "friendly"), ("elementary", "friendly")]
    triangle = [{"rule": "group", "adapters": pair, "at_least": "0.000001", "at_most": "0.000001"} for pair in trio]
    old, new = load(*triangle, {"rule": "bounds", "adapter": "expert", "at_most": "0.5"}), load(*triangle)
    found = difference(old, new)
    assert not found.widenings
    assert "no whole point was found" in found.undecided[0]


def test_exclusive_among_less_than_two_has_no_effect() -> None:
    alone = load({"rule": "exclusive", "adapters": ["friendly", "unknown"]})
    assert alone.notes[0] == "x.yaml (organisation) rules[0] concerns no known adapter, so it has no effect"
    assert alone.clamp("friendly=0.5,concise=0.5").granted.decimals() == {"concise": "0.5", "friendly": "0.5"}


def test_bounds_are_of_what_holds_from_every_source_and_in_every_combination() -> None:
    report = {"report": digest_of("r"), "until": "9999-12-31"}
    made = load(
        {"rule": "source", "adapter": "friendly", "allow": ["explicit"]},
        {"rule": "exclusive", "dimension": "length"},
        {"rule": "combinations", "allow": [{"adapters": NAMES, "evidence": report}]},
        {"rule": "bounds", "adapter": "expert", "at_least": "0.1", "at_most": "0.2"},
        {"rule": "bounds", "adapter": "expert", "at_least": "0.05", "at_most": "0.25"},
    )
    assert made.bounds() == dict.fromkeys(NAMES, (0, 1_000_000)) | {"expert": (100_000, 200_000)}


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rulebook, "_REMEMBERED", 3)
    made = load({"rule": "bounds", "adapter": "friendly", "at_most": "0.5"})
    sizes = []
    for number in range(10):
        assert made.clamp({"friendly": 0.5 + number / 100}).granted.decimals() == {"friendly": "0.5"}
        sizes.append(len(made._remembered))
    assert sizes == [1, 2, *[3] * 8]


def test_a_record_that_is_no_object_is_damaged() -> None:

    with pytest.raises(PolicyError, match="damaged grant record: it is no JSON object") as caught:
        read_record([])  # type: ignore[arg-type]
    assert caught.value.reason == "bad-record"
