"""What a clamp costs is bounded: counted when a policy is loaded, cut off while it is computed, and faces that are farther are
left out without changing an answer.
"""

import json
import random
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.policy import Policy, kinds, parse_document
from soupmix.policy import policy as policy_module
from soupmix.projection import nearest, rounding
from soupmix.projection.active_set import least, project
from soupmix.projection.certificate import certified
from soupmix.projection.faces import Face
from soupmix.projection.quadratic import Quadratic
from tests.support.claims import region_of
from tests.support.draw import Draw
from tests.support.shelf import NAMES, SHELF, Ref, Shelf, digest_of

REPORT = {"evidence": {"report": digest_of("r"), "until": "2099-01-01"}}


def load(*rules: dict[str, Any], shelf: Shelf = SHELF) -> Policy:
    content = {"tier": "law", "issuer": "x", "version": "1", "rules": list(rules)}
    return Policy.assemble([("law.yaml", parse_document(json.dumps(content), "law.yaml"))], shelf)


def shelf_of(count: int) -> Shelf:
    return Shelf(Ref(f"a{n:02}", f"d{n}", f"p{n}", digest_of(f"a{n}")) for n in range(count))


def crowd(combinations: int, groups: int, names: list[str], seed: int = 0, **scope: Any) -> list[dict[str, Any]]:
    """Combinations of four, and groups of three that overlap."""
    draw = random.Random(seed)
    allow = [{"adapters": draw.sample(names, 4), **REPORT} for _ in range(combinations)]
    limits = [
        {"rule": "group", "adapters": draw.sample(names, 3), "at_most": f"0.{draw.randint(3, 9)}"}
        for _ in range(groups)
    ]
    return [{"rule": "combinations", "id": "together", "allow": allow, **scope}, *limits]


def test_a_policy_that_takes_seconds_a_request_is_not_loaded() -> None:
    """500 combinations x 60 groups took 10 to 20 seconds a request."""
    shelf, began = shelf_of(24), time.process_time()
    with pytest.raises(PolicyError, match=r"law\.yaml \(law\) together there are 487 sets of adapters") as caught:
        load(*crowd(500, 60, [ref.name for ref in shelf]), shelf=shelf)
    assert caught.value.reason == "too-costly"
    told = str(caught.value)
    assert "each under 83 bounds" in told
    assert "rules[10]" in told
    assert "57 more" in told
    assert "would cost 40421, and at most 20000 is allowed; list fewer" in told
    assert time.process_time() - began < 5


def test_only_bounds_that_overlap_are_blamed() -> None:
    shelf = shelf_of(24)
    alone = {"rule": "bounds", "adapter": "a00", "at_most": "0.9", "id": "alone"}
    with pytest.raises(PolicyError, match=r"law\.yaml \(law\) rules\[") as caught:
        load(alone, *crowd(500, 60, [ref.name for ref in shelf]), shelf=shelf)
    assert "alone" not in str(caught.value)


def test_what_is_loaded_is_answered_in_time() -> None:
    """As much as is let through, and requests that are outside of every face alike."""
    shelf = shelf_of(16)
    names = [ref.name for ref in shelf]
    policy = load(*crowd(300, 50, names), shelf=shelf)
    for weights in (dict.fromkeys(names, 1), {name: f"0.{31 * n % 97:02}" for n, name in enumerate(names)}):
        began = time.process_time()
        policy.clamp(weights)
        assert time.process_time() - began < 4


def test_what_a_scope_hides_is_counted_too() -> None:
    """Everybody may mix nothing, but for adults there are too many combinations: the smallest set of all is cheap."""
    shelf = shelf_of(24)
    names = [ref.name for ref in shelf]
    rules = [{"rule": "combinations", "allow": [], "scope": {"audience": ["minor"]}}, *crowd(500, 60, names)]
    with pytest.raises(PolicyError) as caught:
        load(*rules, shelf=shelf)
    assert caught.value.reason == "too-costly"


def test_a_kind_that_was_not_counted_is_refused_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_TRIED", 1)
    shelf = shelf_of(24)
    names = [ref.name for ref in shelf]
    rules = [{"rule": "combinations", "allow": [], "scope": {"audience": ["minor"]}}, *crowd(500, 60, names)]
    policy = load(*rules, shelf=shelf)
    assert policy.clamp({}).granted == {}
    with pytest.raises(PolicyRefusal) as caught:
        policy.clamp({}, audience="adult")
    assert caught.value.reason == "too-costly"


def test_choices_that_multiply_are_refused_before_they_do() -> None:
    shelf, began = shelf_of(24), time.process_time()
    names = [ref.name for ref in shelf]
    rules = [crowd(500, 0, names, seed)[0] | {"id": f"c{seed}"} for seed in range(4)]
    with pytest.raises(PolicyError, match=r"law\.yaml \(law\) c0, .* and 1 more there are 243500 ways") as caught:
        load(*rules, shelf=shelf)
    assert caught.value.reason == "too-many-combinations"
    assert time.process_time() - began < 5


OVERLAPPING = [{"rule": "group", "adapters": NAMES[n : n + 3], "at_most": "0.5"} for n in range(4)]
SLOW: dict[str, list[dict[str, Any]]] = {
    "faces": [{"rule": "exclusive", "dimension": "length"}],
    "overlapping groups": OVERLAPPING,
}


@pytest.mark.parametrize("rules", SLOW.values(), ids=SLOW)
def test_a_clamp_that_takes_too_long_is_refused_and_not_remembered(
    rules: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, asked = load(*rules), dict.fromkeys(NAMES, "0.7")
    with monkeypatch.context() as patched:
        patched.setattr(policy_module, "_SECONDS", -1.0)
        with pytest.raises(PolicyRefusal, match="could not be applied to these weights within") as caught:
            policy.clamp(asked)
        assert caught.value.reason == "too-slow"
    assert policy.clamp(asked).granted


def test_rounding_that_explodes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "_MOST_STATES", 2)
    with pytest.raises(PolicyRefusal) as caught:
        load(*OVERLAPPING).clamp(dict.fromkeys(NAMES, "0.7777"))
    assert caught.value.reason == "too-slow"


def plainly(policy: Policy, asked: tuple[int, ...]) -> Callable[..., Any]:
    """The nearest face by projecting onto every one, as it was before any was left out."""

    def search(faces: tuple[Face, ...], requested: Any, metric: Any) -> Any:
        found = [(face.project(requested, metric), face) for face in faces]
        assert all(s is not None and certified(requested, f.rows, s, metric, f.ball) for s, f in found)
        return min(found, key=lambda each: nearest._ahead(requested, each[0], metric))

    return search


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.data())
def test_leaving_faces_out_changes_nothing(seed: int, data: st.DataObject) -> None:
    """The same point of the same face with the same multipliers, also where faces tie: weights come from few numbers."""
    draw = Draw(seed)
    try:
        policy = load(
            *[rule for document in draw.documents() for rule in document["rules"] if rule["rule"] != "approve"]
        )
    except PolicyError:
        return
    region = region_of(policy)
    numbers = st.sampled_from([-200_000, 0, 300_000, 300_000, 500_000, 1_000_000, 1_400_000])
    for _ in range(4):
        asked = tuple(data.draw(numbers) for _ in NAMES)
        solution, face = nearest.nearest(region.faces, asked, None)
        expected, same = plainly(policy, asked)(region.faces, asked, None)
        assert (solution, region.faces.index(face)) == (expected, region.faces.index(same))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(-(10**6), 2 * 10**6), min_size=6, max_size=6))
def test_the_bound_is_below_the_distance(seed: int, asked: list[int]) -> None:
    """Below it always, or a face could be left out that is nearest; and near it, or none would be left out."""
    draw = random.Random(seed)
    rules = [
        {"rule": "group", "adapters": draw.sample(NAMES, 3), "at_most": f"0.{draw.randint(1, 9)}"} for _ in range(4)
    ]
    (face,) = region_of(load(*rules)).faces
    found = project(asked, face.rows)
    assert found is not None
    distance = sum((Fraction(want) - got) ** 2 for want, got in zip(asked, found.weights, strict=True))
    bound = least(Quadratic.distance(asked, None), face.rows)
    assert bound <= distance
    assert distance - bound <= max(1, distance * Fraction(1, 10**6))
    assert nearest._outside(face.rows, asked) <= distance


def test_where_floats_find_nothing_no_face_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soupmix.projection.dual.active_in_floats", lambda target, sides: None)
    (face,) = region_of(load(*OVERLAPPING)).faces
    assert least(Quadratic.distance([10**7] * len(NAMES), None), face.rows) == 0
