"""Laws of the policy, judged by a reading of the rules that shares no code with their compilation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import sqrt
from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from soupmix.errors import PolicyError
from soupmix.policy import Document, Policy, parse_document
from soupmix.policy.recorded import read_record
from soupmix.policy.spec import is_feasible
from soupmix.weights import decimal_text
from tests.support.shelf import NAMES, SHELF, TODAY, Shelf, digest_of

SETTINGS = settings(max_examples=150, deadline=None)

fractions = st.integers(0, 1_200_000).map(decimal_text) | st.sampled_from(["0", "0.3", "0.5", "1", "1.5"])
small = st.integers(0, 200_000).map(decimal_text)
audience = st.sampled_from([{}, {}, {"audience": ["minor"]}, {"audience": ["adult", "minor"]}, {"tenant": ["acme"]}])
selectors = st.sampled_from(
    [{"adapter": name} for name in NAMES]
    + [{"dimension": "style"}, {"pole": "unfriendly"}, {"dimension": "length", "pole": "concise"}, {"tag": "technical"}]
)
groups = st.one_of(
    st.sampled_from([{"dimension": "expertise"}, {"dimension": "style"}]),
    st.lists(st.sampled_from(NAMES), min_size=1, unique=True).map(lambda names: {"adapters": names}),
)
limits = st.one_of(
    fractions.map(lambda high: {"at_most": high}),
    fractions.map(lambda high: {"at_most": high}),
    small.map(lambda low: {"at_least": low}),
)


def _report(until: str) -> dict[str, Any]:
    return {"evidence": {"report": digest_of("report"), "until": until}}


def _approved(names: Sequence[str], wrong: set[str], until: str | None) -> dict[str, Any]:
    report = _report(until) if until else {}
    listed = [{"name": name, "digest": digest_of("other" if name in wrong else name), **report} for name in names]
    return {"rule": "approve", "adapters": listed}


def _together(supports: list[tuple[list[str], str, str | None]]) -> dict[str, Any]:
    allow = [
        {"adapters": names, **_report(until), **({"at_most": most} if most else {})} for names, until, most in supports
    ]
    return {"rule": "combinations", "allow": allow}


untils = st.sampled_from(["2026-11-24", "2027-06-30", "2027-06-30", "2026-11-23"])
supports = st.tuples(st.lists(st.sampled_from(NAMES), min_size=1, unique=True), untils, st.none() | fractions)
sourced = st.lists(st.sampled_from(["explicit", "stored", "inferred"]), max_size=2, unique=True)
unions = st.one_of(
    st.sampled_from([{"dimension": "length"}, {"dimension": "style"}]).map(lambda g: {"rule": "exclusive", **g}),
    st.lists(st.sampled_from(NAMES), min_size=2, unique=True).map(
        lambda names: {"rule": "exclusive", "adapters": names}
    ),
    st.lists(supports, max_size=4).map(_together),
)
rules = st.one_of(
    unions,
    st.builds(lambda s, low: {"rule": "require", **s, "at_least": low}, selectors, small),
    st.dictionaries(st.sampled_from(NAMES), small, max_size=2).map(lambda w: {"rule": "fix", "weights": w}),
    st.builds(lambda s, allow: {"rule": "source", **s, "allow": allow}, selectors | st.just({}), sourced),
    (selectors | st.just({})).map(lambda s: {"rule": "evidence", **s}),
    selectors.map(lambda s: {"rule": "deny", **s}),
    st.builds(lambda s, b: {"rule": "bounds", **s, **b}, selectors, limits),
    st.builds(lambda g, b: {"rule": "group", **g, **b}, groups, limits),
    fractions.map(lambda high: {"rule": "budget", "at_most": high}),
    st.builds(
        _approved,
        st.lists(st.sampled_from(NAMES), min_size=3, unique=True),
        st.sets(st.sampled_from(NAMES)),
        st.none() | untils,
    ),
)
scoped = st.builds(lambda rule, scope: {**rule, "scope": scope}, rules, audience)


def _document(tier: str, issuer: str, found: list[dict[str, Any]], scope: dict[str, Any]) -> dict[str, Any]:
    approvals = 0
    kept = []
    for rule in found:  # one approve rule a document, as two of one scope are refused
        approvals += rule["rule"] == "approve"
        if rule["rule"] != "approve" or approvals == 1:
            kept.append(rule)
    return {"tier": tier, "issuer": issuer, "version": "1", "scope": scope, "rules": kept}


def documents(tier: str = "organisation", most: int = 4) -> st.SearchStrategy[dict[str, Any]]:
    issuers = st.sampled_from(["A", "B", "C"])
    return st.builds(_document, st.just(tier), issuers, st.lists(scoped, max_size=most), audience)


asked = st.dictionaries(st.sampled_from(NAMES), st.integers(-300_000, 1_500_000).map(decimal_text))
statements = st.fixed_dictionaries(
    {}, optional={"audience": st.sampled_from(["minor", "adult"]), "tenant": st.sampled_from(["acme", "zeta"])}
)


def parse(content: dict[str, Any]) -> Document:
    return parse_document(json.dumps(content), "x.yaml")


NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def build(contents: Sequence[dict[str, Any]], refs: Shelf = SHELF) -> Policy:
    try:
        return Policy.assemble([("x.yaml", parse(content)) for content in contents], refs, now=NOW)
    except PolicyError as error:
        assume(error.reason != "conflict")
        raise


origins = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["explicit", "stored", "inferred"]))


@SETTINGS
@given(st.lists(documents(), max_size=2), asked, statements, origins)
def test_a_grant_never_violates(
    contents: list[dict[str, Any]], want: dict[str, str], said: dict[str, str], sources: dict[str, str]
) -> None:
    grant = build(contents).clamp(want, sources=sources, **said)
    assert is_feasible(grant.granted, contents, SHELF, today=TODAY, attributes=said, sources=sources)
    assert set(grant.granted) <= set(grant.digests) == set(grant.granted)
    assert grant.clamped == bool({n for n in NAMES if grant.granted.get(n, 0) != grant.requested.get(n, 0)})
    assert grant.clamped <= bool(grant.binding), "every change has a reason"


@SETTINGS
@given(st.lists(documents(), max_size=2), asked, st.lists(asked, min_size=1, max_size=4), statements)
def test_no_feasible_point_is_nearer(
    contents: list[dict[str, Any]], want: dict[str, str], others: list[dict[str, str]], said: dict[str, str]
) -> None:
    policy = build(contents)
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
    policy = build(contents)
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
    wide, narrow = build(outer), build([*outer, inner])
    granted = narrow.clamp(want, **said).granted
    assert wide.clamp(granted, **said).granted == granted


LENGTH_OR = {"rule": "exclusive", "dimension": "length"}
ELEMENTARY_OR_EXPERT = {"rule": "exclusive", "adapters": ["elementary", "expert"]}
ELEMENTARY_OR_CONCISE = {"rule": "exclusive", "adapters": ["concise", "elementary"]}


@SETTINGS
@given(documents(), documents(), asked, statements)
@example(  # two choices that leave the same face for different reasons
    _document("organisation", "A", [LENGTH_OR, ELEMENTARY_OR_EXPERT], {}),
    _document("organisation", "A", [ELEMENTARY_OR_CONCISE], {}),
    {"elementary": "0.000001", "expert": "0.000001"},
    {},
)
def test_documents_of_one_tier_commute(
    first: dict[str, Any], second: dict[str, Any], want: dict[str, str], said: dict[str, str]
) -> None:
    left, right = build([first, second]), build([second, first])
    assert left.digest == right.digest
    assert left.clamp(want, **said) == right.clamp(want, **said)


@SETTINGS
@given(documents(), asked, statements)
def test_a_document_twice_is_the_document_once(
    content: dict[str, Any], want: dict[str, str], said: dict[str, str]
) -> None:
    once, twice = build([content]).clamp(want, **said), build([content, content]).clamp(want, **said)
    assert (once.granted, once.binding) == (twice.granted, twice.binding)


@SETTINGS
@given(st.lists(documents(), max_size=2), asked, statements)
def test_saying_less_never_gets_more(
    contents: list[dict[str, Any]], want: dict[str, str], said: dict[str, str]
) -> None:
    policy = build(contents)
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

    before = build(contents).clamp(want, **said)
    shelf = Shelf(replace(SHELF[index], name=new[SHELF[index].name]) for index in order)
    after = build(rename(contents), shelf).clamp({new[name]: number for name, number in want.items()}, **said)
    assert {new[name]: micro for name, micro in before.granted.items()} == dict(after.granted)


@SETTINGS
@given(st.lists(documents(), max_size=2), asked, statements)
def test_a_record_is_the_grant(contents: list[dict[str, Any]], want: dict[str, str], said: dict[str, str]) -> None:
    grant = build(contents).clamp(want, **said)
    assert read_record(json.loads(json.dumps(grant.to_dict()))).to_dict() == grant.to_dict()


@SETTINGS
@given(st.lists(documents(most=6), min_size=1, max_size=2), asked)
def test_a_conflict_is_real(contents: list[dict[str, Any]], want: dict[str, str]) -> None:
    """Where a policy is refused as empty, neither 0 nor what smaller policies grant is a counterexample."""
    points = [{}, Policy.open(SHELF).clamp(want).granted, build(contents[:1]).clamp(want).granted]
    if any(is_feasible(point, contents, SHELF, today=TODAY, attributes={}) for point in points):
        Policy.assemble([("x.yaml", parse(content)) for content in contents], SHELF, now=NOW)
