"""What each kind of rule becomes, inequality by inequality, and the words that say so."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from soupmix.errors import PolicyError, RecipeError, WeightError
from soupmix.policy import Policy, parse_document
from soupmix.policy.compare import difference
from soupmix.policy.rules import applies
from soupmix.projection import AnyConstraint, Ball, Choice, Constraint
from tests.support.policies import NOW, load, together
from tests.support.shelf import SHELF, Shelf, digest_of

NAMES = [ref.name for ref in sorted(SHELF, key=lambda ref: ref.digest)]
ALL = "friendly + informative + unfriendly + expert + concise + elementary"
WHOM = {"scope": {"audience": ["minor", "teen"]}}
FOR = " for audience minor or teen"


def until(day: str) -> dict[str, Any]:
    return {"report": digest_of("r"), "until": day}


APPROVE = {
    "rule": "approve",
    "adapters": [
        {"name": "elementary", "digest": digest_of("elementary"), "evidence": until("2026-11-23")},
        {"name": "expert", "digest": digest_of("another")},
        {"name": "concise", "digest": digest_of("concise"), "dimension": "style"},
        {"name": "friendly", "digest": digest_of("friendly"), "evidence": until("2026-11-24")},
        {"name": "informative", "digest": digest_of("informative")},
    ],
}
FIXED = [f"{sign}{name} <= {sign.strip('+')}{300_000}: fixed at 0.3" for name in ["friendly"] for sign in "+-"] + [
    f"{sign}{name} <= 0: fixed at 0" for name in NAMES[1:] for sign in "+-"
]
TOTAL = " ".join(f"+{name}" for name in NAMES)


def shown(constraint: AnyConstraint, exempt: Sequence[str] = ()) -> str:
    match constraint:
        case Constraint():
            signed = [
                f"{'+' if coef > 0 else '-'}{name}" for name, coef in zip(NAMES, constraint.coefs, strict=True) if coef
            ]
            unless = f" unless {' or '.join(exempt)}" if exempt else ""
            return f"{' '.join(signed)} <= {constraint.bound}: {constraint.text}{unless}"
        case Choice():
            options = [(sorted(NAMES[index] for index in support), most) for support, most in constraint.supports]
            return f"{options}: {constraint.text}"
        case Ball():
            return f"norm <= {constraint.share}: {constraint.text}"


def without(*names: str) -> list[str]:
    return sorted(set(NAMES) - set(names))


@pytest.mark.parametrize("scope", [{}, WHOM], ids=["all", "some"])
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"rule": "deny", "tag": "technical", "dimension": "length"}, ["+informative <= 0: denied@"]),
        ({"rule": "deny", "pole": "nobody"}, []),
        (
            {"rule": "bounds", "pole": "friendly", "at_least": "0.1", "at_most": "0.5"},
            ["+friendly <= 500000: at most 0.5@", "-friendly <= -100000: at least 0.1@"],
        ),
        ({"rule": "require", "adapter": "expert", "at_least": "0.2"}, ["-expert <= -200000: at least 0.2@"]),
        (
            {"rule": "group", "adapters": ["friendly", "concise"], "at_least": "0.1", "at_most": "0.9"},
            [
                "+friendly +concise <= 900000: concise + friendly at most 0.9@",
                "-friendly -concise <= -100000: concise + friendly at least 0.1@",
            ],
        ),
        (
            {"rule": "group", "dimension": "style", "at_most": "0.9"},
            ["+friendly +unfriendly <= 900000: style (friendly + unfriendly) at most 0.9@"],
        ),
        ({"rule": "group", "adapters": ["nobody"], "at_most": "0"}, []),
        ({"rule": "group", "adapters": ["nobody"], "at_least": "0"}, []),
        ({"rule": "budget", "at_most": "1.2"}, [f"{TOTAL} <= 1200000: all weights together at most 1.2@"]),
        ({"rule": "fix", "weights": {"friendly": "0.3"}}, [f"{line}@" for line in FIXED]),
        (
            {"rule": "source", "adapter": "friendly", "allow": ["explicit", "stored"]},
            ["+friendly <= 0: a weight that is not explicit or stored is 0@ unless explicit or stored"],
        ),
        (
            {"rule": "source", "dimension": "length", "allow": []},
            [
                f"+{name} <= 0: a weight that is not allowed from any source is 0@"
                for name in ("informative", "concise")
            ],
        ),
        (
            {"rule": "source", "adapter": "friendly", "allow": ["inferred", "stored", "explicit"]},
            [
                "+friendly <= 0: a weight that is not inferred or stored or explicit is 0@ "
                "unless inferred or stored or explicit"
            ],
        ),
        (
            {"rule": "exclusive", "adapters": ["friendly", "expert"]},
            [f"{[(without('expert'), None), (without('friendly'), None)]}: only one of expert, friendly at a time@"],
        ),
        (
            {"rule": "exclusive", "dimension": "length"},
            [
                f"{[(without('concise'), None), (without('informative'), None)]}: only one of concise, informative at a time@"
            ],
        ),
        (
            {
                "rule": "combinations",
                "allow": [
                    together("friendly", "nobody", at_most="0.7"),
                    together("expert", until="2026-11-24"),
                    together("concise", until="2026-11-23"),
                ],
            },
            ["[(['friendly'], 700000), (['expert'], None)]: not approved in this combination@"],
        ),
    ],
)
def test_a_rule_becomes(rule: dict[str, Any], expected: list[str], scope: dict[str, Any]) -> None:
    (placed,) = load(rule | scope)._regions.rules
    found = [shown(each, placed.exempt) for each in placed.constraints]
    assert found == [each.replace("@", FOR if scope else "") for each in expected]
    assert applies(placed.within, {"audience": "teen"})
    assert applies(placed.within, {"audience": "adult"}) == (not scope)
    assert placed.ref.id == "rules[0]"


@pytest.mark.parametrize("scope", [{}, WHOM], ids=["all", "some"])
def test_approvals_become(scope: dict[str, Any]) -> None:
    approvals, evidence = load(APPROVE | scope, {"rule": "evidence", **scope})._regions.rules
    another, expert = (digest_of(each)[:19] for each in ("another", "expert"))
    assert [shown(each).removesuffix(FOR if scope else "") for each in approvals.constraints] == [
        "+unfriendly <= 0: not approved",
        f"+expert <= 0: approved as {another}..., but this one is {expert}...",
        "+concise <= 0: approved with dimension style, but this one has length",
        "+elementary <= 0: its evaluation report counted until 2026-11-23",
    ]
    assert [shown(each).removesuffix(FOR if scope else "") for each in evidence.constraints] == [
        f"+{name} <= 0: approved without an evaluation report that counts"
        for name in ("informative", "expert", "concise", "elementary")
    ]


def test_the_defaults_become() -> None:
    regions = Policy.open(SHELF)._regions
    constraints = regions.constraints(0)
    assert regions.kinds.kind({}, {}) == 0
    assert [(shown(each), str(each.rule)) for each in constraints] == [
        *(
            (f"{sign}{name} <= {bound}: every weight at {words}", "built-in unit-interval")
            for name in NAMES
            for sign, bound, words in (("+", 10**6, "most 1"), ("-", 0, "least 0"))
        ),
        ("+expert +elementary <= 1000000: the poles of expertise together at most 1", "built-in one-dimension"),
        ("+informative +concise <= 1000000: the poles of length together at most 1", "built-in one-dimension"),
        ("+friendly +unfriendly <= 1000000: the poles of style together at most 1", "built-in one-dimension"),
        (f"{TOTAL} <= 1500000: all weights together at most 1.5", "built-in total-budget"),
    ]
    assert {(each.rule.tier, each.rule.issuer, each.rule.document) for each in constraints} == {
        ("built-in", "soupmix", "built-in")
    }
    assert sorted({each.rule.rank for each in constraints}) == [(-1, "", 0), (-1, "", 1), (-1, "", 2)]
    assert Policy.open(Shelf())._regions.constraints(0) == []


TOGETHER = (
    "no weights satisfy these rules together: {}; change one of them "
    "(for a request that does not state its attributes, the rules of all scopes apply together)"
)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        (
            [{"rule": "bounds", "adapter": "friendly", "at_least": "1.2"}],
            "built-in unit-interval: every weight at least 0, every weight at most 1; "
            "x.yaml (organisation) rules[0]: friendly at least 1.2",
        ),
        (
            [{"rule": "group", "dimension": "style", "at_least": "0.1"}, {"rule": "fix", "weights": {}, "id": "off"}],
            "x.yaml (organisation) rules[0]: style (friendly + unfriendly) at least 0.1; "
            "x.yaml (organisation) off: concise fixed at 0, elementary fixed at 0, expert fixed at 0, ...",
        ),
        (
            [{"rule": "group", "adapters": ["nobody"], "at_least": "0.1", "id": "ghosts"}],
            "x.yaml (organisation) ghosts: at least 0.1, and no known adapter matches",
        ),
        (
            [
                {"rule": "group", "dimension": "style", "at_least": "0.6"},
                {"rule": "deny", "dimension": "style", "id": "silent"},
            ],
            "x.yaml (organisation) rules[0]: style (friendly + unfriendly) at least 0.6; "
            "x.yaml (organisation) silent: friendly denied, unfriendly denied",
        ),
        (
            [{"rule": "fix", "weights": {"a": "0.1", "b": "0.2", "friendly": "0.1"}}],
            "x.yaml (organisation) rules[0]: fixes a, b, which are not known, and no known adapter matches",
        ),
        (
            [
                {"rule": "exclusive", "dimension": "style", "id": "one"},
                {"rule": "require", "dimension": "style", "at_least": "0.1", "id": "both"},
            ],
            "x.yaml (organisation) one: only one of friendly, unfriendly at a time; "
            "x.yaml (organisation) both: friendly at least 0.1, unfriendly at least 0.1",
        ),
    ],
)
def test_a_conflict_in_words(rules: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(*rules)
    assert str(caught.value) == TOGETHER.format(told)
    assert caught.value.reason == "conflict"


def test_kinds_of_requests_are_counted() -> None:
    deny = {"rule": "deny", "adapter": "friendly"}
    spoken = {"rule": "source", "adapter": "friendly", "allow": ["explicit"]}
    plain, minors, sourced = load(deny), load({**deny, "scope": {"audience": ["minor"]}}), load(spoken)
    assert difference(plain, plain).kinds == 1
    assert difference(plain, minors).kinds == 2
    assert difference(plain, sourced).kinds == 4, "not said, or one of three"
    assert difference(minors, sourced).kinds == 8
    scoped = load({**spoken, "scope": {"audience": ["minor"]}})
    assert difference(plain, scoped).kinds == 7, "of explicit weights, minors and others are granted the same"


def test_what_is_undecided_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soupmix.projection.containment._MOST_BRANCHES", 0)
    rule = {"rule": "source", "adapter": "friendly", "allow": ["explicit"], "scope": {"audience": ["minor"]}}
    sources = ("", ", weights explicit", ", weights stored", ", weights inferred")
    assert difference(load(), load(rule)).undecided == tuple(
        f"{who}{said}: there are too many combinations to decide"
        for who in ("a request that says nothing", "audience any-other-value")
        for said in sources
        if (who, said) != ("audience any-other-value", ", weights explicit")  # granted as those that say nothing are
    )


@pytest.mark.parametrize(
    ("ask", "error", "sentence", "reason"),
    [
        (
            {"sources": {"freindly": "explicit"}},
            WeightError,
            "unknown adapter 'freindly' (did you mean 'friendly'?); known are: concise, elementary, expert, friendly, "
            "informative, unfriendly",
            "unknown-adapter",
        ),
        (
            {"sources": {"friendly": "x" * 100}},
            RecipeError,
            f"unknown source '{'x' * 79} of weights; known are explicit, stored, inferred",
            "unknown-source",
        ),
        (
            {"age": "1"},
            RecipeError,
            "unknown attribute 'age'; known are jurisdiction, audience, purpose, tenant",
            "unknown-attribute",
        ),
        (
            {"tenant": "A"},
            RecipeError,
            "attribute tenant: 'A' is not an attribute value; use 1 to 63 of a-z, 0-9, '.', '-' and '_'",
            "bad-attribute",
        ),
    ],
)
def test_a_request_that_makes_no_sense_in_words(
    ask: dict[str, Any], error: type[Exception], sentence: str, reason: str
) -> None:
    with pytest.raises(error) as caught:
        load().clamp("friendly=0.1", **ask)
    assert str(caught.value) == sentence
    assert getattr(caught.value, "reason", None) == reason


def test_bindings_come_outer_tier_first_and_a_norm_is_in_its_own_words() -> None:
    def said(tier: str, *rules: dict[str, Any]) -> tuple[str, Any]:
        content = {"tier": tier, "issuer": tier.upper(), "version": "1", "rules": list(rules)}
        return f"{tier}.yaml", parse_document(json.dumps(content), tier)

    cap = {"rule": "bounds", "adapter": "friendly", "at_most": "0.5"}
    policy = Policy.assemble([said("law", cap), said("organisation", cap), said("user", cap)], SHELF, now=NOW)
    grant = policy.clamp("friendly=0.7")
    assert [(each.tier, each.issuer, each.document, each.multiplier) for each in grant.binding] == [
        (tier, tier.upper(), f"{tier}.yaml", "0.2") for tier in ("law", "organisation", "user")
    ]
    assert grant.distance == "0.2"
