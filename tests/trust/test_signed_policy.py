"""A policy from signed sets: two repositories, two roots, and what a stolen key of one can and cannot do."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.files import canonical_json
from soupmix.policy import Policy
from soupmix.policy.inventory import inventory
from soupmix.trust import load_signed
from soupmix.trust.layout import INVENTORY
from tests.support.shelf import Ref
from tests.support.signed_sets import Shop

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)


ADAPTERS = (
    Ref("friendly", "style", "friendly", "sha256:" + "1" * 64),
    Ref("unfriendly", "style", "unfriendly", "sha256:" + "2" * 64),
)


def document(tier: str, *rules: str, **fields: str) -> bytes:
    lines = [f"tier: {tier}", "issuer: Example", "version: '1'", *(f"{key}: {value}" for key, value in fields.items())]
    return "\n".join([*lines, "rules:" if rules else "rules: []", *(f"- {rule}" for rule in rules), ""]).encode()


def bound(name: str, most: float | str) -> str:
    return f"{{rule: bounds, id: b-{name}, adapter: {name}, at_most: '{most}'}}"


@pytest.fixture
def two(make_shop: "Callable[[str], Shop]") -> "tuple[Shop, Shop]":
    law, organisation = make_shop("law"), make_shop("organisation")
    law.publish({"law.yaml": document("law", bound("unfriendly", 0.5))})
    organisation.publish({"acme.yaml": document("organisation", bound("friendly", 0.25))})
    return law, organisation


def signed(law: Shop, organisation: Shop, **options: object) -> Policy:
    options = {"adapters": ADAPTERS, "now": NOW, **options}
    return load_signed(law=law.source(), organisation=organisation.source(), **options).policy  # type: ignore[arg-type]


def test_two_tiers_with_two_roots_are_intersected(two: "tuple[Shop, Shop]", tmp_path: Path) -> None:
    (tmp_path / "me.yaml").write_bytes(document("user", bound("friendly", 0.125)))
    asked = {"friendly": 1.0, "unfriendly": 1.0}
    assert dict(signed(*two).clamp(asked).granted) == {"friendly": 250_000, "unfriendly": 500_000}
    policy = signed(*two, user=[tmp_path / "me.yaml"])
    assert dict(policy.clamp(asked).granted) == {"friendly": 125_000, "unfriendly": 500_000}


def test_signing_changes_nothing_about_what_a_policy_is(two: "tuple[Shop, Shop]", tmp_path: Path) -> None:
    for name, shop in zip(("law.yaml", "acme.yaml"), two, strict=True):
        (tmp_path / name).write_bytes(shop.read().files[name])
    plain = Policy.load(tmp_path / "law.yaml", tmp_path / "acme.yaml", adapters=ADAPTERS, now=NOW)
    assert signed(*two).digest == plain.digest


def test_the_first_expiry_counts(two: "tuple[Shop, Shop]") -> None:
    law, organisation = two
    organisation.publish({"acme.yaml": document("organisation")}, now=NOW - timedelta(days=3))
    made = load_signed(law=law.source(), organisation=organisation.source(), now=NOW)
    assert made.expires == NOW + timedelta(days=4)
    assert {tier: found.version for tier, found in made.sets.items()} == {"law": 2, "organisation": 3}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["friendly", "unfriendly"]), st.sampled_from(["0", "0.1", "0.75", "1", "5"])),
        max_size=3,
    )
)
def test_whatever_a_stolen_organisation_key_signs_the_law_holds(
    two: "tuple[Shop, Shop]", rules: list[tuple[str, str]]
) -> None:
    law, organisation = two
    texts = [bound(name, most).replace("b-", f"r{number}-") for number, (name, most) in enumerate(rules)]
    organisation.publish({"acme.yaml": document("organisation", *texts)})
    granted = signed(law, organisation).clamp({"unfriendly": 1.0}).granted
    alone = load_signed(law=law.source(), adapters=ADAPTERS, now=NOW).policy.clamp({"unfriendly": 1.0}).granted
    assert dict(alone) == {"unfriendly": 500_000}
    assert granted.get("unfriendly", 0) <= 500_000


@pytest.mark.parametrize("tier", ["law", "user"])
def test_a_document_of_another_tier_than_its_repository(two: "tuple[Shop, Shop]", tier: str) -> None:
    two[1].publish({"acme.yaml": document(tier)})
    with pytest.raises(PolicyError, match="signed set of the organisation") as caught:
        signed(*two)
    assert caught.value.reason == "tier-mismatch"


@pytest.mark.parametrize("tier", ["law", "organisation"])
def test_an_unsigned_document_of_an_outer_tier(two: "tuple[Shop, Shop]", tier: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(document(tier))
    with pytest.raises(PolicyError, match="is not signed") as caught:
        signed(*two, user=[tmp_path / "mine.yaml"])
    assert caught.value.reason == "tier-mismatch"


def test_repositories_that_changed_places(two: "tuple[Shop, Shop]") -> None:
    with pytest.raises(PolicyError) as caught:
        load_signed(law=two[1].source(), organisation=two[0].source(), now=NOW)
    assert caught.value.reason == "tier-mismatch"


def test_one_refused_set_is_no_policy_at_all(two: "tuple[Shop, Shop]") -> None:
    for path in (two[0].folder / "targets").iterdir():
        path.write_bytes(path.read_bytes().replace(b"0.5", b"1.0"))
    with pytest.raises(PolicyError) as caught:
        signed(*two)
    assert caught.value.reason == "tampered"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "empty"),
        ({"approved.json": b"{}"}, "empty"),
        ({"a.yaml": b"\xff"}, "unreadable"),
        ({"a.yaml": b"tier: ["}, "bad-yaml"),
        ({"a.yaml": b"tier: law"}, "bad-document"),
        ({"a.yaml": document("law", valid="{until: 2026-12-31}")}, "not-valid"),
        (
            {"a.yaml": document("law", "{rule: bounds, adapter: friendly, at_least: '0.5'}", bound("friendly", 0.25))},
            "",
        ),
    ],
)
def test_signed_is_not_the_same_as_sensible(
    make_shop: "Callable[[str], Shop]", files: dict[str, bytes], reason: str
) -> None:
    law = make_shop("law")
    law.publish(files)
    with pytest.raises(PolicyError) as caught:
        load_signed(law=law.source(), adapters=ADAPTERS, now=NOW)
    assert caught.value.reason == reason or not reason


def test_evidence_is_judged_by_the_same_time_as_the_signatures(make_shop: "Callable[[str], Shop]") -> None:
    law, digest = make_shop("law"), "sha256:" + "3" * 64
    approved = [
        f"{{name: {ref.name}, digest: '{ref.digest}', evidence: {{report: '{digest}', until: {until}}}}}"
        for ref, until in zip(ADAPTERS, ("2027-01-02", "2026-12-31"), strict=True)
    ]
    rules = (f"{{rule: approve, adapters: [{', '.join(approved)}]}}", "{rule: evidence}")
    law.publish({"law.yaml": document("law", *rules)})
    granted = {}
    for days in (0, 2):
        made = load_signed(law=law.source(), adapters=ADAPTERS, now=NOW + timedelta(days=days))
        granted[days] = dict(made.policy.clamp({"friendly": 0.5, "unfriendly": 0.5}).granted)
    assert granted == {0: {"friendly": 500_000}, 2: {}}


def test_no_set_is_no_policy() -> None:
    with pytest.raises(PolicyError) as caught:
        load_signed()
    assert caught.value.reason == "empty"


class Stock(tuple[Ref, ...]):
    """A store that records norms."""

    total_budget: int | None = 1_500_000
    base_norm = 100.0
    cosine = 0.5

    def inner_product(self, one: str, other: str) -> float:
        return 4.0 if one == other else 4 * self.cosine


def relabelled(**fields: object) -> Stock:
    return Stock([replace(ADAPTERS[0], **fields), ADAPTERS[1]])  # type: ignore[arg-type]


def remeasured(**fields: object) -> Stock:
    made = Stock(ADAPTERS)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def stocked(two: "tuple[Shop, Shop]") -> "tuple[Shop, Shop]":
    """The organisation's set says what its store holds."""
    files = two[1].read().files
    two[1].publish({**files, INVENTORY: canonical_json(inventory(Stock(ADAPTERS)))})
    return two


@pytest.mark.parametrize(
    ("edited", "told"),
    [
        (relabelled(dimension="other"), "dimension of 'friendly' was style and is other"),
        (relabelled(dimension=None), "dimension of 'friendly'"),
        (relabelled(pole="other"), "pole of 'friendly'"),
        (relabelled(tags=("kind",)), "tags of 'friendly'"),
        (relabelled(digest="sha256:" + "3" * 64), "digest of 'friendly'"),
        (relabelled(name="amicable"), "'amicable' was not signed"),
        (Stock(ADAPTERS[:1]), "'unfriendly' is not in it"),
        (remeasured(total_budget=None), "total_budget was 1500000 millionths and is None"),
        (remeasured(base_norm=1000.0), "its norms are others"),
        (remeasured(cosine=0.4), "its norms are others"),
        (ADAPTERS, "total_budget"),
    ],
)
def test_a_store_that_says_anything_else_than_was_signed_is_refused(
    stocked: "tuple[Shop, Shop]", edited: Stock, told: str
) -> None:
    sound = signed(*stocked, adapters=Stock(ADAPTERS))
    assert not any("store holds" in note for note in sound.notes)
    with pytest.raises(PolicyError) as caught:
        signed(*stocked, adapters=edited)
    assert caught.value.reason == "store-changed"
    assert told in str(caught.value)


def test_without_a_signed_inventory_the_policy_says_so(two: "tuple[Shop, Shop]") -> None:
    for adapters in (ADAPTERS, Stock(ADAPTERS), iter(ADAPTERS)):
        (note,) = [each for each in signed(*two, adapters=adapters).notes if "says what the store holds" in each]
        assert "--store" in note


def test_where_there_is_no_store_what_is_approved_says_it_all(stocked: "tuple[Shop, Shop]") -> None:
    assert not any("store holds" in note for note in signed(*stocked, adapters=()).notes)


@pytest.mark.parametrize(
    "data",
    [
        b"[]", b"{}", b"7", b"[" * 100_000, b"\xff", canonical_json(inventory(ADAPTERS) | {"schema": 2}),
        canonical_json(inventory(ADAPTERS) | {"trusted": True}), canonical_json(inventory(ADAPTERS) | {"total_budget": True}),
        canonical_json(inventory(ADAPTERS))[:-2] + b', "schema": 1}',
    ],
)  # fmt: skip
def test_what_is_signed_and_no_inventory_is_refused(two: "tuple[Shop, Shop]", data: bytes) -> None:
    two[0].publish({**two[0].read().files, INVENTORY: data})
    with pytest.raises(PolicyError, match="no inventory of a store") as caught:
        signed(*two)
    assert caught.value.reason == "bad-inventory"


def test_a_policy_from_signed_sets_ends_with_the_first_of_them(two: "tuple[Shop, Shop]") -> None:
    """Signed policies used to keep the instant of their load for ever."""
    law, organisation = two
    organisation.publish({"acme.yaml": document("organisation")}, now=NOW - timedelta(days=3))
    clock, read = [NOW], [0]

    def now() -> datetime:
        read[0] += 1
        return clock[0]

    made = load_signed(law=law.source(), organisation=organisation.source(), adapters=ADAPTERS, now=now)
    assert read == [1], "signatures, windows and reports are judged by one reading"
    assert made.policy.ends == made.expires == NOW + timedelta(days=4)
    clock[0] = made.expires - timedelta(seconds=1)
    assert made.policy.clamp({"friendly": 0.5}).granted
    clock[0] = made.expires
    with pytest.raises(PolicyRefusal, match=r"the signed set of the organisation, .* ended at 2027-01-05 12:00:00 UTC"):
        made.policy.clamp({"friendly": 0.5})
    clock[0] = NOW
    with pytest.raises(PolicyRefusal) as caught:
        made.policy.clamp({"friendly": 0.5})
    assert caught.value.reason == "ended"


def test_a_signed_document_that_ends_before_its_set(two: "tuple[Shop, Shop]") -> None:
    law, organisation = two
    organisation.publish({"acme.yaml": document("organisation", valid="{until: 2027-01-02}")})
    clock = [NOW]
    policy = load_signed(law=law.source(), organisation=organisation.source(), now=lambda: clock[0]).policy
    assert policy.ends == datetime(2027, 1, 3, tzinfo=UTC)
    clock[0] = policy.ends
    with pytest.raises(PolicyRefusal, match=r"acme\.yaml, .* ended on 2027-01-02"):
        policy.clamp({})


def test_what_is_no_document_is_told(two: "tuple[Shop, Shop]") -> None:
    files = {"acme.yaml": document("organisation"), "more.json": document("organisation", bound("friendly", 0))}
    two[1].publish(files)
    note = "more.json in the signed set of the organisation is data and no policy document (.yaml); no rule in it holds"
    assert note in signed(*two).notes
