"""Documents to begin with, and what documents say in sentences."""

from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.policy import parse_document
from soupmix.policy.near import misspelt
from soupmix.policy.prose import prose
from soupmix.policy.rules import RULES
from soupmix.policy.starting import example_documents
from soupmix.store import Store

Run = Callable[..., tuple[int, str, str]]
PLAIN = "tier: law\nissuer: Acme\nversion: 3\n"
HEAD = PLAIN + "valid: {from: 2026-01-01, until: 2027-01-01}\n"
REPORT = "{report: 'sha256:" + "b" * 64 + "', until: 2027-06-30}"
EVERY = f"""{HEAD}rules:
- {{rule: approve, adapters: [{{name: a, digest: 'sha256:{"a" * 64}', evidence: {REPORT}}}]}}
- {{rule: deny, pole: rude, tag: raw, scope: {{audience: [minor]}}, mode: refuse, public_reason: not for minors}}
- {{rule: bounds, adapter: a, at_least: 0.1, at_most: 0.5}}
- {{rule: require, dimension: tone, at_least: 0.2}}
- {{rule: group, adapters: [a, b], at_most: 1}}
- {{rule: budget, at_most: 1.5}}
- {{rule: fix, weights: {{a: 0.3}}}}
- {{rule: source, allow: [explicit, stored]}}
- {{rule: exclusive, dimension: tone}}
- {{rule: combinations, allow: [{{adapters: [a, b], at_most: 1, evidence: {REPORT}}}]}}
- {{rule: evidence, adapter: a}}
- {{rule: norm, at_most: 0.02}}
- {{rule: infer, dimensions: [tone, length]}}
- {{rule: infer, dimensions: [], scope: {{audience: [minor]}}}}
obligations:
- {{oblige: disclose, what: ai}}
- {{oblige: log, level: grants, scope: {{purpose: [support]}}}}
- {{oblige: offer, what: erasure}}
- {{oblige: retain, days: 30}}
"""


def test_every_rule_and_obligation_is_a_sentence() -> None:
    document = parse_document(EVERY, "acme.yaml")
    assert {each.rule for each in document.rules} == set(RULES)
    head, *lines = prose(document, "acme.yaml")
    named = f"; {document.ref('acme.yaml').digest}"
    assert head == "acme.yaml: law, by Acme, version 3, from 2026-01-01, until 2027-01-01" + named
    assert lines == [
        "- rules[0]: only these adapters may be used, by digest: a (its report counts until 2027-06-30).",
        "- rules[1]: what has pole rude and tag raw may not be used, where audience minor or not said. Else the request is "
        "refused. Told to people: not for minors.",
        "- rules[2]: what has adapter a has a weight of at least 0.1 and at most 0.5.",
        "- rules[3]: what has dimension tone has a weight of at least 0.2.",
        "- rules[4]: a + b together have weights of at most 1.",
        "- rules[5]: all weights together are at most 1.5.",
        "- rules[6]: nothing is personalised, and the weights are a 0.3.",
        "- rules[7]: every adapter counts only with a weight from this source: explicit or stored.",
        "- rules[8]: only one of the poles of tone is used at a time.",
        "- rules[9]: only these are used together, or part of them: a + b (at most 1 in all) until 2027-06-30.",
        "- rules[10]: what has adapter a may not be used without an evaluation report that still counts.",
        "- rules[11]: the merged change is at most 0.02 of the norm of the base's weights that it changes.",
        "- rules[12]: only weights of tone, length may be inferred; those of all others have to be chosen.",
        "- rules[13]: no weight may be inferred, and no evidence is kept of what anybody wants, where audience minor or not "
        "said.",
        "- obliges to tell the person that it is a machine.",
        "- obliges to keep an audit record of grants, where purpose support or not said.",
        "- obliges to offer erasure.",
        "- obliges to keep records and profiles for at most 30 days.",
    ]
    assert prose(parse_document(f"{HEAD}rules: []", "x"), "x")[1:] == ("- says nothing.",)


def test_what_is_begun_with_is_a_policy_over_these_adapters(run: Run, pico_store: Store, tmp_path: Path) -> None:
    where, out = ("--store", pico_store.folder), tmp_path / "policy"
    code, said, err = run("policy", "init", out, "--with", "opt-out", *where)
    assert (code, said) == (0, f"{out}\n"), err
    assert sorted(path.name for path in out.iterdir()) == ["law.yaml", "opt-out.yaml", "organisation.yaml"]
    assert run("policy", "check", out, *where)[0] == 0
    assert "calm, loud, plain" in run("policy", "explain", out)[1]
    assert "calm=1" in run("merge", "-w", "calm=1", "--policy", out, "--attribute", "tenant=me", "--dry-run", *where)[1]
    assert run("policy", "init", out, *where)[0] == 1
    code, _, err = run("policy", "init", tmp_path / "other", "--with", "nothing", *where)
    assert (code, all(name in err for name in example_documents())) == (2, True)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("rule: deny, adapter: clam", "no adapter is called 'clam'; did you mean 'calm'?"),
        ("rule: deny, dimension: lowd", "no dimension is called 'lowd'; did you mean 'loud'?"),
        ("rule: group, adapters: [calm, plian], at_most: 1", "no adapter is called 'plian'; did you mean 'plain'?"),
        ("rule: infer, dimensions: [lowd, calm]", "no dimension is called 'lowd'; did you mean 'loud'?"),
        ("rule: fix, weights: {lod: 1}", "no adapter is called 'lod'; did you mean 'loud'?"),
    ],
)
def test_what_is_nearly_a_name_is_refused_by_check(
    run: Run, pico_store: Store, tmp_path: Path, rule: str, words: str
) -> None:
    path = tmp_path / "acme.yaml"
    path.write_text(f"{PLAIN}rules:\n- {{id: r, {rule}}}\n- {{rule: deny, adapter: unheardof}}\n")
    document = parse_document(path.read_text(), "acme.yaml")
    (only,) = misspelt([("acme.yaml", document)], pico_store)
    assert words in only
    if "fix" not in rule:  # a weight of nobody contradicts all else before
        code, _, err = run("policy", "check", path, "--store", pico_store.folder)
        assert (code, words in err) == (1, True)


def test_all_that_is_nearly_a_name_is_told_with_its_line(run: Run, pico_store: Store, tmp_path: Path) -> None:
    first, second = tmp_path / "law.yaml", tmp_path / "other" / "law.yaml"
    second.parent.mkdir()
    first.write_text(f"{PLAIN}rules:\n- rule: bounds\n  adapter: clam\n  at_most: 0.5\n")
    second.write_text(f"{PLAIN}rules:\n- {{rule: deny, adapter: x}}\n\n- {{rule: deny, dimension: lowd, id: r}}\n")
    code, _, err = run("policy", "check", first, second, "--store", pico_store.folder)
    above = PLAIN.count("\n") + 2
    assert code == 1
    assert f"law.yaml (law) rules[0], line {above}: no adapter is called 'clam'; did you mean 'calm'?" in err
    assert f"law.yaml (law) r, line {above + 2}: no dimension is called 'lowd'; did you mean 'loud'?" in err


def test_a_value_that_no_document_names_is_noted(pico_store: Store, tmp_path: Path) -> None:
    from soupmix.policy import Policy
    from soupmix.policy.recorded import read_record

    path = tmp_path / "acme.yaml"
    scope = "{audience: [minor]}"
    path.write_text(f"{PLAIN}rules:\n- {{rule: bounds, adapter: calm, at_most: 0.2, scope: {scope}}}\n")
    policy = Policy.load(path, adapters=pico_store)
    assert policy.values == {"audience": ("minor",)}
    assert policy.clamp({"calm": 1}, audience="minor", tenant="me").notes == ()
    grant = policy.clamp({"calm": 1}, audience="mnior")
    assert "note: no document names the audience mnior" in grant.explain()
    assert read_record(grant.to_dict()).to_dict() == grant.to_dict()
    assert Policy.open(pico_store).clamp({"calm": 1}, audience="mnior").notes == ()
