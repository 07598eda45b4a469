"""Whether weights may be inferred at all, for whom and of what: by rules of three tiers, told before and held by the clamp."""

import json

import pytest
from hypothesis import given, settings

from soupmix.errors import PolicyError, PolicyRefusal, RecipeError, WeightError
from soupmix.policy import Policy, parse_document
from soupmix.policy.compare import difference
from soupmix.policy.inferring import inferring
from tests.support.policies import NOW, load
from tests.support.shelf import NAMES, SHELF
from tests.support.strategies import consistent_policy, documents, statements

CHILDREN = {"rule": "infer", "dimensions": [], "scope": {"audience": ["minor"]}, "public_reason": "not of children"}


def test_only_the_dimensions_that_are_listed_are_inferred() -> None:
    policy = load({"rule": "infer", "dimensions": ["length", "expertise"], "id": "plain-things"})
    found = inferring(policy, {})
    assert found.allowed == ("concise", "elementary", "expert", "informative")
    (binding,) = found.withheld
    assert (binding.rule, binding.adapters) == ("plain-things", ("friendly", "unfriendly"))
    assert binding.limit == "a weight that nobody chose is 0, except of length, expertise"
    want = "friendly=0.4,concise=0.4"
    assert policy.clamp(want, sources="inferred").granted.decimals() == {"concise": "0.4"}
    assert policy.clamp(want).granted.decimals() == {"concise": "0.4"}, "who does not say may have inferred them"
    for source in ("explicit", "stored"):
        assert not policy.clamp(want, sources=source).clamped


def test_for_an_audience_nothing_is_inferred_and_it_is_said_why() -> None:
    policy = load(CHILDREN)
    assert inferring(policy, {"audience": "adult"}).allowed == tuple(sorted(NAMES))
    for unsaid in ({}, {"audience": "minor"}):
        with pytest.raises(
            PolicyRefusal, match=r"nothing may be concluded .* not of children; choose the weights"
        ) as caught:
            inferring(policy, unsaid).check()
        assert caught.value.reason == "not-inferred"
        assert [each.rule for each in caught.value.rules] == ["rules[0]"]
    inferring(policy, {"audience": "adult"}).check()
    with pytest.raises(PolicyRefusal):
        inferring(Policy.open(()), {}).check()
    with pytest.raises(RecipeError):
        inferring(policy, {"shoe": "44"})


def test_sensitive_adapters_are_chosen_only() -> None:
    """A rule of sources says it by a tag, whichever dimensions may be inferred; that explicit is allowed is no matter here."""
    policy = load(
        {"rule": "source", "tag": "rude", "allow": ["explicit"]}, {"rule": "source", "adapter": "expert", "allow": []}
    )
    assert inferring(policy, {}).allowed == ("concise", "elementary", "friendly", "informative")
    assert inferring(load({"rule": "source", "allow": ["inferred"]}), {}).allowed == tuple(sorted(NAMES))


def test_every_tier_takes_away_and_none_gives_back() -> None:
    def document(tier: str, *dimensions: str) -> tuple[str, object]:
        rules = [{"rule": "infer", "dimensions": dimensions}]
        content = {"tier": tier, "issuer": "A", "version": "1", "rules": rules}
        return f"{tier}.yaml", parse_document(json.dumps(content), f"{tier}.yaml")

    law, house, user = (
        document("law", "length", "style"),
        document("organisation", "length", "expertise"),
        document("user"),
    )
    allowed = [
        inferring(Policy.assemble(some, SHELF, now=NOW), {}).allowed
        for some in ([law], [law, house], [law, house, user])
    ]  # type: ignore[list-item]
    assert allowed == [("concise", "friendly", "informative", "unfriendly"), ("concise", "informative"), ()]


def test_a_document_that_lets_more_be_inferred_is_found_by_comparing() -> None:
    few, more = (
        load({"rule": "infer", "dimensions": ["length"]}),
        load({"rule": "infer", "dimensions": ["length", "style"]}),
    )
    assert difference(more, few).contained
    widened = {(each.source, tuple(each.weights)) for each in difference(few, more).widenings}
    assert {source for source, _ in widened} == {"", "inferred"}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"rule": "infer"}, "key 'dimensions' is missing"),
        ({"rule": "infer", "dimensions": "length"}, "must be a list"),
        ({"rule": "infer", "dimensions": None}, "must be a list"),
        ({"rule": "infer", "dimensions": ["Length"]}, "rules\\[0\\].dimensions\\[0\\]"),
        ({"rule": "infer", "dimensions": [], "adapter": "friendly"}, "unknown key 'adapter'"),
    ],
)
def test_a_rule_that_says_something_else_is_refused(rule: dict[str, object], said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        load(rule)


@settings(max_examples=60, deadline=None)
@given(documents(), statements)
def test_what_may_not_be_inferred_is_never_granted(content: dict[str, object], said: dict[str, str]) -> None:
    policy = consistent_policy([content])
    allowed = inferring(policy, said).allowed
    required = policy.clamp({}, sources="inferred", **said).granted
    for name in set(NAMES) - set(allowed):
        assert not policy.feasible(sources="inferred", **said).most(name) or name in required


def test_what_a_person_sets_bounds_what_may_be_inferred() -> None:
    policy = load({"rule": "budget", "at_most": "1"})
    bounds = {"friendly": (400_000, 400_000), "concise": (0, 300_000)}
    found = policy._feasible({}, "inferred", bounds)
    assert found.nearest("concise=1").decimals() == {"concise": "0.3", "friendly": "0.4"}
    assert found.nearest("expert=1").decimals() == {"expert": "0.6", "friendly": "0.4"}
    assert policy.feasible(sources="inferred").nearest("concise=1").decimals() == {"concise": "1"}
    with pytest.raises(PolicyRefusal) as caught:
        policy._feasible({}, {}, {"friendly": (1_000_000, 1_000_000), "concise": (1, 1_000_000)})
    assert caught.value.reason == "conflict"
    with pytest.raises(WeightError):
        policy._feasible({}, {}, {"nobody": (0, 1)})
