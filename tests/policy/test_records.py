"""What is written of a grant, key by key, and read back as the same grant."""

import dataclasses
from typing import Any

import pytest

from soupmix.errors import PolicyError
from soupmix.policy import Policy
from soupmix.policy.recorded import RecordedGrant, read_record
from tests.support.policies import load, measured, norm_policy
from tests.support.shelf import SHELF, digest_of

RULES: list[dict[str, Any]] = [
    {"rule": "bounds", "adapter": "friendly", "at_most": "0.5", "id": "cap", "public_reason": "not too much",
     "internal_reason": "the lawsuit", "scope": {"audience": ["minor"]}},
    {"rule": "group", "adapters": ["concise", "expert"], "at_most": "0.4", "internal_reason": "a study"},
    {"rule": "source", "adapter": "unfriendly", "allow": ["explicit"], "id": "said"},
]  # fmt: skip
DUTIES = [{"oblige": "log", "level": "requests"}, {"oblige": "offer", "what": "erasure"}]


def test_a_record_word_for_word() -> None:
    made = load(*RULES, obligations=DUTIES)
    grant = made.clamp(
        "friendly=0.8,concise=0.3,expert=0.3,unfriendly=0.1",
        sources={"friendly": "stored", "concise": "explicit"},
        audience="minor",
        tenant="acme",
    )
    issued = {"issuer": "A", "source": "x.yaml", "tier": "organisation"}
    record = grant.to_dict()  # distance: the root of 0.09 + 0.01 + 0.01 + 0.01
    assert record == {
        "attributes": {"audience": "minor", "tenant": "acme"},
        "binding": [
            {"adapters": ["friendly"], "rule": "cap", "limit": "at most 0.5 for audience minor",
             "public_reason": "not too much", "multiplier": "0.3", **issued},
            {"adapters": ["concise", "expert"], "rule": "rules[1]", "limit": "concise + expert at most 0.4",
             "public_reason": None, "multiplier": "0.1", **issued},
            {"adapters": ["unfriendly"], "rule": "said", "limit": "a weight that is not explicit is 0",
             "public_reason": None, "multiplier": "0.1", **issued},
        ],
        "clamped": True,
        "digests": {name: digest_of(name) for name in ("concise", "expert", "friendly")},
        "distance": "0.34641",
        "documents": [{"document": "x.yaml", "tier": "organisation", "issuer": "A", "version": "1",
                       "digest": made.documents[0].digest}],
        "granted": {"concise": "0.2", "expert": "0.2", "friendly": "0.5"},
        "metric": "weights",
        "obligations": ["log requests", "offer erasure"],
        "open": False,
        "policy_digest": made.digest,
        "requested": {"concise": "0.3", "expert": "0.3", "friendly": "0.8", "unfriendly": "0.1"},
        "schema": 1,
        "sources": {"concise": "explicit", "friendly": "stored"},
    }  # fmt: skip
    assert read_record(record).to_dict() == grant.to_dict()
    assert str(grant.binding[0]) == "x.yaml (organisation): at most 0.5 for audience minor; not too much"
    assert made.internal_reasons(grant) == {"x.yaml cap": "the lawsuit", "x.yaml rules[1]": "a study"}
    assert grant.explain().splitlines()[-1] == "obliged to: log requests, offer erasure"


def test_a_record_of_before_names_no_documents_and_is_still_read() -> None:
    grant = load(*RULES).clamp("friendly=0.8")
    assert grant.policies == load(*RULES).documents
    of_before = {name: value for name, value in grant.to_dict().items() if name != "documents"}
    read = read_record(of_before)
    assert (read.documents, read.policies) == ((), None)
    assert read.to_dict() == of_before


@pytest.mark.parametrize("said", [None, [None], [{"document": "x"}], "x", [{**{}, "digest": "sha256:0"}]])
def test_documents_that_are_none_are_no_record(said: Any) -> None:
    record = load(*RULES).clamp("friendly=0.8").to_dict() | {"documents": said}
    with pytest.raises(PolicyError, match="damaged grant record: documents"):
        read_record(record)


def test_what_is_open_or_measured_is_read_back_too() -> None:
    for grant in (
        Policy.open(SHELF).clamp("friendly=1.5", sources="inferred"),
        norm_policy(measured(4), 0.02, "delta").clamp("friendly=1,expert=0.7"),
        load().clamp({}),
    ):
        again = read_record(grant.to_dict())
        assert type(again) is RecordedGrant
        assert dataclasses.asdict(grant) == dataclasses.asdict(again) | {"_tag": grant._tag}
    assert Policy.open(SHELF).clamp("friendly=1", sources="inferred").to_dict()["sources"] == {"*": "inferred"}


def test_what_was_granted_by_digest_and_what_kept_it_near() -> None:
    shelf = measured(4)
    for made, metric in ((norm_policy(shelf, 0.02, "delta"), "delta"), (Policy.open(SHELF), "weights")):
        grant = made.clamp("friendly=0.01,expert=0.02")
        assert made.metric == grant.metric == metric
        assert grant.weighted == tuple((grant.digests[name], micro) for name, micro in grant.granted.items())
        assert {digest for digest, _ in grant.weighted} == set(grant.digests.values()) != set()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metric": "miles"}, "metric: Input should be 'weights' or 'delta'"),
        ({"binding": [{"adapters": []}]}, "binding.0.rule: Field required"),
        ({"policy_digest": "x"}, "'x' is not a digest; write sha256: and 64 lower-case hex digits"),
        ({"clamped": True}, "it contradicts itself"),
        ({"granted": {"friendly": "0.50"}}, "it contradicts itself"),
    ],
)
def test_a_damaged_record_in_words(change: dict[str, Any], words: str) -> None:
    record = Policy.open(SHELF).clamp("friendly=0.5").to_dict()
    with pytest.raises(PolicyError) as caught:
        read_record(record | change)
    assert str(caught.value) == f"damaged grant record: {words}"
    assert caught.value.reason == "bad-record"
