"""Comparing policies: a decision that sampling can never contradict, and a witness that both policies confirm."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soupmix.policy import Policy, parse_document
from soupmix.policy.compare import difference, idle_rules
from soupmix.policy.spec import is_feasible
from tests.support.policies import NOW
from tests.support.shelf import SHELF, TODAY, digest_of
from tests.support.strategies import asked, consistent_policy, documents, statements


def load(*rules: dict[str, Any], scope: dict[str, Any] | None = None) -> Policy:
    content = {"tier": "organisation", "issuer": "A", "version": "1", "rules": list(rules), "scope": scope or {}}
    return Policy.assemble([("x.yaml", parse_document(json.dumps(content), "x.yaml"))], SHELF, now=NOW)


CAP = {"rule": "bounds", "adapter": "friendly", "at_most": "0.5", "id": "cap"}


@settings(max_examples=60, deadline=None)
@given(st.lists(documents(), max_size=1), st.lists(documents(), max_size=1), asked, statements)
def test_the_decision_agrees_with_both_policies(
    before: list[dict[str, Any]], after: list[dict[str, Any]], want: dict[str, str], said: dict[str, str]
) -> None:
    old, new = consistent_policy(before), consistent_policy(after)
    found = difference(old, new)
    for each in found.widenings:
        attributes, sources = dict(each.attributes), each.source or {}
        assert new.clamp(each.weights, sources=sources, **attributes).granted == each.weights.nonzero()
        assert old.clamp(each.weights, sources=sources, **attributes).clamped
    granted = new.clamp(want, **said).granted
    if found.contained:
        assert is_feasible(granted, before, SHELF, today=TODAY, attributes=said)
    elif not is_feasible(granted, before, SHELF, today=TODAY, attributes=said):
        assert found.widenings or found.undecided


@settings(max_examples=60, deadline=None)
@given(st.lists(documents(), max_size=1), documents())
def test_one_more_document_lets_nothing_through(before: list[dict[str, Any]], inner: dict[str, Any]) -> None:
    found = difference(consistent_policy(before), consistent_policy([*before, inner]))
    assert not found.widenings
    assert not any("too many" not in each and "whole point" not in each for each in found.undecided)


def test_a_wider_cap_has_a_witness() -> None:
    found = difference(load(CAP), load({**CAP, "at_most": "0.6"}))
    (each,) = found.widenings
    assert 500_000 < each.weights["friendly"] <= 600_000
    assert difference(load({**CAP, "at_most": "0.6"}), load(CAP)).contained


def test_a_scope_that_shrinks_is_named() -> None:
    minors = {**CAP, "scope": {"audience": ["minor"]}}
    found = difference(load(CAP), load(minors))
    assert [dict(each.attributes) for each in found.widenings] == [{"audience": "any-other-value"}]
    assert difference(load(minors), load(CAP)).contained


def test_combinations_and_sources() -> None:
    def pair(*names: str) -> dict[str, Any]:
        return {"adapters": list(names), "evidence": {"report": digest_of("r"), "until": "2027-01-01"}}

    both = load({"rule": "combinations", "allow": [pair("elementary", "friendly")]})
    each = load({"rule": "combinations", "allow": [pair("elementary"), pair("friendly")]})
    assert difference(both, each).contained
    (found,) = difference(each, both).widenings
    assert set(found.weights) == {"elementary", "friendly"}
    inferred = load({"rule": "source", "allow": ["explicit", "stored", "inferred"]})
    explicit = load({"rule": "source", "allow": ["explicit", "stored"]})
    assert [each.source for each in difference(explicit, inferred).widenings] == ["inferred"]
    assert [each.source for each in difference(inferred, load()).widenings] == [""], "a source must still be said"
    assert difference(load(), inferred).contained
    assert difference(inferred, explicit).contained


def test_another_adapter_of_the_same_name_is_something_new() -> None:
    def approve(digest: str) -> Policy:
        rule = {"rule": "approve", "adapters": [{"name": "friendly", "digest": digest_of(digest)}]}
        content = {"tier": "organisation", "issuer": "A", "version": "1", "rules": [rule]}
        return Policy.assemble([("x.yaml", parse_document(json.dumps(content), "x.yaml"))], (), now=NOW)

    (found,) = difference(approve("one"), approve("two")).widenings
    assert found.digests == (("friendly", digest_of("two")),)
    assert difference(approve("one"), approve("one")).contained


def test_rules_without_effect() -> None:
    loose = {"rule": "bounds", "adapter": "friendly", "at_most": "0.8", "id": "loose"}
    assert [ref.id for ref in idle_rules(load(CAP, loose))] == ["loose"]
    assert idle_rules(load(CAP)) == ()
    elsewhere = {**loose, "at_most": "0.2", "scope": {"audience": ["minor"]}}
    assert idle_rules(load(CAP, elsewhere)) == ()


def test_what_cannot_be_decided_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soupmix.projection.containment._MOST_BRANCHES", 1)
    found = difference(load(CAP), load({**CAP, "at_most": "0.6"}))
    assert not found.contained
    assert not found.widenings
    assert "too many combinations" in found.undecided[0]


def test_combinations_of_other_adapters_are_compared_in_one_space() -> None:
    def made(*names: str) -> Policy:
        approve = {"rule": "approve", "adapters": [{"name": n, "digest": digest_of(n)} for n in names]}
        report = {"report": digest_of("r"), "until": "2027-01-01"}
        together = {"rule": "combinations", "allow": [{"adapters": list(names), "evidence": report}]}
        content = {"tier": "organisation", "issuer": "A", "version": "1", "rules": [approve, together]}
        return Policy.assemble([("x.yaml", parse_document(json.dumps(content), "x.yaml"))], (), now=NOW)

    assert difference(made("expert", "friendly"), made("expert")).contained
    (found,) = difference(made("expert"), made("expert", "friendly")).widenings
    assert "friendly" in found.weights
