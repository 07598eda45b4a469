"""The specification and the compiled sets say the same of every point, also where random policies of other tests do not go."""

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soupmix.errors import PolicyError
from soupmix.policy import Policy, parse_document
from soupmix.policy.spec import is_feasible
from soupmix.weights import Weights
from tests.support.policies import NOW, measured, together
from tests.support.shelf import NAMES, SHELF, TODAY, Shelf, digest_of

near = st.sampled_from([0, 0, 0, 1, 100_000, 300_000, 300_001, 1_000_000, -1]) | st.integers(0, 700_000)
points = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, near))


@dataclass(frozen=True)
class Bare:
    """An adapter of whose labels the store may say nothing."""

    name: str
    dimension: str | None = None
    pole: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        return digest_of(self.name)


def policy_of(content: dict[str, Any], store: Any) -> Policy:
    return Policy.assemble([("x.yaml", parse_document(json.dumps(content), "x.yaml"))], store, now=NOW)


def document(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tier": "organisation", "issuer": "A", "version": "1", "rules": list(rules), **more}


def same(content: dict[str, Any], store: Any, point: dict[str, int]) -> bool:
    """What both say."""
    compiled = policy_of(content, store).feasible().contains(Weights.from_micro(point))
    assert compiled == is_feasible(point, [content], store, today=TODAY)
    return compiled


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 50), st.sampled_from(["0", "0.002", "0.01", "0.03"]), points)
def test_norms(seed: int, share: str, point: dict[str, int]) -> None:
    same(document({"rule": "norm", "at_most": share}), measured(seed), point)


labels = st.fixed_dictionaries(
    {},
    optional={
        "dimension": st.sampled_from(["style", "length"]),
        "pole": st.sampled_from(["friendly", "concise"]),
        "tags": st.lists(st.sampled_from(["rude", "new"]), max_size=2),
        "evidence": st.sampled_from(["2026-11-23", "2026-11-24"]).map(
            lambda day: {"report": digest_of("r"), "until": day}
        ),
    },
)
approved = st.dictionaries(st.sampled_from(["friendly", "concise", "elsewhere"]), labels, min_size=1).map(
    lambda listed: {
        "rule": "approve",
        "adapters": [{"name": name, "digest": digest_of(name), **each} for name, each in listed.items()],
    }
)
bare = st.builds(
    Bare,
    st.sampled_from(["friendly", "concise"]),
    st.sampled_from([None, "style", "length"]),
    st.sampled_from([None, "friendly"]),
    st.sampled_from([(), ("rude",)]),
)
stores = st.lists(bare, max_size=2, unique_by=lambda each: each.name)
about_labels = st.sampled_from(
    [
        {"rule": "deny", "tag": "rude"},
        {"rule": "bounds", "dimension": "style", "at_most": "0.3"},
        {"rule": "exclusive", "dimension": "style"},
        {"rule": "group", "dimension": "length", "at_most": "0.3"},
        {"rule": "deny", "pole": "friendly"},
        {"rule": "evidence", "tag": "new"},
        {"rule": "evidence"},
    ]
)
few = st.fixed_dictionaries({}, optional=dict.fromkeys(["friendly", "concise", "elsewhere"], near))


@settings(max_examples=300, deadline=None)
@given(st.lists(approved, min_size=1, max_size=2), stores, about_labels, few)
def test_labels_come_from_the_store_and_then_from_approvals(
    approvals: list[dict[str, Any]], store: list[Bare], rule: dict[str, Any], point: dict[str, int]
) -> None:
    scoped = [{**each, "scope": {"tenant": [f"t{index}"]}} for index, each in enumerate(approvals)]
    known = {each.name for each in store} | {each["name"] for one in approvals for each in one["adapters"]}
    same(document(*scoped, rule), store, {name: micro for name, micro in point.items() if name in known})


@pytest.mark.parametrize(
    ("rule", "point", "right"),
    [
        ({"rule": "bounds", "adapter": "nobody", "at_most": "0"}, {"friendly": 1}, True),
        ({"rule": "group", "adapters": ["nobody", "friendly"], "at_most": "0.3"}, {"friendly": 300_001}, False),
        ({"rule": "exclusive", "adapters": ["nobody", "friendly"]}, {"friendly": 1, "concise": 1}, True),
        ({"rule": "budget", "at_most": "0.000001"}, {"friendly": 1, "concise": 1}, False),
        ({"rule": "fix", "weights": {"friendly": "0.3"}}, {"friendly": 300_000}, True),
        ({"rule": "fix", "weights": {"friendly": "0.3"}}, {"friendly": 300_000, "concise": 1}, False),
        ({"rule": "combinations", "allow": [together("friendly", at_most="0.2")]}, {"friendly": 200_001}, False),
        ({"rule": "combinations", "allow": [together("friendly", until="2026-11-23")]}, {"friendly": 1}, False),
        ({"rule": "combinations", "allow": []}, {}, True),
        ({"rule": "source", "allow": ["explicit"]}, {"friendly": 1}, False),
    ],
)
def test_rules_by_hand(rule: dict[str, Any], point: dict[str, int], right: bool) -> None:
    assert same(document(rule), SHELF, point) == right


@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "bounds", "adapter": "nobody", "at_least": "0.1"},
        {"rule": "group", "adapters": ["nobody"], "at_least": "0.1"},
        {"rule": "fix", "weights": {"nobody": "0.1"}},
        {"rule": "combinations", "allow": [together("friendly", at_most="-0.1")]},
    ],
)
def test_what_nothing_satisfies_is_a_conflict(rule: dict[str, Any]) -> None:
    assert not is_feasible({}, [document(rule)], SHELF, today=TODAY)
    with pytest.raises(PolicyError) as caught:
        policy_of(document(rule), SHELF)
    assert caught.value.reason == "conflict"


def test_scopes_and_sources_are_those_of_the_request() -> None:
    minors = document({"rule": "deny", "adapter": "friendly"}, scope={"audience": ["minor", "teen"]})
    spoken = document({"rule": "source", "allow": ["explicit"]})
    for said, right in (
        ({}, False),
        ({"audience": "teen"}, False),
        ({"audience": "adult"}, True),
        ({"tenant": "a"}, False),
    ):
        assert is_feasible({"friendly": 1}, [minors], SHELF, today=TODAY, attributes=said) == right
    for source, right in (("explicit", True), ("stored", False)):
        assert is_feasible({"friendly": 1}, [spoken], SHELF, today=TODAY, sources={"friendly": source}) == right


def test_an_adapter_of_another_digest_or_of_no_store_is_zero() -> None:
    rule = {"rule": "approve", "adapters": [{"name": "friendly", "digest": digest_of("another")}]}
    other = {"rule": "approve", "adapters": [{"name": "elsewhere", "digest": digest_of("elsewhere")}]}
    assert not same(document(rule), SHELF, {"friendly": 1})
    assert not same(document(other), SHELF, {"elsewhere": 1})
    assert same(document(other), (), {"elsewhere": 1})
    assert not is_feasible({"nobody": 1}, [], SHELF, today=TODAY)


def test_the_defaults() -> None:
    assert same(document(), SHELF, {"elementary": 1_000_000, "friendly": 500_000})
    assert not same(document(), SHELF, {"elementary": 1_000_000, "friendly": 500_001})
    assert not same(document(), SHELF, {"elementary": 600_000, "expert": 400_001})
    assert not same(document(), Shelf([replace(SHELF[0], tags=())]), {"elementary": 1_000_001})


def test_a_rule_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="there is no rule 'allow'"):
        is_feasible({}, [document({"rule": "allow"})], SHELF, today=TODAY)
