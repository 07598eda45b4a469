"""Every way to get a document wrong is one sentence that names the file and the place in it."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from soupmix.errors import PolicyError
from soupmix.policy import Policy, parse_document
from soupmix.policy.rules import Bounds

HEAD = "tier: organisation\nissuer: Acme\nversion: 1\n"
DIGEST = "sha256:" + "a" * 64


def with_rule(rule: str) -> str:
    return f"{HEAD}rules:\n  - {{{rule}}}\n"


BAD = [
    ("", "a policy document is a mapping"),
    ("- a", "a policy document is a mapping"),
    ("a: [", "line 1: "),
    ("[" * 5000, "nested too deeply"),
    ("a: \x00", "not YAML: "),
    (f"{HEAD}rules: []\n---\na: b", "line 5: .*another document"),
    (f"{HEAD}version: 2\nrules: []", "line 4: key 'version' is given twice"),
    (with_rule("rule: budget, at_most: 1, at_most: 2"), "line 5: key 'at_most' is given twice"),
    (f"{HEAD}rules: &a []", "line 4: anchors and aliases are not allowed"),
    (f"{HEAD}rules: *a", "line 4: anchors and aliases are not allowed"),
    (f"{HEAD}rules: !!python/object:os.system []", "line 4: tags are not allowed"),
    (f"{HEAD}rules: !!seq []", "line 4: tags are not allowed"),
    (f"{HEAD}rules: []\n? [a]\n: b", "a key must be a word"),
    (HEAD, "key 'rules' is missing"),
    ("issuer: A\nversion: 1\nrules: []", "key 'tier' is missing"),
    ("tier: king\nissuer: A\nversion: 1\nrules: []", "tier: input should be 'law', 'organisation' or 'user'"),
    (
        f"{HEAD}rules: []\nrulez: []",
        "unknown key 'rulez'; allowed are issuer, obligations, rules, scope, tier, valid, version",
    ),
    (f"{HEAD}rules:", "rules: must be a list"),
    (f"{HEAD}rules: [a]", r"rules\[0\]: must be a mapping"),
    (f"{HEAD}rules: []\nvalid: {{from: 2026-13-01}}", "valid.from: "),
    (f"{HEAD}rules: []\nvalid: {{from: 20260101}}", "valid.from: '20260101' is not a date"),
    (f"{HEAD}rules: []\nvalid: {{to: 2026-01-01}}", "valid: unknown key 'to'; allowed are from, until"),
    (f"{HEAD}rules: []\nscope: {{audience: minor}}", "scope.audience: must be a list"),
    (f"{HEAD}rules: []\nscope: {{audience: []}}", "scope.audience: "),
    (f"{HEAD}rules: []\nscope: {{audience: [Minor]}}", r"scope.audience\[0\]: 'Minor' is not an attribute value"),
    (f"{HEAD}rules: []\nscope: {{age: [minor]}}", "scope: unknown key 'age'; allowed are audience, jurisdiction"),
    ('tier: law\nissuer: "a\\u001b[31m"\nversion: 1\nrules: []', "issuer: must be one line"),
    (with_rule("adapter: a"), r"rules\[0\]: say what it is with 'rule:'"),
    (with_rule("rule: allow, adapter: a"), r"rules\[0\]: unknown rule 'allow'; known are approve, bounds"),
    (with_rule("rule: deny"), r"rules\[0\]: say which adapters"),
    (with_rule("rule: deny, adapters: [a]"), r"rules\[0\]: unknown key 'adapters'; allowed are adapter, dimension"),
    (with_rule("rule: deny, adapter: A"), r"rules\[0\].adapter: 'A' is not a name"),
    (with_rule("rule: deny, adapter: [a]"), r"rules\[0\].adapter: input should be a valid string"),
    (with_rule("rule: deny, adapter: a, scope: {x: [y]}"), r"rules\[0\].scope: unknown key 'x'"),
    (with_rule("rule: bounds, adapter: a"), r"rules\[0\]: say how much"),
    (with_rule("rule: bounds, at_most: 1"), r"rules\[0\]: say which adapters"),
    (with_rule("rule: bounds, adapter: a, at_least: 0.5, at_most: 0.4"), "no weight can satisfy"),
    (with_rule("rule: bounds, adapter: a, at_most: true"), r"rules\[0\].at_most: the number = 'true' is not a plain"),
    (with_rule("rule: bounds, adapter: a, at_most: .nan"), "'.nan' is not a plain decimal number"),
    (with_rule("rule: bounds, adapter: a, at_most: 1e-1"), "'1e-1' is not a plain decimal number"),
    (with_rule("rule: bounds, adapter: a, at_most: 1_0"), "'1_0' is not a plain decimal number"),
    (with_rule("rule: bounds, adapter: a, at_most: 0x1"), "'0x1' is not a plain decimal number"),
    (with_rule("rule: bounds, adapter: a, at_most:"), "'' is not a plain decimal number"),
    (with_rule("rule: bounds, adapter: a, at_most: [1]"), r"at_most: \['1'\] is not a number"),
    (with_rule("rule: bounds, adapter: a, at_most: 0.1234567"), "finer than a millionth"),
    (with_rule("rule: bounds, adapter: a, at_most: 1001"), "beyond the 1000"),
    (with_rule("rule: group, at_most: 1"), r"rules\[0\]: a group is either"),
    (with_rule("rule: group, adapters: [a], dimension: b, at_most: 1"), r"rules\[0\]: a group is either"),
    (with_rule("rule: group, adapters: [], at_most: 1"), r"rules\[0\].adapters: "),
    (with_rule("rule: budget"), r"rules\[0\]: key 'at_most' is missing"),
    (with_rule("rule: budget, at_most: 1, of: squares"), r"rules\[0\].of: input should be 'sum' or 'absolute'"),
    (with_rule("rule: approve, adapters: [{name: a}]"), r"rules\[0\].adapters\[0\]: key 'digest' is missing"),
    (with_rule("rule: approve, adapters: [{name: a, digest: md5}]"), "digest: 'md5' is not a digest"),
    (with_rule(f"rule: approve, adapters: [{{name: a, digest: {DIGEST.upper()}}}]"), "is not a digest"),
    (
        with_rule(f"rule: approve, adapters: [{{name: a, digest: '{DIGEST}', w: 1}}]"),
        "unknown key 'w'; allowed are digest",
    ),
    (
        with_rule(f"rule: approve, adapters: [{{name: a, digest: '{DIGEST}'}}, {{name: a, digest: '{DIGEST}'}}]"),
        r"rules\[0\]: adapter 'a' is listed twice",
    ),
    (f"{HEAD}rules:\n  - {{rule: approve, adapters: []}}\n  - {{rule: approve, adapters: []}}", "two approve rules"),
    (
        f"{HEAD}rules:\n  - {{id: x, rule: deny, tag: a}}\n  - {{id: x, rule: deny, tag: b}}",
        "two rules have the id 'x'",
    ),
]


@pytest.mark.parametrize(("text", "words"), BAD, ids=range(len(BAD)))
def test_bad_documents(text: str, words: str) -> None:
    with pytest.raises(PolicyError, match=words) as caught:
        parse_document(text, "acme.yaml")
    message = str(caught.value)
    assert message.startswith("acme.yaml")
    assert "\n" not in message
    assert "pydantic" not in message
    assert caught.value.reason in ("bad-yaml", "bad-document")


def test_all_mistakes_are_told_with_their_lines() -> None:
    text = f"{HEAD}rules:\n- {{rule: deny}}\n- rule: budget\n- {{id: k, rule: bounds, adapter: a,\n   at_most: much, at_lest: 0}}"
    first = HEAD.count("\n") + 2
    with pytest.raises(PolicyError) as caught:
        parse_document(text, "acme.yaml")
    said = str(caught.value)
    assert said.startswith("acme.yaml: 4 mistakes: ")
    for line, what in (
        (first, "rules[0]: say which adapters: give adapter, dimension, pole or tag"),
        (first + 1, "rules[1]: key 'at_most' is missing"),
        (first + 3, "rules[2].at_most: the number"),
        (first + 3, "rules[2]: unknown key 'at_lest'"),
    ):
        assert f"line {line}: {what}" in said
    many = f"{HEAD}rules: [{', '.join(['{rule: deny}'] * 10)}]"
    with pytest.raises(PolicyError, match=r"acme.yaml: 10 mistakes: .*; and 2 more$"):
        parse_document(many, "acme.yaml")


def test_a_mistake_of_the_document_as_a_whole_names_no_place_in_it() -> None:
    text = f"{HEAD}rules: [{{id: x, rule: deny, tag: a}}, {{id: x, rule: deny, tag: b}}]"
    with pytest.raises(PolicyError) as caught:
        parse_document(text, "acme.yaml")
    assert str(caught.value) == "acme.yaml: two rules have the id 'x'"


@pytest.mark.parametrize(
    ("text", "micro"), [("0.3", 300_000), ("0.30", 300_000), ("1", 10**6), ("0.000001", 1), ("'0.1'", 100_000)]
)
def test_numbers_are_exact(text: str, micro: int) -> None:
    rule = parse_document(with_rule(f"rule: bounds, adapter: a, at_most: {text}"), "x").rules[0]
    assert isinstance(rule, Bounds)
    assert rule.at_most == micro


def test_words_that_yaml_would_turn_into_something_else_stay_words() -> None:
    document = parse_document("tier: law\nissuer: no\nversion: 2026-01-01\nrules: [{rule: deny, pole: no}]", "x")
    assert (document.issuer, document.version) == ("no", "2026-01-01")


def test_the_digest_is_of_the_content_not_of_its_spelling() -> None:
    text = with_rule("rule: budget, at_most: 1.50")
    assert parse_document(text, "x").digest() == parse_document("# why\n" + text.replace("1.50", '"1.5"'), "y").digest()
    assert parse_document(text, "x").digest() != parse_document(text.replace("1.50", "1.51"), "x").digest()


def test_files(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"issuer: \xff")
    (tmp_path / "huge.yaml").write_bytes(b"#" * ((1 << 20) + 1))
    for name, words in (
        ("gone.yaml", r"cannot read policy .*gone\.yaml: No such file"),
        (".", "cannot read policy .*: Is a directory"),
        ("latin.yaml", r"policy .*latin\.yaml is not UTF-8"),
        ("huge.yaml", r"huge\.yaml is larger than 1 MiB"),
    ):
        with pytest.raises(PolicyError, match=words) as caught:
            Policy.load(tmp_path / name)
        assert caught.value.reason == "unreadable"
    largest = f"{HEAD}rules: []\n"
    (tmp_path / "large.yaml").write_text(largest + "#" * ((1 << 20) - len(largest)))
    Policy.load(tmp_path / "large.yaml")
    with pytest.raises(PolicyError, match=r"Policy.open\(adapters\)") as caught:
        Policy.load()
    assert caught.value.reason == "empty"


def test_a_wrong_order_of_tiers(tmp_path: Path) -> None:
    for name, tier in [("eu", "law"), ("acme", "organisation"), ("me", "user")]:
        (tmp_path / f"{name}.yaml").write_text(f"tier: {tier}\nissuer: x\nversion: 1\nrules: []\n")
    Policy.load(tmp_path / "eu.yaml", tmp_path / "eu.yaml", tmp_path / "acme.yaml", tmp_path / "me.yaml")
    with pytest.raises(PolicyError, match=r"eu.yaml \(law\) comes after acme.yaml \(organisation\)") as caught:
        Policy.load(tmp_path / "acme.yaml", tmp_path / "eu.yaml")
    assert caught.value.reason == "tier-order"


def test_the_validity_window_includes_both_days_in_utc(tmp_path: Path) -> None:
    path = tmp_path / "acme.yaml"
    path.write_text(f"{HEAD}valid: {{from: 2026-02-01, until: 2026-02-28}}\nrules: []\n")
    first, after = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
    second = timedelta(seconds=1)
    Policy.load(path, now=first)
    Policy.load(path, now=after - second)
    Policy.load(path, now=datetime(2026, 3, 1, 1, tzinfo=timezone(timedelta(hours=2))))
    with pytest.raises(PolicyError, match=r"acme\.yaml is valid from 2026-02-01 on, and today is 2026-01-31"):
        Policy.load(path, now=first - second)
    with pytest.raises(PolicyError, match=r"acme\.yaml was valid until 2026-02-28, and today is 2026-03-01") as caught:
        Policy.load(path, now=after)
    assert caught.value.reason == "not-valid"


def test_by_the_clock(tmp_path: Path) -> None:
    path = tmp_path / "acme.yaml"
    path.write_text(f"{HEAD}valid: {{until: 2020-01-01}}\nrules: []\n")
    with pytest.raises(PolicyError, match="was valid until 2020-01-01"):
        Policy.load(path)
