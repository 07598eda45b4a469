"""Weights for targets: as good as a search through everything, inside every policy, and plain about what cannot be had."""

import importlib
import itertools
from pathlib import Path

import numpy as np
import pytest

from soupmix.errors import EvaluationError, PolicyRefusal, RecipeError, WeightError
from soupmix.policy import Policy
from soupmix.projection import Region
from soupmix.projection.time_budget import check_time
from soupmix.surface import Surface, ask
from soupmix.weights import Weights
from tests.support.planted_soups import DIMENSIONS, ENTRIES, document, entry, rule


@pytest.fixture(scope="module")
def surface() -> Surface:
    return Surface.of(document(noise=0.2), ENTRIES)


@pytest.fixture(scope="module")
def free() -> Policy:
    return Policy.open(ENTRIES)


def _policy(tmp_path: Path, *rules: str) -> Policy:
    path = tmp_path / "house.yaml"
    said = "".join(f"  - {{{each}}}\n" for each in rules)
    path.write_text(f"tier: organisation\nissuer: House\nversion: 1\nrules:\n{said}", "utf-8")
    return Policy.load(path, adapters=ENTRIES)


TARGETS = [
    {"grade": 7.0},
    {"grade": 7.0, "words": 60.0},
    {"grade": 13.0, "words": 120.0, "warmth": 2.0},
    {"grade": 8.0, "words": 20.0, "warmth": 6.0},
    {"grade": -5.0, "words": 1000.0},
]


@pytest.mark.parametrize("targets", TARGETS, ids=str)
def test_no_soup_on_a_grid_is_better(targets: dict[str, float], surface: Surface, free: Policy) -> None:
    """All soups of tenths with at most one pole a dimension: their expected squared error, in spans, worked out here."""
    names = sorted(DIMENSIONS)
    grid = np.array(list(itertools.product(np.arange(0, 1.05, 0.1), repeat=5)))
    of = {name: grid[:, k] for k, name in enumerate(names)}
    inside = (of["easy"] * of["hard"] == 0) & (of["long"] * of["short"] == 0) & surface.measured(grid)
    asked = {DIMENSIONS[name] for name in names} & {surface.document.measures[m].dimension for m in targets}
    for name in names:
        if DIMENSIONS[name] not in asked:
            inside &= of[name] == 0
    grid = grid[inside]

    def error(points: np.ndarray) -> np.ndarray:
        total = np.zeros(len(points))
        for name, value in targets.items():
            measure = surface.document.measures[name]
            goal = np.log(value) if measure.scale == "log" else value
            total += ((surface.mean(name, points) - goal) ** 2 + surface.variance(name, points)) / measure.span**2
        return total

    found = ask(surface, free, targets)
    reached = error(surface.point(found.weights)[None])[0]
    assert reached <= error(grid).min() + 2e-3  # of squared spans: what gentleness and hundredths may cost
    assert len({DIMENSIONS[name] for name in found.weights}) == len(found.weights)
    assert set(found.weights) <= {name for name in names if DIMENSIONS[name] in asked}


def test_a_search_asks_the_policy_about_so_many_points_and_says_so(
    surface: Surface, free: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("soupmix.surface.ask")
    asked: list[object] = []
    nearest = module._Search._nearest

    def counted(search: object, free: object) -> object:
        asked.append(free)
        return nearest(search, free)

    monkeypatch.setattr(module._Search, "_nearest", counted)
    targets = {"grade": 7.0, "words": 60.0}
    whole = ask(surface, free, targets)
    starts, rounded = 2 * module._POINTS, 1 + 2 * len(targets)
    assert len(asked) <= starts + rounded + module._MOST_MOVES
    assert whole.notes == ()
    for most in (0, 40):
        monkeypatch.setattr(module, "_MOST_MOVES", most)
        before = len(asked)
        found = ask(surface, free, targets)
        assert len(asked) - before <= starts + rounded + most
        assert (
            found.notes[-1] == f"the search was ended after {most} points: better weights, or farther ends, may exist"
        )
        assert free.feasible().contains(found.weights)


def test_a_policy_that_takes_for_ever_is_refused(
    surface: Surface, free: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("soupmix.surface.ask"), "_SECONDS", -1.0)
    monkeypatch.setattr(Region, "project", lambda region, wanted: check_time())
    with pytest.raises(PolicyRefusal) as caught:
        ask(surface, free, {"grade": 7.0})
    assert caught.value.reason == "too-slow"


def test_what_can_be_reached_is_reached_in_truth(surface: Surface, free: Policy) -> None:
    found = ask(surface, free, {"grade": 7, "words": 60, "warmth": 3})
    assert all(each.reached for each in found.targets.values())
    assert found.notes == ()
    truth = rule(found.weights.floats())
    for name, each in found.targets.items():
        expected = each.expected
        assert expected.low <= each.asked <= expected.high
        assert expected.low <= truth[name] <= expected.high
        assert each.least <= expected.value <= each.most
    assert found.surface == surface.document.digest
    assert all(micro % 10_000 == 0 for micro in found.weights.values())
    assert ask(surface, free, {"words": 60, "warmth": 3, "grade": 7}).weights == found.weights


def test_the_bare_base_is_the_answer_to_what_the_base_does(surface: Surface, free: Policy) -> None:
    base = surface.expect(Weights())
    found = ask(surface, free, {name: base[name].value for name in base})
    assert found.weights.nonzero() == Weights()


def test_what_cannot_be_reached_is_said_with_the_nearest_that_can(surface: Surface, free: Policy) -> None:
    found = ask(surface, free, {"words": 5})
    assert found.weights == Weights("short=1")
    (words,) = found.targets.values()
    assert not words.reached
    assert words.least == pytest.approx(words.expected.value, rel=0.01) == pytest.approx(20, rel=0.2)
    assert words.most == pytest.approx(148, rel=0.2)
    assert found.notes == (
        f"words = 5 cannot be reached: inside this policy it goes from {words.least:.3g} to {words.most:.3g}; "
        f"the nearest is {words.expected.value:.3g}",
    )
    both = ask(surface, free, {"words": 25, "warmth": 5})  # `short` takes half of the warmth
    assert any("together with the rest of what is asked" in note for note in both.notes)


def test_the_answer_is_inside_the_policy_as_it_is(surface: Surface, tmp_path: Path) -> None:
    policy = _policy(tmp_path, "rule: bounds, adapter: short, at_most: 0.3", "rule: budget, at_most: 0.5")
    found = ask(surface, policy, {"grade": 6.5, "words": 20})
    assert policy.feasible().contains(found.weights)
    assert found.grant.granted == found.weights == found.grant.requested
    assert not found.grant.clamped
    assert not found.targets["words"].reached
    alone = surface.expect(Weights("short=0.3"))["words"].value
    assert found.targets["words"].least == pytest.approx(alone, rel=0.01)


def test_what_a_rule_denies_or_refuses_is_not_used(surface: Surface, tmp_path: Path) -> None:
    for mode in ("clamp", "refuse"):
        policy = _policy(tmp_path, f"rule: deny, adapter: short, mode: {mode}")
        found = ask(surface, policy, {"words": 40, "grade": 7})
        assert "short" not in found.weights
        assert not found.targets["words"].reached
        assert found.targets["grade"].reached
    found = ask(surface, _policy(tmp_path, "rule: deny, dimension: length"), {"words": 40})
    assert found.weights.nonzero() == Weights()
    assert any("lets no adapter of 'length' through" in note for note in found.notes)


def test_where_only_some_combinations_are_approved_one_of_them_is_found(surface: Surface, tmp_path: Path) -> None:
    said = ", ".join(
        f'{{adapters: [{names}], evidence: {{report: "sha256:{"0" * 64}", until: 2100-01-01}}}}'
        for names in ("easy, warm", "short, warm")
    )
    policy = _policy(tmp_path, f"rule: combinations, allow: [{said}]", "rule: require, adapter: warm, at_least: 0.2")
    found = ask(surface, policy, {"grade": 7, "words": 30})
    assert policy.feasible().contains(found.weights)
    assert len({"easy", "short"} & set(found.weights)) == 1
    assert found.weights["warm"] >= 200_000


def test_opposite_poles_are_together_only_if_the_policy_requires_it(surface: Surface, tmp_path: Path) -> None:
    policy = _policy(tmp_path, "rule: require, adapter: hard, at_least: 0.1")
    found = ask(surface, policy, {"grade": 8})
    assert found.weights["hard"] == 100_000
    assert found.targets["grade"].reached  # by as much more of `easy`


def test_weights_beside_stay_and_are_reckoned_with(surface: Surface, free: Policy) -> None:
    alone, beside = ask(surface, free, {"grade": 8}), ask(surface, free, {"grade": 8}, beside=Weights("warm=1"))
    assert beside.weights["warm"] == 1_000_000
    assert beside.weights["easy"] < alone.weights["easy"]  # warmth makes it easier by itself
    with pytest.raises(RecipeError, match="say one") as caught:
        ask(surface, free, {"grade": 8}, beside=Weights("hard=0.1"))
    assert caught.value.reason == "two-ways"
    with pytest.raises(WeightError) as refused:
        ask(surface, free, {"grade": 8}, beside=Weights("nobody=0.1"))
    assert refused.value.reason == "unknown-adapter"


@pytest.mark.parametrize(
    ("targets", "reason", "said"),
    [
        ({}, "no-targets", "ask for grade, warmth, words"),
        ({"tone": 3.0}, "unknown-measure", "no measure 'tone'; it has grade, warmth, words"),
        ({"grade": float("nan")}, "bad-target", "grade = 'nan'"),
        ({"grade": float("inf")}, "bad-target", "a number"),
        ({"grade": True}, "bad-target", "a number"),
        ({"grade": None}, "bad-target", "a number"),
        ({"grade": "7"}, "bad-target", "a number"),
        ({"words": 0}, "bad-target", "a positive number"),
        ({"words": -3}, "bad-target", "a positive number"),
        ({"grade": 10**400}, "bad-target", "a number"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(
    targets: dict[str, float], reason: str, said: str, surface: Surface, free: Policy
) -> None:
    with pytest.raises(RecipeError) as caught:
        ask(surface, free, targets)
    assert caught.value.reason == reason
    assert said in str(caught.value)
    assert len(str(caught.value)) < 200


def test_adapters_that_nobody_measured_get_no_weight_and_cannot_be_required(surface: Surface, tmp_path: Path) -> None:
    entries = [*ENTRIES, entry("new", "tone")]
    more = Surface.of(surface.document, entries)
    found = ask(more, Policy.open(entries), {"warmth": 3})
    assert list(found.weights.nonzero()) == ["warm"]
    assert found.notes == ("no soup with new was measured: no weight for that",)
    with pytest.raises(EvaluationError) as caught:
        ask(more, Policy.open(entries), {"grade": 8}, beside=Weights("new=0.5"))
    assert caught.value.reason == "other-adapters"


def test_what_the_request_says_of_itself_counts(surface: Surface, tmp_path: Path) -> None:
    policy = _policy(tmp_path, "rule: bounds, adapter: hard, at_most: 0, scope: {audience: [minor]}")
    adult = ask(surface, policy, {"grade": 14}, attributes={"audience": "adult"})
    assert adult.targets["grade"].reached
    assert not ask(surface, policy, {"grade": 14}).targets["grade"].reached
    with pytest.raises(RecipeError):
        ask(surface, policy, {"grade": 14}, attributes={"height": "tall"})
    with pytest.raises(RecipeError):
        ask(surface, policy, {"grade": 14}, sources="dreams")
