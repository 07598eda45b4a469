"""Digests stand in grants and records: what they are of, and that they stay what they were."""

import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from soupmix.files import canonical_json
from soupmix.policy import Policy, parse_document
from soupmix.policy.documents import Document
from tests.support.policies import load, measured, norm_policy
from tests.support.shelf import SHELF, Shelf, digest_of

TEXT = """
tier: law
issuer: EU
version: 2
scope: {audience: [minor]}
rules:
  - {rule: bounds, adapter: friendly, at_most: 0.5}
obligations:
  - {oblige: retain, days: 30}
"""
DIGEST = "777739d234ade4708a6dfeef8f845de7eb96c7a1587d50dddefdb78bfc828380"


def test_the_digest_of_a_document_is_that_of_what_it_says() -> None:
    document = parse_document(TEXT, "x")
    assert document.content() == {
        "issuer": "EU",
        "obligations": [{"days": 30, "oblige": "retain"}],
        "rules": [{"adapter": "friendly", "at_most": 500_000, "rule": "bounds"}],
        "scope": {"audience": ["minor"]},
        "tier": "law",
        "version": "2",
    }
    assert document.digest() == sha256(canonical_json(document.content())).hexdigest() == DIGEST
    spelt_out = TEXT.replace("at_most: 0.5", "at_most: 0.50, mode: clamp, scope: {}") + "valid: {}\n"
    assert parse_document(spelt_out, "y").digest() == DIGEST, "a default that is written is still the default"


def test_the_digest_of_a_policy() -> None:
    labels = [
        [r.name, r.digest, r.dimension, r.pole, list(r.tags), True] for r in sorted(SHELF, key=lambda r: r.digest)
    ]
    said = {"documents": [[0, DIGEST]], "total_budget": 1_500_000}
    content = said | {"adapters": labels, "norms": None, "schema": 2}
    expected = f"sha256:{sha256(canonical_json(content)).hexdigest()}"
    made = Policy.assemble([("x", parse_document(TEXT, "x"))], SHELF)
    assert made.digest == expected
    assert made.former_digest == f"sha256:{sha256(canonical_json(said | {'schema': 1})).hexdigest()}"
    no_budget = Shelf(SHELF)
    no_budget.total_budget = None
    assert Policy.assemble([("x", parse_document(TEXT, "x"))], no_budget).digest != expected


@pytest.mark.parametrize(
    "change",
    [{"dimension": "other"}, {"dimension": None}, {"pole": "other"}, {"tags": ("new",)}, {"digest": digest_of("x")}],
)
def test_every_label_of_every_adapter_counts(change: dict[str, Any]) -> None:
    """An edited label loosens rules that go by it, so it is another policy; with it also all that is kept under its digest."""
    for number in range(len(SHELF)):
        edited = Shelf([*SHELF[:number], replace(SHELF[number], **change), *SHELF[number + 1 :]])
        before, after = (Policy.assemble([("x", parse_document(TEXT, "x"))], shelf) for shelf in (SHELF, edited))
        assert before.digest != after.digest
        assert before.former_digest == after.former_digest


def test_the_order_of_adapters_and_tags_does_not_count() -> None:
    one, other = replace(SHELF[0], tags=("a", "b")), replace(SHELF[0], tags=("b", "a"))
    assert Policy.open([one, *SHELF[1:]]).digest == Policy.open([*SHELF[:0:-1], other]).digest


def test_every_norm_counts_where_a_rule_or_the_metric_rests_on_it() -> None:
    shelf = measured(1)
    for row, column in ((0, 0), (0, 1), (5, 5)):
        edited = measured(1)
        edited.gram[row, column] = edited.gram[column, row] = edited.gram[row, column] * 0.5
        assert norm_policy(shelf, 0.01).digest != norm_policy(edited, 0.01).digest
        assert norm_policy(shelf, None, "delta").digest != norm_policy(edited, None, "delta").digest
        assert norm_policy(shelf, None).digest == norm_policy(edited, None).digest
    edited = measured(1)
    edited.base_norm = 1000.0
    assert norm_policy(shelf, 0.01).digest != norm_policy(edited, 0.01).digest


def test_a_metric_counts_only_where_it_is_used() -> None:
    plain, one, other = SHELF, measured(1), measured(2)
    assert len({norm_policy(shelf, None).digest for shelf in (plain, one, other)}) == 1
    assert (
        len({norm_policy(plain, None).digest, *(norm_policy(shelf, None, "delta").digest for shelf in (one, other))})
        == 3
    )


def test_of_two_bounds_on_a_norm_the_tighter_holds_and_of_equal_ones_the_outer_is_named() -> None:
    def said(tier: str, share: str) -> tuple[str, Document]:
        rules = [{"rule": "norm", "at_most": share, "id": f"{tier}-norm"}]
        return tier, parse_document(json.dumps({"tier": tier, "issuer": "A", "version": "1", "rules": rules}), tier)

    shelf = measured(3)
    for law, organisation, named in (
        ("0.02", "0.01", "organisation"),
        ("0.01", "0.02", "law"),
        ("0.01", "0.01", "law"),
    ):
        made = Policy.assemble([said("law", law), said("organisation", organisation)], shelf)
        grant = made.clamp("friendly=1,expert=1")
        assert grant.granted == norm_policy(shelf, 0.01).clamp("friendly=1,expert=1").granted
        assert [each.rule for each in grant.binding if "norm" in each.rule] == [f"{named}-norm"]


def test_what_ends_first_is_the_last_day() -> None:
    assert load().last_day is None
    assert str(load(valid={"until": "2027-01-31"}).last_day) == "2027-01-31"
    assert str(load(valid={"from": "2026-01-01", "until": "2026-11-24"}).last_day) == "2026-11-24"
