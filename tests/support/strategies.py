"""Documents, requests and statements that hypothesis draws, over the adapters of the shelf."""

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from soupmix.errors import PolicyError
from soupmix.policy import Document, Policy, parse_document
from soupmix.weights import decimal_text
from tests.support.policies import NOW
from tests.support.shelf import NAMES, SHELF, Shelf, digest_of

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
sourced = st.lists(st.sampled_from(["explicit", "stored", "inferred"]), max_size=3, unique=True)
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
    st.lists(st.sampled_from(["style", "length", "expertise"]), max_size=2, unique=True).map(
        lambda found: {"rule": "infer", "dimensions": found}
    ),
    (selectors | st.just({})).map(lambda s: {"rule": "evidence", **dict(s)}),
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


def one_document(tier: str, issuer: str, found: list[dict[str, Any]], scope: dict[str, Any]) -> dict[str, Any]:
    approvals = 0
    kept = []
    for rule in found:  # one approve rule a document, as two of one scope are refused
        approvals += rule["rule"] == "approve"
        if rule["rule"] != "approve" or approvals == 1:
            kept.append(rule)
    return {"tier": tier, "issuer": issuer, "version": "1", "scope": scope, "rules": kept}


def documents(tier: str = "organisation", most: int = 4) -> st.SearchStrategy[dict[str, Any]]:
    issuers = st.sampled_from(["A", "B", "C"])
    return st.builds(one_document, st.just(tier), issuers, st.lists(scoped, max_size=most), audience)


asked = st.dictionaries(st.sampled_from(NAMES), st.integers(-300_000, 1_500_000).map(decimal_text))
statements = st.fixed_dictionaries(
    {}, optional={"audience": st.sampled_from(["minor", "adult"]), "tenant": st.sampled_from(["acme", "zeta"])}
)


def parse(content: dict[str, Any]) -> Document:
    return parse_document(json.dumps(content), "x.yaml")


def consistent_policy(contents: Sequence[dict[str, Any]], refs: Shelf = SHELF) -> Policy:
    try:
        return Policy.assemble([("x.yaml", parse(content)) for content in contents], refs, now=NOW)
    except PolicyError as error:
        assume(error.reason != "conflict")
        raise


origins = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["explicit", "stored", "inferred"]))
