"""Laws of the policy, judged by a reading of the rules that shares no code with their compilation."""

import json
from collections.abc import Mapping
from dataclasses import replace
from math import sqrt
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from soupmix.policy import Policy
from soupmix.policy.recorded import read_record
from soupmix.policy.spec import is_feasible
from tests.support.policies import NOW
from tests.support.shelf import NAMES, SHELF, TODAY, Shelf
from tests.support.strategies import asked, consistent_policy, documents, one_document, origins, parse, statements

SETTINGS = settings(max_examples=150, deadline=None)


@SETTINGS
@given(st.lists(documents(), max_size=2), asked, statements, origins)
def test_a_grant_never_violates(
    contents: list[dict[str, Any]], want: dict[str, str], said: dict[str, str], sources: dict[str, str]
) -> None:
    grant = consistent_policy(contents).clamp(want, sources=sources, **said)
    assert is_feasible(grant.granted, contents, SHELF, today=TODAY, attributes=said, sources=sources)
    assert set(grant.granted) <= set(grant.digests) == set(grant.granted)
    assert grant.clamped == bool({n for n in NAMES if grant.granted.get(n, 0) != grant.requested.get(n, 0)})
    assert grant.clamped <= bool(grant.binding), "every change has a reason"


@SETTINGS
@given(st.lists(documents(), max_size=2), asked, st.lists(asked, min_size=1, max_size=4), statements)
def test_no_feasible_point_is_nearer(
    contents: list[dict[str, Any]], want: dict[str, str], others: list[dict[str, str]], said: dict[str, str]
) -> None:
    policy = consistent_policy(contents)
    grant = policy.clamp(want, **said)

    def distance(point: Mapping[str, int]) -> float:
        return sqrt(sum((grant.requested.get(n, 0) - point.get(n, 0)) ** 2 for n in NAMES))

    nearest = distance(grant.granted) - sqrt(len(NAMES))  # rounding moves each weight by less than a millionth
    rivals = [policy.clamp(other, **said).granted for other in others]
    mixtures = [{n: (grant.granted.get(n, 0) * 9 + rival.get(n, 0)) // 10 for n in NAMES} for rival in rivals]
    for rival in [*rivals, *mixtures]:
        if is_feasible(rival, contents, SHELF, today=TODAY, attributes=said):
            assert distance(rival) >= nearest - 1e-6


@SETTINGS
@given(st.lists(documents(), max_size=2), asked, statements)
def test_what_is_feasible_stays_as_it_is(
    contents: list[dict[str, Any]], want: dict[str, str], said: dict[str, str]
) -> None:
    policy = consistent_policy(contents)
    once = policy.clamp(want, **said)
    again = policy.clamp(once.granted, **said)
    assert again.granted == once.granted
    assert not again.clamped
    assert again.binding == ()
    if is_feasible(once.requested, contents, SHELF, today=TODAY, attributes=said):
        assert not once.clamped


@SETTINGS
@given(st.lists(documents("law"), max_size=2), documents(), asked, statements)
def test_an_inner_document_only_removes(
    outer: list[dict[str, Any]], inner: dict[str, Any], want: dict[str, str], said: dict[str, str]
) -> None:
    wide, narrow = consistent_policy(outer), consistent_policy([*outer, inner])
    granted = narrow.clamp(want, **said).granted
    assert wide.clamp(granted, **said).granted == granted


LENGTH_OR = {"rule": "exclusive", "dimension": "length"}
ELEMENTARY_OR_EXPERT = {"rule": "exclusive", "adapters": ["elementary", "expert"]}
ELEMENTARY_OR_CONCISE = {"rule": "exclusive", "adapters": ["concise", "elementary"]}


@SETTINGS
@given(documents(), documents(), asked, statements)
@example(  # two choices that leave the same face for different reasons
    one_document("organisation", "A", [LENGTH_OR, ELEMENTARY_OR_EXPERT], {}),
    one_document("organisation", "A", [ELEMENTARY_OR_CONCISE], {}),
    {"elementary": "0.000001", "expert": "0.000001"},
    {},
)
def test_documents_of_one_tier_commute(
    first: dict[str, Any], second: dict[str, Any], want: dict[str, str], said: dict[str, str]
) -> None:
    left, right = consistent_policy([first, second]), consistent_policy([second, first])
    assert left.digest == right.digest
    assert left.clamp(want, **said) == right.clamp(want, **said)


@SETTINGS
@given(documents(), asked, statements)
def test_a_document_twice_is_the_document_once(
    content: dict[str, Any], want: dict[str, str], said: dict[str, str]
) -> None:
    once, twice = (
        consistent_policy([content]).clamp(want, **said),
        consistent_policy([content, content]).clamp(want, **said),
    )
    assert (once.granted, once.binding) == (twice.granted, twice.binding)


@SETTINGS
@given(st.lists(documents(), max_size=2), asked, statements)
def test_saying_less_never_gets_more(
    contents: list[dict[str, Any]], want: dict[str, str], said: dict[str, str]
) -> None:
    policy = consistent_policy(contents)
    for forgotten in said:
        silent = policy.clamp(want, **{key: value for key, value in said.items() if key != forgotten})
        assert policy.clamp(silent.granted, **said).granted == silent.granted
    silent = policy.clamp(want, **said)
    assert policy.clamp(silent.granted, sources="explicit", **said).granted == silent.granted


@SETTINGS
@given(st.lists(documents(), max_size=2), asked, statements, st.permutations(NAMES), st.permutations(range(6)))
def test_names_and_order_do_not_matter(
    contents: list[dict[str, Any]],
    want: dict[str, str],
    said: dict[str, str],
    renamed: list[str],
    order: list[int],
) -> None:
    new = {old: f"z-{name}" for old, name in zip(NAMES, renamed, strict=True)}

    def rename(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: rename(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [rename(v, key) for v in value]
        return new[value] if key in ("adapter", "name", "adapters") else value

    before = consistent_policy(contents).clamp(want, **said)
    shelf = Shelf(replace(SHELF[index], name=new[SHELF[index].name]) for index in order)
    after = consistent_policy(rename(contents), shelf).clamp(
        {new[name]: number for name, number in want.items()}, **said
    )
    assert {new[name]: micro for name, micro in before.granted.items()} == dict(after.granted)


@SETTINGS
@given(st.lists(documents(), max_size=2), asked, statements)
def test_a_record_is_the_grant(contents: list[dict[str, Any]], want: dict[str, str], said: dict[str, str]) -> None:
    grant = consistent_policy(contents).clamp(want, **said)
    assert read_record(json.loads(json.dumps(grant.to_dict()))).to_dict() == grant.to_dict()


@SETTINGS
@given(st.lists(documents(most=6), min_size=1, max_size=2), asked)
def test_a_conflict_is_real(contents: list[dict[str, Any]], want: dict[str, str]) -> None:
    """Where a policy is refused as empty, neither 0 nor what smaller policies grant is a counterexample."""
    points = [{}, Policy.open(SHELF).clamp(want).granted, consistent_policy(contents[:1]).clamp(want).granted]
    if any(is_feasible(point, contents, SHELF, today=TODAY, attributes={}) for point in points):
        Policy.assemble([("x.yaml", parse(content)) for content in contents], SHELF, now=NOW)
