"""Corners of the policy: norms of 0 and norms far apart, comparisons that stay open, what is kept."""

import json
from typing import Any

import numpy as np
import pytest

from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.policy import Policy, parse_document
from soupmix.policy import policy as policy_module
from soupmix.policy.compare import difference
from soupmix.policy.recorded import read_record
from soupmix.projection import norm
from tests.support.policies import NOW, Measured, document, measured, norm_policy, together
from tests.support.shelf import NAMES, SHELF, digest_of

# --- bounds on a norm


def test_a_norm_of_nothing_grants_nothing() -> None:
    grant = norm_policy(measured(3), 0.0).clamp("friendly=0.5,expert=0.3")
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
    grant = norm_policy(opposed("friendly", "concise"), 0.0).clamp("friendly=0.5,concise=0.3,expert=0.4")
    assert grant.granted.decimals() == {"concise": "0.4", "expert": "0.4", "friendly": "0.4"}


@pytest.mark.parametrize("metric", ["weights", "delta"])
@pytest.mark.parametrize("small", [1e-200, 1e-30, 1e-6])
def test_norms_far_apart_are_no_hindrance(small: float, metric: str) -> None:
    shelf = Measured(SHELF)
    shelf.gram = np.diag([small if name in ("expert", "elementary") else 1 / small for name in NAMES])
    grant = norm_policy(shelf, 0.001, metric).clamp("friendly=1.5,expert=0.3")
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
        made = norm_policy(measured(seed), 0.004 + 0.002 * seed)
        counts.append(0)
        made.clamp({name: (seed * 7 + index * 3) % 10 / 10 for index, name in enumerate(NAMES)})
    assert sum(counts) <= 330


def test_a_search_that_is_cut_short_grants_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = norm_policy(measured(3), 0.01)
    monkeypatch.setattr(norm, "_STEPS", 0)
    with pytest.raises(PolicyRefusal) as caught:
        made.clamp("elementary=1,friendly=1,concise=0.4")
    assert caught.value.reason == "uncertified"


@pytest.mark.parametrize(
    ("one", "other"), [("friendly", "concise"), ("friendly", "informative"), ("concise", "expert")]
)
def test_a_point_beyond_a_norm_is_found_where_all_weights_together_have_none(one: str, other: str) -> None:
    tight, none = (norm_policy(opposed(one, other), share) for share in (0.002, None))
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
    (found,) = difference(*(norm_policy(shelf, share, "weights", free, half) for share in (0.012, None))).widenings
    assert found.weights.decimals() == {"concise": "0.75", "friendly": "0.75"}


def test_what_is_not_proved_is_said() -> None:
    """The box reaches a norm of 2 at most by its corners, really only 1: 1.5 lies between."""
    loose, none = (norm_policy(opposed("friendly", "concise"), share) for share in (0.015, None))
    found = difference(loose, none)
    assert not found.contained
    assert not found.widenings
    assert "does not prove that there is none" in found.undecided[0]
    vast = norm_policy(opposed("friendly", "concise"), 0.03)
    assert difference(vast, none).contained


def test_an_empty_rest_inside_a_norm_is_contained() -> None:
    """The new policy lets `expert` pass 0.5 only where its own norm forbids it."""
    shelf = measured(2)
    reach = float(np.sqrt(shelf.gram[NAMES.index("expert"), NAMES.index("expert")])) / shelf.base_norm
    cap = {"rule": "bounds", "adapter": "expert", "at_most": "0.5"}
    others = [{"rule": "deny", "adapter": name} for name in NAMES if name != "expert"]
    old, new = norm_policy(shelf, None, "weights", cap, *others), norm_policy(shelf, 0.4 * reach, "weights", *others)
    assert difference(old, new).contained
    assert not difference(old, norm_policy(shelf, 0.6 * reach, "weights", *others)).contained


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
    monkeypatch.setattr(policy_module, "_REMEMBERED", 3)
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


@pytest.mark.parametrize("metric", ["weights", "delta"])
@pytest.mark.parametrize(
    "rules",
    [
        [],
        [{"rule": "combinations", "allow": [together("concise", "friendly", at_most="0.5")]}],
        [{"rule": "combinations", "allow": [together("concise", at_most="0.5"), together("friendly", at_most="0.2")]}],
        [{"rule": "combinations", "allow": [together("friendly", at_most="0.5")]}, {"rule": "norm", "at_most": "0.1"}],
        [{"rule": "norm", "at_most": "0"}],
    ],
)
def test_a_policy_without_any_adapter_grants_nothing_and_can_be_asked(rules: list[dict[str, Any]], metric: Any) -> None:
    nobody = Measured([])
    policy = Policy.assemble(
        [("x.yaml", parse_document(json.dumps(document(*rules)), "x.yaml"))], nobody, now=NOW, metric=metric
    )
    assert policy.clamp({}).granted == {}
    feasible = policy.feasible()
    assert feasible.bounds() == {}
    assert feasible.vertices() == ((),)
    assert feasible.sample(2, 0) == ({}, {})
