"""What the objects of a policy look like at a prompt: one useful line."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from soupmix.errors import PolicyError, RecipeError, WeightError
from soupmix.policy import Policy, parse_document
from soupmix.weights import Weights
from tests.support.policies import load, measured, norm_policy
from tests.support.shelf import SHELF, digest_of

CAP = {"rule": "bounds", "adapter": "friendly", "at_most": "0.5", "id": "cap"}


def test_one_line_each() -> None:
    policy = load(CAP)
    (rule,) = policy.rules
    grant = policy.clamp("friendly=1")
    (binding,) = grant.binding
    assert policy.metric == "weights"
    assert repr(policy) == f"<Policy of x.yaml for 6 adapters, {policy.digest[:19]}...>"
    assert repr(Policy.open(SHELF)).startswith("<Policy of no documents for 6 adapters, sha256:")
    assert repr(rule) == "<ScopedRule x.yaml (organisation) cap>"
    assert repr(rule.ref) == "<RuleRef x.yaml (organisation) cap>"
    assert repr(binding) == "<Binding of friendly: x.yaml (organisation): at most 0.5>"
    assert repr(policy.clamp("friendly=0.5")) == f"<Grant of friendly=0.5, under {policy.digest[:19]}...>"
    assert repr(grant) == f"<Grant of friendly=0.5 for friendly=1, under {policy.digest[:19]}...>"


def test_many_documents_are_cut_short() -> None:
    content = json.dumps({"tier": "organisation", "issuer": "A", "version": "1", "rules": [CAP]})
    documents = [
        (name, parse_document(content, name)) for name in (f"document-{number:02}.yaml" for number in range(9))
    ]
    said = repr(Policy.assemble(documents, SHELF))
    assert "document-03.yaml, ... for 6 adapters" in said or "document-03.yaml ... for 6 adapters" in said
    assert len(said) < 150


def test_what_a_merge_identity_is_made_of() -> None:
    grant = load(CAP).clamp("friendly=1,concise=0.25")
    assert grant.weighted == ((digest_of("concise"), 250_000), (digest_of("friendly"), 500_000))


def test_rules_hold_for_those_in_their_scope() -> None:
    scoped, plain = load({**CAP, "scope": {"audience": ["minor"]}}, {**CAP, "id": "all"}).rules
    assert [scoped.applies(said) for said in ({}, {"audience": "minor"}, {"audience": "adult"})] == [True, True, False]
    assert plain.applies({"audience": "adult"})


def test_a_request_is_checked_without_granting_anything() -> None:
    policy = load({**CAP, "mode": "refuse"})
    policy.check(Weights("friendly=1"), sources={"friendly": "stored"}, audience="minor")
    with pytest.raises(WeightError, match="unknown adapter 'nobody'"):
        policy.check(Weights("nobody=1"))
    with pytest.raises(WeightError, match="unknown adapter 'nobody'"):
        policy.check(Weights("friendly=1"), sources={"nobody": "stored"})
    with pytest.raises(RecipeError, match="unknown source 'guessed'"):
        policy.check(Weights("friendly=1"), sources="guessed")
    with pytest.raises(RecipeError, match="unknown attribute 'age'"):
        policy.check(Weights("friendly=1"), age="9")


@pytest.mark.parametrize(
    "asked", ["friendly=1", {"friendly": 1}, {"friendly": float("nan")}, "friendly", "nobody=1", 3]
)
def test_a_check_takes_and_refuses_what_a_clamp_does(asked: Any) -> None:
    def outcome(door: Callable[[Any], object]) -> tuple[type, str] | None:
        try:
            door(asked)
        except (WeightError, TypeError) as error:
            return type(error), str(error)
        return None

    policy = load(CAP)
    assert outcome(policy.check) == outcome(policy.clamp)


@pytest.mark.parametrize("metric", ["foo", "", None, "Delta"])
def test_a_metric_that_does_not_exist_is_refused(metric: Any) -> None:
    for door in (lambda: Policy.open(SHELF, metric=metric), lambda: norm_policy(measured(0), 0.1, metric)):
        with pytest.raises(PolicyError, match="known are weights, delta") as caught:
            door()
        assert caught.value.reason == "metric"
