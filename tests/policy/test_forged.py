"""A grant is what a policy of this process gave, whole: nothing else passes, and nothing that is changed changes another's."""

import copy
import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.policy import Binding, Grant, Policy
from soupmix.policy.grant import check_grant
from soupmix.policy.recorded import read_record
from soupmix.weights import Weights
from tests.support.draw import Draw
from tests.support.policies import build, document
from tests.support.shelf import SHELF

CAP = {"rule": "bounds", "adapter": "friendly", "at_most": "0.5", "id": "cap"}


def full() -> Grant:
    """A grant with something in each of its fields."""
    policy = build(document(CAP, obligations=[{"oblige": "disclose", "what": "ai"}]))
    return policy.clamp("friendly=0.9,concise=0.2", sources={"friendly": "stored"}, audience="minor", tenant="acme")


def refused(made: object) -> bool:
    with pytest.raises(PolicyError) as caught:
        check_grant(made, "nobody")
    return caught.value.reason == "not-granted"


def changed(name: str, value: object) -> Grant:
    made = full()
    object.__setattr__(made, name, value)
    return made


OTHERS: dict[str, Any] = {
    "requested": Weights("friendly=0.9"),
    "granted": Weights("friendly=0.500001,concise=0.2"),
    "adapter_digests": (("concise", SHELF[0].digest), ("friendly", SHELF[1].digest)),
    "binding": (),
    "policy_digest": "sha256:" + "0" * 64,
    "scope": (("audience", "adult"), ("tenant", "acme")),
    "is_open": True,
    "distance": "0",
    "metric": "delta",
    "sources": (),
    "obligations": (),
    "norm_rule": "law.yaml (law) small",
    "documents": (),
    "notes": ("no document names the audience adult",),
    "_tag": bytes(16),
}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_whatever_a_policy_grants_passes(seed: int) -> None:
    draw = Draw(seed)
    try:
        policy = build(*draw.documents())
        weights, attributes, sources = draw.request()
        made = policy.clamp(weights, sources=sources, **attributes)
    except (PolicyError, PolicyRefusal):
        return
    for _ in range(2):
        check_grant(made, "nobody")
        made = policy.clamp(weights, sources=sources, **attributes)  # from memory


def test_a_grant_with_anything_else_in_any_field_is_refused() -> None:
    check_grant(full(), "nobody")
    assert OTHERS.keys() == {each.name for each in dataclasses.fields(Grant)}
    for name, value in OTHERS.items():
        assert getattr(full(), name) != value
        assert refused(changed(name, value)), name
        for nonsense in (None, object(), [], b"", 7, {1: 2}):
            if nonsense != getattr(full(), name):
                assert refused(changed(name, nonsense)), name


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(Binding)])
def test_what_is_told_of_a_rule_is_part_of_it(name: str) -> None:
    made = full()
    told = dataclasses.replace(made.binding[0], **{name: ("x",) if name == "adapters" else "x"})
    assert refused(changed("binding", (told,)))


def test_what_moves_from_one_field_to_the_next_is_another_grant() -> None:
    made = full()
    assert refused(changed("scope", made.sources))
    swapped = changed("scope", made.sources)
    object.__setattr__(swapped, "sources", made.scope)
    assert refused(swapped)


def test_what_never_was_a_grant_is_told_so() -> None:
    for made in ({"friendly": 1}, None, Weights("friendly=1")):
        with pytest.raises(TypeError, match=r"nobody takes a Grant, not \w+: ask Policy.clamp"):
            check_grant(made, "nobody")
    with pytest.raises(TypeError, match=r"comes from Policy\.clamp"):
        dataclasses.replace(full(), granted=Weights("friendly=1"))
    with pytest.raises(TypeError, match="send the request"):
        pickle.dumps(full())


def test_a_record_of_a_grant_is_none() -> None:
    record = read_record(full().to_dict())
    assert refused(record)
    assert pickle.loads(pickle.dumps(record)) == copy.deepcopy(record) == record
    assert record.explain() == full().explain()


def _by_item(made: Grant) -> None:
    made.granted._micro["friendly"] = 10**9  # type: ignore[index]


def _by_update(made: Grant) -> None:
    made.granted._micro.update(friendly=10**9)  # type: ignore[attr-defined]


def _by_attribute(made: Grant) -> None:
    made.granted._micro = {"friendly": 10**9}


def _by_deletion(made: Grant) -> None:
    del made.granted._micro


@pytest.mark.parametrize("spoil", [_by_item, _by_update, _by_attribute, _by_deletion])
def test_granted_weights_cannot_be_changed(spoil: Callable[[Grant], None]) -> None:
    made = full()
    with pytest.raises((TypeError, AttributeError)):
        spoil(made)
    check_grant(made, "nobody")
    assert made.granted == full().granted


def test_whoever_goes_round_that_spoils_nobody_elses_grant() -> None:
    policy = Policy.open(SHELF)
    first, second = policy.clamp("friendly=0.5"), policy.clamp("friendly=0.5")
    object.__setattr__(first.granted, "_micro", MappingProxyType({"friendly": 10**9}))
    assert refused(first)
    for other in (second, policy.clamp("friendly=0.5")):
        check_grant(other, "nobody")
        assert dict(other.granted) == {"friendly": 500_000}


def test_weights_hold_nothing_that_anybody_else_holds() -> None:
    given = {"friendly": 500_000}
    for made in (Weights.unchecked(given), Weights.from_micro(given)):
        given["friendly"] = 10**9
        assert dict(made) == {"friendly": 500_000}
        given["friendly"] = 500_000


def test_a_text_of_another_class_counts_as_what_it_says() -> None:
    class Audience(StrEnum):
        MINOR = "minor"

    made = Policy.open(SHELF).clamp("friendly=1", audience=Audience.MINOR)
    check_grant(made, "nobody")
    assert made == Policy.open(SHELF).clamp("friendly=1", audience="minor")


def test_another_process_has_another_key() -> None:
    code = (
        "from soupmix.policy import Policy, grant\n"
        "print(Policy.open(()).clamp({})._tag.hex(), Policy.open(()).clamp({})._tag.hex())"
    )
    told = [subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True) for _ in range(2)]
    (one, again), (other, _) = (each.stdout.split() for each in told)
    assert one == again != other


def test_the_same_rule_id_in_two_files_of_one_name_is_two_rules() -> None:
    """What a rule refuses, and why, is found by the rule, not by what it is called."""
    from soupmix.policy import parse_document

    def said(tier: str, why: str, **more: str) -> tuple[str, Any]:
        rule = CAP | {"at_most": "0.5" if tier == "law" else "0.6", "internal_reason": why, "mode": "clamp"} | more
        text = {"tier": tier, "issuer": tier, "version": "1", "rules": [rule]}
        return "policy.yaml", parse_document(str(text).replace("'", '"'), "policy.yaml")

    documents = [said("law", "of the law"), said("organisation", "of acme", mode="refuse")]
    policy = Policy.assemble(documents, SHELF, now=datetime(2026, 11, 24, tzinfo=UTC))
    made = policy.clamp("friendly=0.55")
    assert dict(made.granted) == {"friendly": 500_000}
    assert policy.internal_reasons(made) == {"policy.yaml cap": "of the law"}
