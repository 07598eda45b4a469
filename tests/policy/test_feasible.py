"""The feasible set that a policy hands out, against the clamp, the specification and a linear program."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from soupmix.errors import PolicyRefusal, RecipeError, WeightError
from soupmix.policy import FeasibleSet, Policy, parse_document
from soupmix.policy.spec import is_feasible
from soupmix.weights import MILLION, Weights, decimal_text
from tests.support.policies import load, measured, norm_policy, together
from tests.support.shelf import NAMES, SHELF, TODAY
from tests.support.strategies import asked, consistent_policy, documents, origins, statements

SETTINGS = settings(max_examples=80, deadline=None)
SORTED = tuple(sorted(NAMES))

near = st.sampled_from([0, 1, 100_000, 299_999, 300_000, 500_000, 500_001, 1_000_000, 1_000_001, -1])
points = st.fixed_dictionaries({}, optional={name: near | st.integers(0, 700_000) for name in NAMES})


def micro(weights: Mapping[str, int]) -> list[int]:
    return [weights.get(name, 0) for name in SORTED]


@SETTINGS
@given(st.lists(documents(), max_size=2), points, statements, origins)
def test_it_contains_what_the_documents_allow(
    contents: list[dict[str, Any]], point: dict[str, int], said: dict[str, str], sources: dict[str, str]
) -> None:
    feasible = consistent_policy(contents).feasible(sources=sources, **said)
    right = is_feasible(point, contents, SHELF, today=TODAY, attributes=said, sources=sources)
    assert feasible.contains(Weights.from_micro(point)) == feasible.contains(micro(point)) == right


@SETTINGS
@given(st.lists(documents(), max_size=2), asked, statements, origins)
def test_the_nearest_point_is_what_a_clamp_grants(
    contents: list[dict[str, Any]], want: dict[str, str], said: dict[str, str], sources: dict[str, str]
) -> None:
    policy = consistent_policy(contents)
    feasible = policy.feasible(sources=sources, **said)
    found = feasible.nearest(want)
    assert found == policy.clamp(want, sources=sources, **said).granted
    assert feasible.contains(found)
    assert feasible.nearest(found) == found


@SETTINGS
@given(st.lists(documents(), max_size=2), statements, st.integers(0, 10**6))
def test_random_points_are_inside(contents: list[dict[str, Any]], said: dict[str, str], seed: int) -> None:
    policy = consistent_policy(contents)
    for each in policy.feasible(**said).sample(3, seed):
        assert is_feasible(each, contents, SHELF, today=TODAY, attributes=said)
        assert policy.clamp(each, **said).granted == each


@SETTINGS
@given(st.lists(documents(), max_size=2), statements)
def test_bounds_are_the_ends_of_the_vertices(contents: list[dict[str, Any]], said: dict[str, str]) -> None:
    """Two methods that have nothing in common: vertices by double description, ends by projections."""
    feasible = consistent_policy(contents).feasible(**said)
    vertices = feasible.vertices()
    assert list(vertices) == sorted(set(vertices))
    assert all(map(feasible.contains, vertices))
    for index, (name, (least, most)) in enumerate(feasible.bounds().items()):
        ends = [vertex[index] for vertex in vertices]
        assert (least, most) == (min(ends).__ceil__(), max(ends).__floor__())
        assert feasible.most(name) == most


CROSSING = [
    {"rule": "group", "adapters": list(names), "at_most": most}
    for names, most in (
        (("elementary", "concise", "friendly"), "0.9"),
        (("concise", "friendly", "expert"), "0.7"),
        (("informative", "unfriendly", "elementary"), "0.8"),
        (("expert", "informative"), "0.6"),
    )
]
FLOOR = {"rule": "bounds", "adapter": "friendly", "at_least": "0.1"}


@pytest.mark.parametrize("rules", [[], CROSSING, [*CROSSING, FLOOR], [{"rule": "deny", "tag": "technical"}, FLOOR]])
def test_a_linear_program_finds_no_better_end_in_any_direction(rules: list[dict[str, Any]]) -> None:
    """Two convex sets are one if they reach equally far in every direction."""
    vertices = np.array(load(*rules).feasible().vertices(), dtype=float) / MILLION
    limits = [([each], 0.0, 1.0) for each in NAMES]
    for ref in SHELF:
        limits.append(([each.name for each in SHELF if each.dimension == ref.dimension], 0.0, 1.0))
    limits.append((NAMES, 0.0, 1.5))
    for rule in rules:
        chosen = rule.get("adapters") or [
            each.name for each in SHELF if rule.get("adapter") == each.name or rule.get("tag") in each.tags
        ]
        most = 0.0 if rule["rule"] == "deny" else float(rule.get("at_most", "9"))
        limits += [([one], 0.0, most) for one in chosen] if rule["rule"] == "deny" else []
        limits += [(chosen, float(rule.get("at_least", "0")), most)] if rule["rule"] != "deny" else []
    rows = [[float(name in chosen) for name in SORTED] for chosen, _, _ in limits]
    matrix = np.array(rows + [[-value for value in row] for row in rows])
    ends = np.array([most for _, _, most in limits] + [-least for _, least, _ in limits])
    draw = np.random.default_rng(0)
    for _ in range(40):
        direction = draw.standard_normal(6)
        best = linprog(-direction, A_ub=matrix, b_ub=ends, bounds=[(None, None)] * 6)
        assert (vertices @ direction).max() == pytest.approx(-best.fun, abs=1e-9)
    assert all((matrix @ vertex <= ends + 1e-9).all() for vertex in vertices)


def test_a_vertex_is_no_mixture_of_others() -> None:
    vertices = np.array(load(*CROSSING).feasible().vertices(), dtype=float) / MILLION
    for index, vertex in enumerate(vertices):
        others = np.delete(vertices, index, axis=0)
        mixed = linprog(
            np.zeros(len(others)), A_eq=np.vstack([others.T, np.ones(len(others))]), b_eq=np.append(vertex, 1)
        )
        assert mixed.status == 2, "infeasible"


@pytest.mark.parametrize(("seed", "metric"), [(0, "weights"), (1, "delta")])
def test_under_a_bound_on_the_norm(seed: int, metric: str) -> None:
    shelf = measured(seed)
    policy = norm_policy(shelf, 0.01, metric)
    feasible = policy.feasible()

    def norm(point: Sequence[Any]) -> float:
        w = np.array([float(point[SORTED.index(name)]) for name in NAMES]) / MILLION
        return float(np.sqrt(w @ shelf.gram @ w))

    for vertex in feasible.vertices():
        assert feasible.contains(vertex)
        assert norm(vertex) <= 0.01 * shelf.base_norm * (1 + 1e-9)
    for each in feasible.sample(5, seed):
        assert policy.clamp(each).granted == each
    for index, (name, (least, most)) in enumerate(feasible.bounds().items()):
        assert least == 0
        alone = 0.01 * shelf.base_norm / np.sqrt(shelf.gram[NAMES.index(name), NAMES.index(name)])
        assert most >= min(MILLION, int(alone * MILLION)) - 12, "alone it comes so far, and others may help it"
        corner = [0] * 6
        corner[index] = most + 13
        assert not feasible.contains(corner)


def test_an_end_that_a_ball_cuts_is_found_where_no_group_overlaps() -> None:
    """The positions before the end round alike, so that one rounding of each would find nothing. The end by hand: the first
    weight helps the second and ends at its bound of 0.4, the third only costs norm; what is left is a quadratic equation.
    """
    shelf = measured(0)
    shelf.gram = np.eye(6)
    shelf.gram[:3, :3] = [
        [0.041337, -0.235707, 0.057075],
        [-0.235707, 5.773238, 0.821186],
        [0.057075, 0.821186, 0.495674],
    ]
    caps = zip(NAMES, ("0.4", "0.2", "0.4", "0", "0", "0"), strict=True)
    rules = [{"rule": "bounds", "adapter": name, "at_most": cap} for name, cap in caps]
    policy = norm_policy(shelf, 0.003, "weights", *rules)
    feasible, name = policy.feasible(), NAMES[1]
    end = max(np.roots([5.773238, -2 * 0.4 * 0.235707, 0.041337 * 0.4**2 - 0.3**2])) * MILLION
    assert end - 12 <= feasible.most(name) <= end
    assert policy.clamp({NAMES[0]: 0.4, name: 0.2}).granted[name] <= feasible.most(name)
    assert feasible.bounds()[name] == (0, feasible.most(name))


def test_a_refusal_names_what_there_is_to_widen(monkeypatch: pytest.MonkeyPatch) -> None:
    round_one = norm_policy(measured(0), 0.003).feasible()
    monkeypatch.setattr("soupmix.projection.faces.Face.round", lambda *_: None)
    monkeypatch.setattr("soupmix.policy.feasible._SECONDS", 600)  # every smaller ball is tried, which takes seconds
    for refused in (lambda: round_one.most(NAMES[0]), lambda: round_one.nearest({NAMES[0]: 1})):
        with pytest.raises(PolicyRefusal, match=r"; widen (?!one of).*norm") as caught:
            refused()
        assert caught.value.reason == "no-integer-point"


def test_what_is_said_of_a_request_says_which_set() -> None:
    minors = {"rule": "bounds", "adapter": "friendly", "at_most": "0.3", "scope": {"audience": ["minor"]}}
    chosen = {"rule": "source", "adapter": "expert", "allow": ["explicit"]}
    policy = load(minors, chosen)
    assert policy.feasible().bounds()["friendly"] == (0, 300_000)
    assert policy.feasible(audience="adult").most("friendly") == MILLION
    assert policy.feasible(sources="stored").most("expert") == 0
    assert policy.feasible(sources={"expert": "explicit"}).most("expert") == MILLION
    assert policy.feasible().names == policy.names
    assert policy.feasible().policy_digest == policy.digest
    with pytest.raises(RecipeError, match="unknown attribute 'age'"):
        policy.feasible(age="9")
    with pytest.raises(RecipeError, match="unknown source 'guessed'"):
        policy.feasible(sources="guessed")
    with pytest.raises(WeightError, match="unknown adapter 'nobody'"):
        policy.feasible(sources={"nobody": "stored"})


def test_a_rule_that_refuses_bounds_the_set_too() -> None:
    policy = load({"rule": "bounds", "adapter": "friendly", "at_most": "0.3", "mode": "refuse"})
    assert policy.feasible().nearest("friendly=1").decimals() == {"friendly": "0.3"}
    with pytest.raises(PolicyRefusal):
        policy.clamp("friendly=1")


def test_points_that_make_no_sense() -> None:
    feasible = load().feasible()
    with pytest.raises(WeightError, match=r"unknown adapter 'freindly' \(did you mean 'friendly'\?\)"):
        feasible.contains("freindly=1")
    with pytest.raises(WeightError, match="unknown adapter 'nobody'"):
        feasible.nearest({"nobody": 1})
    with pytest.raises(WeightError, match="unknown adapter 'nobody'"):
        feasible.most("nobody")
    with pytest.raises(ValueError, match="a point of this set has 6 millionths, not 2"):
        feasible.contains([0, 0])
    with pytest.raises(TypeError, match="a point is exact millionths"):
        feasible.contains([0.5] * 6)  # type: ignore[list-item]
    assert feasible.contains([Fraction(1, 2)] * 6)
    assert not feasible.contains([Fraction(-1, 2)] * 6)
    assert feasible.contains({"friendly": "0.5"})


def test_what_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    feasible = load(*CROSSING).feasible()
    monkeypatch.setattr("soupmix.policy.feasible._SECONDS", -1.0)
    with pytest.raises(PolicyRefusal) as caught:
        feasible.nearest(dict.fromkeys(NAMES, 1))
    assert caught.value.reason == "too-slow"


@pytest.mark.parametrize(
    "door",
    [
        FeasibleSet.bounds,
        lambda feasible: feasible.most("expert"),
        FeasibleSet.vertices,
        lambda feasible: feasible.sample(3, 0),
    ],
)
def test_every_question_has_a_time_budget(
    monkeypatch: pytest.MonkeyPatch, door: Callable[[FeasibleSet], object]
) -> None:
    feasible = norm_policy(measured(0), 0.01).feasible()
    monkeypatch.setattr("soupmix.policy.feasible._SECONDS", -1.0)
    with pytest.raises(PolicyRefusal) as caught:
        door(feasible)
    assert caught.value.reason == "too-slow"


def test_it_ends_with_its_documents() -> None:
    content = {"tier": "law", "issuer": "A", "version": "1", "rules": [], "valid": {"until": "2026-11-24"}}
    clock = [datetime(2026, 11, 24, 12, tzinfo=UTC)]
    document = parse_document(json.dumps(content), "law.yaml")
    policy = Policy.assemble([("law.yaml", document)], SHELF, now=lambda: clock[0])
    assert policy.feasible().contains({})
    clock[0] += timedelta(days=1)
    with pytest.raises(PolicyRefusal, match=r"law\.yaml, which this policy rests on, ended"):
        policy.feasible()


def test_it_shows_what_it_is() -> None:
    policy, either = load(), load({"rule": "exclusive", "dimension": "style"})
    assert repr(policy.feasible()) == f"<FeasibleSet of 6 adapters, convex, under {policy.digest[:19]}...>"
    assert "a union of 2 convex parts" in repr(either.feasible())
    assert isinstance(policy.feasible(), FeasibleSet)


def test_combinations_are_parts() -> None:
    """Each alone, or two together up to 0.7."""
    policy = load(
        {"rule": "combinations", "allow": [together("friendly", "concise", at_most="0.7"), together("expert")]}
    )
    found = {tuple(zip(SORTED, vertex, strict=True)) for vertex in policy.feasible().vertices()}
    shown = {tuple((name, value) for name, value in vertex if value) for vertex in found}
    assert shown == {(), (("concise", 700_000),), (("friendly", 700_000),), (("expert", 1_000_000),)}


@SETTINGS
@given(st.lists(documents(), max_size=1), st.lists(asked, min_size=2, max_size=2), statements)
def test_mixtures_of_points_of_a_convex_set_are_inside(
    contents: list[dict[str, Any]], want: list[dict[str, str]], said: dict[str, str]
) -> None:
    feasible = consistent_policy(contents).feasible(**said)
    assume("union" not in repr(feasible))
    one, other = (micro(feasible.nearest(each)) for each in want)
    assert feasible.contains([Fraction(a + 2 * b, 3) for a, b in zip(one, other, strict=True)])


def test_weights_are_taken_as_by_a_clamp() -> None:
    feasible = load(FLOOR).feasible()
    asked = {name: decimal_text(100_000) for name in NAMES}
    assert feasible.nearest(asked) == feasible.nearest(Weights(asked)) == Weights(asked)
