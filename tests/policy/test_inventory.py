"""What a store says of its adapters, held to what was signed, without any signature: see tests/trust for those."""

import json
from dataclasses import replace
from typing import Any

import pytest

from soupmix.errors import PolicyError
from soupmix.files import canonical_json
from soupmix.policy.inventory import check_inventory, inventory
from tests.support.policies import Measured, measured
from tests.support.shelf import SHELF, Shelf, digest_of


def test_it_holds_what_rules_go_by() -> None:
    said = inventory(measured(1))
    assert said["adapters"]["expert"] == {
        "digest": digest_of("expert"),
        "dimension": "expertise",
        "pole": "expert",
        "tags": ["technical"],
    }
    assert (said["schema"], said["total_budget"], len(said["adapters"])) == (1, 1_500_000, len(SHELF))
    assert inventory(SHELF)["norms"] is None
    assert said["norms"] != inventory(measured(2))["norms"]


def test_what_was_signed_is_accepted() -> None:
    for store in (SHELF, measured(1), ()):
        check_inventory(canonical_json(inventory(store)), "signed.json", store)


def other(**changes: Any) -> Shelf:
    return Shelf([replace(SHELF[0], **changes), *SHELF[1:]])


def poorer() -> Measured:
    made = measured(1)
    made.total_budget = None
    return made


@pytest.mark.parametrize(
    ("signed", "store", "told"),
    [
        (SHELF, other(dimension="style"), "dimension of 'elementary' was expertise and is style"),
        (SHELF, other(digest=digest_of("x")), "digest of 'elementary' was sha256:"),
        (SHELF, other(tags=("new",)), "tags of 'elementary' was [] and is ['new']"),
        (SHELF, other(name="simple"), "adapter 'elementary' is not in it"),
        (Shelf(SHELF[1:]), SHELF, "adapter 'elementary' was not signed"),
        (measured(1), poorer(), "total_budget was 1500000 millionths and is None"),
        (measured(1), measured(2), "its norms are others (gram, base_norm)"),
    ],
)
def test_a_store_that_says_anything_else_is_refused(signed: Shelf, store: Shelf, told: str) -> None:
    with pytest.raises(PolicyError) as caught:
        check_inventory(canonical_json(inventory(signed)), "signed.json", store)
    assert caught.value.reason == "store-changed"
    assert f"the store is not as signed.json says: {told}" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"[]", "is no inventory of a store"),
        (b"[" * 100_000, "is no inventory of a store"),
        (b"\xff", "is no inventory of a store"),
        (json.dumps(inventory(SHELF) | {"schema": 2}).encode(), "schema"),
        (json.dumps(inventory(SHELF) | {"trusted": True}).encode(), "trusted"),
        (json.dumps(inventory(SHELF) | {"total_budget": True}).encode(), "total_budget"),
    ],
)
def test_what_is_no_inventory_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(PolicyError, match=r"signed\.json is no inventory") as caught:
        check_inventory(data, "signed.json", SHELF)
    assert caught.value.reason == "bad-inventory"
    assert told in str(caught.value)
