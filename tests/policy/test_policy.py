import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from soupmix.errors import PolicyError, PolicyRefusal, RecipeError, WeightError
from soupmix.policy import Binding, Grant, Policy, cases, parse_document
from soupmix.policy.documents import RuleRef
from soupmix.policy.recorded import read_record
from soupmix.projection import Constraint, Region, Space
from soupmix.projection.laminar import Forest
from soupmix.projection.solution import Solution
from soupmix.weights import Weights
from tests.support import shelf
from tests.support.shelf import Ref, digest_of

Load = Callable[..., Policy]


class Shelf(shelf.Shelf):
    total_budget: Any = None


def ref(name: str, dimension: str, *tags: str) -> Ref:
    return Ref(name, dimension, name, digest_of(name), tags)


SHELF = Shelf(
    [
        ref("elementary", "expertise"),
        ref("expert", "expertise"),
        ref("friendly", "style"),
        ref("unfriendly", "style", "rude"),
    ]
)


def approve(*names: str, **other: str) -> dict[str, Any]:
    listed = [{"name": name, "digest": digest_of(other.get(name, name))} for name in names]
    return {"rule": "approve", "adapters": listed}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(*rules: dict[str, Any], adapters: Any = SHELF, tier: str = "organisation") -> Policy:
        path = tmp_path / "acme.yaml"
        path.write_text(json.dumps({"tier": tier, "issuer": "Acme", "version": "1", "rules": rules}))
        return Policy.load(path, adapters=adapters)

    return load


def test_open_says_so() -> None:
    policy = Policy.open(SHELF)
    grant = policy.clamp("elementary=0.9")
    assert policy.is_open
    assert grant.is_open
    assert grant.explain() == "no policy is applied: only the built-in defaults hold\nelementary 0.9"
    assert not grant.clamped


def test_the_built_in_defaults() -> None:
    shelf = Shelf(SHELF)
    shelf.total_budget = 1_500_000
    policy = Policy.open(shelf)
    assert policy.clamp("elementary=1.5,friendly=-0.5").granted == Weights("elementary=1")
    assert policy.clamp("elementary=0.8,expert=0.6").granted == Weights("elementary=0.6,expert=0.4")
    assert policy.clamp("elementary=1,friendly=1").granted == Weights("elementary=0.75,friendly=0.75")
    assert Policy.open(SHELF).clamp("elementary=1,friendly=1").granted == Weights("elementary=1,friendly=1")
    assert policy.digest != Policy.open(SHELF).digest


def test_bounds_are_the_box_that_holds_in_every_scope(load: Load) -> None:
    rules: list[dict[str, Any]] = [
        approve("elementary", "friendly"),
        {"rule": "bounds", "adapter": "elementary", "at_least": "0.1", "at_most": "0.75"},
        {"rule": "bounds", "adapter": "friendly", "at_most": "0.5", "scope": {"audience": ["minor"]}},
        {"rule": "budget", "at_most": "0.8"},
    ]
    policy = load(*rules)
    assert policy.bounds() == {
        "elementary": (100_000, 750_000),
        "expert": (0, 0),
        "friendly": (0, 1_000_000),
        "unfriendly": (0, 0),
    }
    assert Policy.open(SHELF).bounds() == dict.fromkeys((each.name for each in SHELF), (0, 1_000_000))
    for asked in ("elementary=1", "friendly=1", "elementary=0,friendly=0.3", "unfriendly=1"):
        granted = policy.clamp(asked, audience="adult").granted
        assert all(least <= granted.get(name, 0) <= most for name, (least, most) in policy.bounds().items())


@pytest.mark.parametrize("budget", [-1, 1.5, "1", True])
def test_a_budget_that_makes_no_sense(budget: object) -> None:
    shelf = Shelf(SHELF)
    shelf.total_budget = budget
    with pytest.raises(PolicyError, match="total_budget") as caught:
        Policy.open(shelf)
    assert caught.value.reason == "bad-adapter"


def test_adapters_that_make_no_sense() -> None:
    with pytest.raises(PolicyError, match="two adapters are named 'friendly'"):
        Policy.open([SHELF[2], SHELF[2]])
    with pytest.raises(PolicyError, match="adapter 'friendly': 'abc' is not a digest"):
        Policy.open([replace(SHELF[2], digest="abc")])
    with pytest.raises(PolicyError, match=r"adapter '\.\./x': '\.\./x' is not a name"):
        Policy.open([replace(SHELF[2], name="../x")])


def test_explain(load: Load) -> None:
    policy = load(
        {"rule": "bounds", "adapter": "elementary", "at_most": "0.5", "scope": {"audience": ["minor"]}},
        {"rule": "deny", "tag": "rude", "id": "civil", "public_reason": "be civil", "internal_reason": "the lawsuit"},
    )
    grant = policy.clamp({"elementary": 0.9, "friendly": 0.3, "unfriendly": 0.25}, audience="minor")
    assert grant.explain().splitlines() == [
        "elementary 0.9 -> 0.5   acme.yaml (organisation): at most 0.5 for audience minor",
        "friendly 0.3",
        "unfriendly 0.25 -> 0    acme.yaml (organisation): denied; be civil",
    ]
    assert grant.binding == (
        Binding(
            ("elementary",),
            "rules[0]",
            "Acme",
            "organisation",
            "acme.yaml",
            "at most 0.5 for audience minor",
            None,
            "0.4",
        ),
        Binding(("unfriendly",), "civil", "Acme", "organisation", "acme.yaml", "denied", "be civil", "0.25"),
    )
    assert "lawsuit" not in json.dumps(grant.to_dict()), "internal reasons stay inside"
    assert grant.attributes == {"audience": "minor"}
    assert grant.digests == {"elementary": digest_of("elementary"), "friendly": digest_of("friendly")}
    assert policy.clamp("elementary=0.9", audience="adult").explain().splitlines() == [
        "elementary 0.9",
        "note: no document names the audience adult, so what is for others by this attribute does not hold",
    ]
    assert policy.clamp("elementary=0.9").granted == Weights("elementary=0.5"), "not stated counts as: applies"
    assert policy.clamp("unfriendly=1").explain().endswith("nothing granted: the base model as it is")


def test_two_rules_on_one_adapter_take_two_lines(load: Load) -> None:
    policy = load(
        {"rule": "bounds", "adapter": "friendly", "at_most": "0.5"},
        {"rule": "bounds", "pole": "friendly", "at_most": "0.50"},
    )
    lines = policy.clamp("friendly=1").explain().splitlines()
    assert lines == [
        "friendly 1 -> 0.5   acme.yaml (organisation): at most 0.5",
        "                    acme.yaml (organisation): at most 0.5",
    ]


def test_a_group_names_its_members(load: Load) -> None:
    grant = load({"rule": "group", "dimension": "expertise", "at_most": "0.5"}).clamp("elementary=0.6,expert=0.05")
    assert grant.binding[0].limit == "expertise (elementary + expert) at most 0.5"
    assert grant.granted == Weights("elementary=0.5"), "expert falls to 0, not below"
    assert [each.tier for each in grant.binding] == ["organisation"]


def test_a_minimum_raises_what_was_not_asked_for(load: Load) -> None:
    grant = load({"rule": "bounds", "adapter": "friendly", "at_least": "0.2"}).clamp({})
    assert grant.explain() == "friendly 0 -> 0.2   acme.yaml (organisation): at least 0.2"
    assert grant.clamped


def test_absolute_and_plain_budget_agree_above_zero(load: Load) -> None:
    plain, absolute = ({"rule": "budget", "at_most": "1", "of": of} for of in ("sum", "absolute"))
    want = "elementary=0.9,friendly=0.7,unfriendly=-0.5"
    assert (
        load(plain).clamp(want).granted == load(absolute).clamp(want).granted == Weights("elementary=0.6,friendly=0.4")
    )


def test_what_is_not_approved_by_digest_is_zero(load: Load) -> None:
    policy = load(approve("elementary", "friendly", "gone", friendly="another"))
    grant = policy.clamp("elementary=0.5,expert=0.5,friendly=0.5,gone=0.5")
    assert grant.granted == Weights("elementary=0.5")
    reasons = {each.adapters: each.limit for each in grant.binding}
    assert reasons[("expert",)] == "not approved"
    assert reasons[("friendly",)].startswith(f"approved as {digest_of('another')[:19]}")
    assert reasons[("gone",)] == "approved, but not in this store"


def test_labels_are_part_of_what_is_approved(load: Load) -> None:
    rule = approve("unfriendly")
    rule["adapters"][0] |= {"dimension": "style", "pole": "unfriendly"}
    disguised = [*SHELF[:3], replace(SHELF[3], pole="friendly")]
    assert load(rule).clamp("unfriendly=0.5").granted
    grant = load(rule, adapters=disguised).clamp("unfriendly=0.5")
    assert not grant.granted
    assert grant.binding[0].limit == "approved with pole unfriendly, but this one has friendly"


def test_tags_of_an_approval_count(load: Load) -> None:
    rule = approve("friendly")
    rule["adapters"][0] |= {"tags": ["companion"]}
    assert not load(rule, {"rule": "deny", "tag": "companion"}).clamp("friendly=1").granted


def test_without_a_store_the_approvals_say_what_there_is(load: Load) -> None:
    policy = load(approve("elementary", "friendly"), adapters=())
    assert policy.names == ("elementary", "friendly")
    assert policy.clamp("friendly=0.5").digests == {"friendly": digest_of("friendly")}


def test_approvals_intersect() -> None:
    def document(tier: str, rule: dict[str, Any]) -> tuple[str, Any]:
        return tier, parse_document(json.dumps({"tier": tier, "issuer": "x", "version": "1", "rules": [rule]}), tier)

    law, acme = approve("elementary", "expert", "friendly"), approve("elementary", "friendly", friendly="new")
    for adapters in ((), SHELF):
        policy = Policy.assemble([document("law", law), document("organisation", acme)], adapters)
        assert policy.clamp("elementary=0.1,expert=0.1,friendly=0.1").granted == Weights("elementary=0.1")


def test_notes(load: Load) -> None:
    policy = load({"rule": "deny", "adapter": "unfreindly"})
    assert policy.notes[0] == "acme.yaml (organisation) rules[0] concerns no known adapter, so it has no effect"
    assert "no document approves" in policy.notes[1]
    assert load(approve("friendly"), {"rule": "deny", "adapter": "unfriendly"}).notes == ()


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        ([{"rule": "bounds", "adapter": "friendly", "at_least": "1.2"}], ["unit-interval", "rules[0]"]),
        ([{"rule": "bounds", "adapter": "nobody", "at_least": "0.1"}], ["rules[0]"]),
        ([{"rule": "group", "adapters": ["nobody"], "at_least": "0.1"}], ["rules[0]"]),
        (
            [
                {"rule": "budget", "at_most": "0.9", "id": "innocent"},
                {"rule": "deny", "tag": "rude", "id": "civil"},
                {"rule": "bounds", "adapter": "unfriendly", "at_least": "0.1", "id": "demand"},
                {"rule": "bounds", "adapter": "friendly", "at_most": "0.5", "id": "bystander"},
            ],
            ["civil", "demand"],
        ),
        (
            [
                {"rule": "group", "dimension": "expertise", "at_least": "0.6", "id": "a"},
                {"rule": "group", "dimension": "style", "at_least": "0.6", "id": "b"},
                {"rule": "budget", "at_most": "1.1", "id": "c"},
                {"rule": "budget", "at_most": "1.3", "id": "d"},
            ],
            ["a", "b", "c"],
        ),
        (
            [approve("friendly"), {"rule": "group", "dimension": "expertise", "at_least": "0.1"}],
            ["rules[0]", "rules[1]"],
        ),
    ],
)
def test_a_conflict_names_a_minimal_set(load: Load, rules: list[dict[str, Any]], named: list[str]) -> None:
    with pytest.raises(PolicyError, match="no weights satisfy these rules together") as caught:
        load(*rules)
    assert caught.value.reason == "conflict"
    told = str(caught.value).partition("together: ")[2].partition("; change one")[0].split("; ")
    assert [part.partition(":")[0].split()[-1] for part in told] == named


def test_a_conflict_between_scopes_counts_as_nobody_has_to_state_one(load: Load) -> None:
    rules: list[dict[str, Any]] = [
        {"rule": "bounds", "adapter": "friendly", "at_least": "0.5", "scope": {"audience": ["minor"]}},
        {"rule": "bounds", "adapter": "friendly", "at_most": "0.4", "scope": {"audience": ["adult"]}},
    ]
    with pytest.raises(PolicyError, match="does not state its attributes"):
        load(*rules)


def test_an_unknown_adapter() -> None:
    policy = Policy.open(SHELF)
    with pytest.raises(WeightError) as caught:
        policy.clamp("freindly=0")
    assert str(caught.value) == (
        "unknown adapter 'freindly' (did you mean 'friendly'?); known are: elementary, expert, friendly, unfriendly"
    )
    assert caught.value.reason == "unknown-adapter"
    with pytest.raises(WeightError, match="neither a store nor an approve rule"):
        Policy.open([]).clamp("friendly=1")


@pytest.mark.parametrize(
    ("attributes", "reason", "words"),
    [
        ({"age": "minor"}, "unknown-attribute", "known are jurisdiction, audience, purpose, tenant"),
        ({"audience": "Minor"}, "bad-attribute", "attribute audience: 'Minor' is not"),
        ({"audience": ""}, "bad-attribute", "attribute audience: "),
        ({"audience": None}, "bad-attribute", "attribute audience: "),
    ],
)
def test_bad_attributes(attributes: dict[str, Any], reason: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        Policy.open(SHELF).clamp("friendly=1", **attributes)
    assert caught.value.reason == reason


def test_no_attribute_is_taken_for_an_argument(tmp_path: Path) -> None:
    policy = Policy.open(SHELF)
    for name in ("self", "requested", "weights", "attributes"):
        for ask in (partial(policy.clamp, "friendly=1"), partial(policy.check, Weights("friendly=1")), policy.feasible):
            with pytest.raises(RecipeError) as caught:
                ask(**{name: "explicit"})
            assert caught.value.reason == "unknown-attribute"
    case = {"name": "odd", "weights": {"friendly": "1"}, "attributes": {"sources": "explicit"}}
    path = tmp_path / "cases.yaml"
    path.write_text(json.dumps({"cases": [{**case, "expect": {"refused": "unknown-attribute"}}]}))
    assert cases.run(policy, cases.read_cases(path)).results[0].failures == ()


def test_a_grant_comes_from_a_policy_only() -> None:
    grant = Policy.open(SHELF).clamp("friendly=1.5")
    with pytest.raises(TypeError, match=r"a Grant comes from Policy.clamp"):
        Grant(Weights(), Weights(), (), (), grant.policy_digest, (), is_open=True)
    with pytest.raises(TypeError, match=r"a Grant comes from Policy.clamp"):
        replace(grant, granted=Weights("friendly=1.5"))
    with pytest.raises(AttributeError):
        grant.granted = Weights()  # type: ignore[misc]
    assert copy.deepcopy(grant) is copy.copy(grant) is grant
    with pytest.raises(TypeError, match="send the request"):
        pickle.dumps(grant)
    with pytest.raises(TypeError, match=r"a Grant comes from Policy.clamp"):
        object.__new__(Grant).__setstate__([Weights()] * 12)


def test_grants_do_not_share_what_they_hand_out() -> None:
    grant = Policy.open(SHELF).clamp("friendly=1")
    grant.digests.clear()
    grant.attributes["audience"] = "minor"
    assert grant.digests
    assert not grant.attributes


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("granted", {"friendly": "1e9"}),
        ("granted", {"friendly": 0.5}),
        ("requested", {"FRIENDLY": "1"}),
        ("digests", {"friendly": "abc"}),
        ("policy_digest", "abc"),
        ("clamped", False),
        ("schema", 2),
        ("binding", [{}]),
        ("extra", 1),
    ],
)
def test_a_damaged_record(key: str, value: Any) -> None:
    record = Policy.open(SHELF).clamp("friendly=1.5").to_dict()
    assert read_record(record).to_dict() == record
    with pytest.raises(PolicyError, match="damaged grant record") as caught:
        read_record(record | {key: value})
    assert caught.value.reason == "bad-record"


def test_overlapping_groups_are_clamped_exactly(load: Load) -> None:
    policy = load(
        {"rule": "group", "adapters": ["elementary", "friendly"], "at_most": "0.5"},
        {"rule": "group", "adapters": ["friendly", "expert"], "at_most": "0.5"},
    )
    # symmetric in elementary and expert: e = 1 - 2t + ... by hand, friendly = 1/6, the others 1/3
    grant = policy.clamp("elementary=0.5,friendly=0.5,expert=0.5")
    assert grant.granted == Weights("elementary=0.333333,friendly=0.166667,expert=0.333333")


def test_a_triangle_without_a_whole_point_is_refused(load: Load) -> None:
    pairs = [["elementary", "friendly"], ["friendly", "expert"], ["elementary", "expert"]]
    policy = load(*({"rule": "group", "adapters": p, "at_least": "0.000001", "at_most": "0.000001"} for p in pairs))
    with pytest.raises(PolicyRefusal, match="whole millionths"):
        policy.clamp({})


def test_what_is_not_certified_is_not_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RuleRef((0, "", 0), "law", "x", "x", "r")
    region = Region.compile([Constraint((1,), 10, rule, ""), Constraint((-1,), 0, rule, "")], Space(("a",)))
    assert region.project([15]).weights == (10,)
    monkeypatch.setattr(Forest, "project", lambda self, requested: Solution((11,), {0: 4}))
    with pytest.raises(PolicyRefusal, match="could not be certified"):
        region.project([15])


def test_compiled_regions_do_not_grow_with_what_strangers_say(load: Load) -> None:
    policy = load({"rule": "deny", "tag": "rude", "scope": {"tenant": ["acme"]}})
    for index in range(50):
        policy.clamp("friendly=1", tenant=f"t{index}")
    policy.clamp("friendly=1", tenant="acme")
    assert len(policy._regions.kept) == 2


def test_a_rule_that_changed_nothing_is_not_reported(load: Load) -> None:
    policy = load(
        {"rule": "bounds", "adapter": "friendly", "at_most": "0.3"},
        {"rule": "group", "adapters": ["elementary", "friendly"], "at_least": "0.8", "id": "floor"},
    )
    grant = policy.clamp("elementary=0.1,friendly=0.3")
    assert grant.granted == Weights("elementary=0.5,friendly=0.3")
    assert [(each.rule, each.adapters) for each in grant.binding] == [("floor", ("elementary",))]


def test_a_conflict_names_the_outer_of_two_rules_that_would_do() -> None:
    def document(tier: str, **rule: str) -> tuple[str, Any]:
        content = {"tier": tier, "issuer": "x", "version": "1", "rules": [{"adapter": "friendly", **rule}]}
        return f"{tier}.yaml", parse_document(json.dumps(content), tier)

    documents = [
        document("law", rule="bounds", at_least="0.5"),
        document("organisation", rule="deny"),
        document("user", rule="deny"),
    ]
    with pytest.raises(PolicyError, match=r"law\.yaml .*organisation\.yaml") as caught:
        Policy.assemble(documents, SHELF)
    assert "user.yaml" not in str(caught.value)
