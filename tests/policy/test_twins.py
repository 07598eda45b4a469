"""One adapter under two names: rules that name one would not hold for the other, so nothing that knows both is a policy."""

import json
from itertools import permutations
from typing import Any

import pytest

from soupmix.errors import PolicyError
from soupmix.policy import Policy, parse_document
from tests.support.shelf import SHELF, Ref, digest_of

CALM, TWIN = Ref("calm", "style", "calm", digest_of("calm")), Ref("twin", "other", "twin", digest_of("calm"))


def approving(tier: str, *refs: Ref) -> tuple[str, Any]:
    listed = [{"name": each.name, "digest": each.digest} for each in refs]
    content = {"tier": tier, "issuer": "A", "version": "1", "rules": [{"rule": "approve", "adapters": listed}]}
    return f"{tier}.yaml", parse_document(json.dumps(content), tier)


def refused(*documents: Any, adapters: Any = ()) -> None:
    with pytest.raises(PolicyError, match=r"'calm' and 'twin'|'twin' and 'calm'") as caught:
        Policy.assemble(documents, adapters)
    assert caught.value.reason == "bad-adapter"
    assert "one adapter" in str(caught.value)


def test_two_names_in_what_is_given() -> None:
    for refs in permutations([CALM, TWIN, *SHELF[:2]]):
        refused(adapters=refs)


def test_two_names_in_approve_rules_of_one_document_or_of_two() -> None:
    refused(approving("law", CALM, TWIN))
    refused(approving("law", CALM), approving("organisation", TWIN))


def test_one_name_in_the_store_and_another_in_an_approve_rule() -> None:
    refused(approving("law", TWIN), adapters=[CALM])


def test_a_name_that_was_approved_as_something_else_is_no_twin() -> None:
    """The store is believed, and what it holds under the name is not what was approved: 0, as ever."""
    other = Ref("loud", "style", "loud", digest_of("loud"))
    posing = Ref("calm", "style", "calm", other.digest)
    policy = Policy.assemble([approving("law", posing)], [CALM, other])
    assert not policy.clamp({"calm": 1, "loud": 1}).granted
