"""The rules one by one: what a person gets, and the words that explain it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from soupmix.errors import PolicyError, PolicyRefusal, RecipeError
from soupmix.policy import Policy, parse_document
from soupmix.policy.cases import read_cases, run
from tests.support.policies import NOW, load, together
from tests.support.shelf import SHELF, digest_of


def test_what_is_not_approved_together_is_refused_together() -> None:
    """Colluding adapters: each passes alone, both together do not (arXiv 2603.12681)."""
    alone = load(
        {"rule": "approve", "adapters": [{"name": n, "digest": digest_of(n)} for n in ("elementary", "friendly")]}
    )
    assert set(alone.clamp("elementary=0.5,friendly=0.6").granted) == {"elementary", "friendly"}
    apart = load({"rule": "combinations", "allow": [together("elementary"), together("friendly")], "id": "apart"})
    grant = apart.clamp("elementary=0.5,friendly=0.6")
    assert dict(grant.granted) == {"friendly": 600_000}
    (binding,) = grant.binding
    assert (binding.rule, binding.adapters, binding.limit) == (
        "apart",
        ("elementary",),
        "not approved in this combination",
    )
    assert binding.multiplier == "0.5"
    assert grant.distance == "0.5"


def test_a_combination_has_its_own_total() -> None:
    policy = load({"rule": "combinations", "allow": [together("elementary", "friendly", at_most="0.8")]})
    assert policy.clamp("elementary=0.5,friendly=0.5").granted.decimals() == {"elementary": "0.4", "friendly": "0.4"}
    assert policy.clamp("concise=1").granted.decimals() == {}


def test_a_report_that_ended_takes_its_combination_along() -> None:
    rule = {"rule": "combinations", "allow": [together("friendly", until="2026-11-23"), together("concise")]}
    assert load(rule).clamp("friendly=0.6,concise=0.5").granted.decimals() == {"concise": "0.5"}


def test_what_ends_while_the_policy_is_in_use_is_refused() -> None:
    content = {"tier": "organisation", "issuer": "A", "version": "1", "rules": [], "valid": {"until": "2026-11-24"}}
    clock = [NOW]
    policy = Policy.assemble([("x.yaml", parse_document(json.dumps(content), "x.yaml"))], SHELF, now=lambda: clock[0])
    policy.clamp("friendly=0.5")
    clock[0] = datetime(2026, 11, 25, tzinfo=UTC)
    with pytest.raises(PolicyRefusal, match="ended on 2026-11-24") as caught:
        policy.clamp("friendly=0.5")
    assert caught.value.reason == "ended"


def test_a_tie_between_faces_goes_to_the_first_digest() -> None:
    policy = load({"rule": "exclusive", "dimension": "length"})
    first = min(("concise", "informative"), key=digest_of)
    assert list(policy.clamp("concise=0.3,informative=0.3").granted) == [first]


def test_fix_turns_personalisation_off() -> None:
    off = {"rule": "fix", "weights": {}, "scope": {"audience": ["minor"]}}
    policy = load(off)
    assert policy.clamp("friendly=0.7").granted.decimals() == {}, "an audience that is not said may be minors"
    assert policy.clamp("friendly=0.7", audience="adult").granted.decimals() == {"friendly": "0.7"}
    default = load({"rule": "fix", "weights": {"concise": "0.2"}})
    assert default.clamp("friendly=0.7").granted.decimals() == {"concise": "0.2"}
    with pytest.raises(PolicyError, match="fixes concis, which is not known"):
        load({"rule": "fix", "weights": {"concis": "0.2"}})


def test_sources() -> None:
    policy = load({"rule": "source", "dimension": "style", "allow": ["explicit"], "id": "explicit-only"})
    want = "friendly=0.4,concise=0.4"
    assert policy.clamp(want).granted.decimals() == {"concise": "0.4"}
    assert policy.clamp(want, sources="inferred").granted.decimals() == {"concise": "0.4"}
    assert policy.clamp(want, sources="explicit").granted.decimals() == {"concise": "0.4", "friendly": "0.4"}
    grant = policy.clamp(want, sources={"friendly": "explicit", "concise": "inferred"})
    assert grant.granted.decimals() == {"concise": "0.4", "friendly": "0.4"}
    assert grant.to_dict()["sources"] == {"concise": "inferred", "friendly": "explicit"}
    with pytest.raises(RecipeError, match="unknown source 'guessed'"):
        policy.clamp(want, sources="guessed")


def test_a_rule_that_allows_every_source_asks_that_one_is_said() -> None:
    policy = load({"rule": "source", "adapter": "friendly", "allow": ["explicit", "stored", "inferred"]})
    assert policy.clamp("friendly=1").granted.decimals() == {}
    assert policy.clamp("friendly=1", sources="inferred").granted.decimals() == {"friendly": "1"}
    assert not any("no known adapter" in note for note in policy.notes)


def test_evidence_asks_for_a_report_that_counts() -> None:
    def listed(until: str | None) -> dict[str, Any]:
        report = {"evidence": {"report": digest_of("r"), "until": until}} if until else {}
        return {"rule": "approve", "adapters": [{"name": "friendly", "digest": digest_of("friendly"), **report}]}

    asks = {"rule": "evidence"}
    assert load(listed("2027-01-01"), asks).clamp("friendly=0.5").granted.decimals() == {"friendly": "0.5"}
    assert load(listed(None), asks).clamp("friendly=0.5").granted.decimals() == {}
    assert load(listed(None)).clamp("friendly=0.5").granted.decimals() == {"friendly": "0.5"}
    assert load(listed("2026-11-23")).clamp("friendly=0.5").granted.decimals() == {}


def test_a_rule_that_refuses_does_not_clamp() -> None:
    policy = load({"rule": "deny", "pole": "unfriendly", "mode": "refuse", "id": "never", "public_reason": "not here"})
    policy.clamp("friendly=1.4")
    with pytest.raises(PolicyRefusal, match=r"refused, not clamped \(unfriendly\): .*not here") as caught:
        policy.clamp("unfriendly=0.1")
    assert caught.value.reason == "refused-by-rule"
    assert [each.rule for each in caught.value.rules] == ["never"]


def test_obligations_are_united_and_the_strictest_hold() -> None:
    policy = load(
        obligations=[
            {"oblige": "disclose", "what": "ai"},
            {"oblige": "log", "level": "grants"},
            {"oblige": "log", "level": "refusals"},
            {"oblige": "retain", "days": "90"},
            {"oblige": "retain", "days": "30", "scope": {"audience": ["minor"]}},
            {"oblige": "offer", "what": "opt-out", "scope": {"audience": ["adult"]}},
        ]
    )
    assert policy.clamp({}, audience="minor").obligations == ("disclose ai", "log grants", "retain 30")
    assert policy.clamp({}, audience="adult").obligations == ("disclose ai", "log grants", "offer opt-out", "retain 90")
    assert "obliged to: disclose ai" in policy.clamp({}).explain()


def test_an_obligation_holds_where_its_document_does() -> None:
    policy = load(obligations=[{"oblige": "disclose", "what": "ai"}], scope={"audience": ["minor"]})
    assert policy.clamp({}).obligations == policy.clamp({}, audience="minor").obligations == ("disclose ai",)
    assert policy.clamp({}, audience="adult").obligations == ()


def test_internal_reasons_stay_inside() -> None:
    policy = load(
        {
            "rule": "deny",
            "adapter": "expert",
            "id": "x",
            "public_reason": "not offered",
            "internal_reason": "lawsuit 12",
        }
    )
    grant = policy.clamp("expert=0.5")
    assert "lawsuit" not in json.dumps(grant.to_dict()) + grant.explain()
    assert policy.internal_reasons(grant) == {"x.yaml x": "lawsuit 12"}


def test_too_many_combinations_are_refused() -> None:
    from itertools import combinations

    many = Policy.open(tuple(SHELF))
    assert many.names
    supports = [together(*pair) for pair in combinations([f"a{n}" for n in range(40)], 2)]
    refs = [{"name": f"a{n}", "digest": digest_of(str(n))} for n in range(40)]
    content = {
        "tier": "organisation",
        "issuer": "A",
        "version": "1",
        "rules": [{"rule": "approve", "adapters": refs}, {"rule": "combinations", "allow": supports}],
    }
    with pytest.raises(PolicyError, match=r"more than 512 sets .*, and at most 512 are decided; list fewer") as caught:
        Policy.assemble([("x.yaml", parse_document(json.dumps(content), "x.yaml"))], (), now=NOW)
    assert caught.value.reason == "too-many-combinations"


CASES = """
cases:
  - name: minors are not answered rudely
    weights: {unfriendly: 0.4}
    attributes: {audience: minor}
    expect: {granted: {}, bound_by: [no-rude]}
  - name: adults may choose
    weights: {unfriendly: 0.4}
    attributes: {audience: adult}
    sources: explicit
    expect: {granted: {unfriendly: 0.4}, clamped: no}
  - name: wrong on purpose
    weights: {friendly: 0.9}
    expect: {granted: {friendly: 0.8}, refused: never}
"""


def test_cases_are_judged_and_rules_that_never_bound_are_named(tmp_path: Path) -> None:
    file = tmp_path / "cases.yaml"
    file.write_text(CASES)
    policy = load(
        {"rule": "deny", "adapter": "unfriendly", "scope": {"audience": ["minor"]}, "id": "no-rude"},
        {"rule": "budget", "at_most": "1.2", "id": "budget"},
    )
    report = run(policy, read_cases(file))
    assert [bool(each.failures) for each in report.results] == [False, False, True]
    assert report.results[2].failures == (
        "refused: expected never, got a grant",
        "granted: expected friendly 0.8, got friendly 0.9",
    )
    assert [ref.id for ref in report.never_bound] == ["budget"]
    file.write_text(CASES.replace("friendly: 0.9", "friendly: 0.1234567"))
    with pytest.raises(PolicyError) as caught:
        read_cases(file)
    assert str(caught.value) == (
        "cases.yaml: cases.2.weights.friendly: the number = '0.1234567' is finer than a millionth; round it yourself"
    )
    assert caught.value.reason == "bad-cases"
    file.write_text(CASES.replace("clamped: no", "clamped: maybe"))
    with pytest.raises(PolicyError, match=r"cases\.yaml: cases\.1\.expect\.clamped"):
        read_cases(file)


def test_cases_can_expect_refusals_and_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "cases.yaml"
    case = "  - {name: %s, weights: {%s: 0.5}, expect: {refused: %s}}"
    rows = [
        case % each
        for each in (("r", "expert", "refused-by-rule"), ("u", "exprt", "unknown-adapter"), ("w", "expert", "ended"))
    ]
    file.write_text("\n".join(["cases:", *rows, "  - {name: n, weights: {exprt: 0.5}, expect: {}}"]))
    policy = load({"rule": "deny", "adapter": "expert", "mode": "refuse", "id": "never"})
    report = run(policy, read_cases(file))
    assert [len(each.failures) for each in report.results] == [0, 0, 1, 1]
    assert report.results[2].failures[0].startswith("refused (refused-by-rule)")
    assert report.results[3].failures[0].startswith("not a request (unknown-adapter)")
    assert report.never_bound == ()
    assert not report.ok


def test_a_case_says_where_its_weights_come_from(tmp_path: Path) -> None:
    file = tmp_path / "cases.yaml"
    file.write_text(
        "cases:\n"
        "  - {name: inferred, weights: {friendly: 0.4}, sources: inferred, expect: {clamped: yes, bound_by: [said]}}\n"
        "  - {name: said, weights: {friendly: 0.4}, sources: {friendly: explicit}, expect: {clamped: no, obligations: []}}\n"
        "  - {name: wrong, weights: {}, expect: {clamped: yes, bound_by: [b, a], obligations: [log grants]}}\n"
    )
    policy = load({"rule": "source", "adapter": "friendly", "allow": ["explicit"], "id": "said"})
    report = run(policy, read_cases(file))
    assert [(each.name, each.failures) for each in report.results] == [
        ("inferred", ()),
        ("said", ()),
        (
            "wrong",
            (
                "clamped: expected yes, got no",
                "bound_by: expected a, b, got ",
                "obligations: expected log grants, got ",
            ),
        ),
    ]
    assert not report.ok


def test_a_number_of_days_is_a_number() -> None:
    with pytest.raises(PolicyError, match="is not a number of days"):
        load(obligations=[{"oblige": "retain", "days": "3_0"}])
    with pytest.raises(PolicyError, match=r"unknown obligation 'pay'; known are disclose, log, offer, retain"):
        load(obligations=[{"oblige": "pay"}])
    with pytest.raises(PolicyError, match="give exactly one of the two"):
        load({"rule": "exclusive"})
