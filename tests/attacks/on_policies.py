"""Attacks through policy documents. A user's own document is the least trusted of them."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from soupmix.cli.documents import policy_files
from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.merge import merge
from soupmix.policy import Policy, parse_document
from soupmix.store import Store, read_manifest, write_manifest
from soupmix.store.manifest import Gram
from tests.attacks.attack import Attack
from tests.attacks.on_stores import store

__all__ = ["ATTACKS"]

_HEAD = "tier: user\nissuer: somebody\nversion: '1'\n"


def _is(name: str, tries: str, reason: str, *texts: str | bytes | Callable[[], str]) -> Attack:
    """Load these documents, one file each, for a sound store."""

    def run(where: Path) -> None:
        adapters = Store(store(where))
        for number, text in enumerate(texts):
            made = text() if callable(text) else text
            (where / f"{number}.yaml").write_bytes(made if isinstance(made, bytes) else made.encode())
        Policy.load(*(where / f"{number}.yaml" for number in range(len(texts))), adapters=adapters)

    return Attack(name, tries, run, PolicyError, reason)


def _rule(name: str, tries: str, rule: str, reason: str = "bad-document") -> Attack:
    return _is(name, tries, reason, f"{_HEAD}rules:\n- {{{rule}}}\n")


def _bound(name: str, tries: str, number: str) -> Attack:
    return _rule(name, tries, f"rule: bounds, adapter: friendly, at_most: {number}")


def _approves(count: int) -> str:
    lines = [f"  - {{name: a{number}, digest: 'sha256:{number:064x}'}}\n" for number in range(count)]
    return f"{_HEAD}rules:\n- rule: approve\n  adapters:\n" + "".join(lines)


def _factor(where: Path) -> None:
    """Deltas without a norm under a bound on the norm, merged by a method that has other terms."""
    folder = store(where)
    write_manifest(folder, read_manifest(folder).model_copy(update={"base_norm": 1.0, "gram": Gram(total=(0, 0, 0))}))
    (where / "0.yaml").write_text(f"{_HEAD}rules:\n- {{rule: norm, at_most: 0.01}}\n")
    grant = Policy.load(where / "0.yaml", adapters=Store(folder)).clamp("friendly=1,expert=1")
    merge(Store(folder), grant, method="factor")


def _crowd(combinations: int, groups: int, choices: int = 1) -> str:
    """A document that approves 24 adapters, with combinations of four and groups of three that overlap."""
    draw, names = Random(0), [f"a{number}" for number in range(24)]
    listed = ", ".join(f"{{name: {name}, digest: sha256:{n:064x}}}" for n, name in enumerate(names))
    rules = [f"- {{rule: approve, adapters: [{listed}]}}\n"]
    report = f"{{report: sha256:{0:064x}, until: 2999-01-01}}"
    for _ in range(choices):
        each = [f"{{adapters: [{', '.join(draw.sample(names, 4))}], evidence: {report}}}" for _ in range(combinations)]
        rules.append(f"- {{rule: combinations, allow: [{', '.join(each)}]}}\n")
    for _ in range(groups):
        rules.append(f"- {{rule: group, adapters: [{', '.join(draw.sample(names, 3))}], at_most: 0.5}}\n")
    return f"{_HEAD}rules:\n{''.join(rules)}"


def _costly(*counts: int) -> Callable[[Path], None]:
    def run(where: Path) -> None:
        (where / "0.yaml").write_text(_crowd(*counts))
        Policy.load(where / "0.yaml")

    return run


def _set_back(where: Path) -> None:
    """A policy that ends tonight, a clock that goes on to tomorrow and is then set back."""
    (where / "0.yaml").write_text(f"{_HEAD}valid: {{until: 2026-11-24}}\nrules: []\n")
    hands = iter([12, 36, 12])  # hours
    day = datetime(2026, 11, 24, tzinfo=UTC)
    policy = Policy.load(where / "0.yaml", adapters=Store(store(where)), now=lambda: day + timedelta(hours=next(hands)))
    with suppress(PolicyRefusal):
        policy.clamp("friendly=1")
    policy.clamp("friendly=1")


def _set_that_expires(where: Path) -> None:
    """Documents of a signed set, whose expiry passes after they were loaded."""
    hands = iter([0, 1])
    day = datetime(2026, 11, 24, tzinfo=UTC)
    expiries = {"the signed set of the law": day + timedelta(seconds=1)}
    now = lambda: day + timedelta(seconds=next(hands))  # noqa: E731
    Policy.assemble((), Store(store(where)), now=now, expiries=expiries).clamp("friendly=1")


def _assembled(where: Path) -> None:
    document = parse_document(f"{_HEAD}valid: {{until: 2020-01-01}}\nrules: []\n", "0.yaml")
    Policy.assemble([("0.yaml", document)], Store(store(where)))


def _beside(name: str) -> Callable[[Path], None]:
    def run(where: Path) -> None:
        for each in ("0.yaml", name):
            (where / each).write_text(f"{_HEAD}rules: []\n")
        policy_files([where])

    return run


def _folder(where: Path) -> None:
    (where / "policy.yaml").mkdir()
    Policy.load(where / "policy.yaml")


_LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
)
_TWINS = ", ".join(f"{{name: {name}, digest: 'sha256:{'1' * 64}'}}" for name in ("calm", "twin"))
_RUDE = "rule: bounds, adapter: friendly"

ATTACKS = (
    _is("billion-laughs", "a kilobyte that becomes a gigabyte", "bad-yaml", _LAUGHS),
    _is("recursive-anchor", "a list that holds itself", "bad-yaml", "a: &a [*a]"),
    _is(
        "python-object",
        "construct an object of Python",
        "bad-yaml",
        f"{_HEAD}rules: !!python/object/apply:os.system ['true']",
    ),
    _is("binary-tag", "a type nobody expects", "bad-yaml", f"{_HEAD}rules: !!binary aGk="),
    _is("own-tag", "a type nobody expects", "bad-yaml", f"{_HEAD}rules: !rules []"),
    _is("duplicate-key", "one of them is checked", "bad-yaml", f"{_HEAD}rules: []\nrules: []"),
    _is("duplicate-key-by-escape", "one key in two spellings", "bad-yaml", f'{_HEAD}rules: []\n"r\\u0075les": []'),
    _is("merge-key", "a key that brings others", "bad-document", f"{_HEAD}rules: []\n<<: {{valid: {{}}}}"),
    _is("key-as-list", "an unhashable key", "bad-yaml", f"{_HEAD}rules: []\n? [a]\n: 1"),
    _is("deep-document", "overflow the stack", "bad-yaml", "[" * 500_000),
    _is("deep-indentation", "overflow the stack", "bad-yaml", lambda: "".join(" " * n + "a:\n" for n in range(1200))),
    _is("a-hundred-thousand-lists", "a megabyte that becomes a gigabyte", "bad-yaml", "[" + "[]," * 340_000 + "]"),
    _is(
        "a-hundred-thousand-keys",
        "compare each with each",
        "bad-yaml",
        lambda: "".join(f"a{n}:\n" for n in range(100_000)),
    ),
    _is("over-a-megabyte", "parse for minutes", "unreadable", "# " + "x" * (1 << 20)),
    _is(
        "a-megabyte-of-text", "scan for minutes", "bad-document", f"{_HEAD}rules: []\nmore: " + "x" * ((1 << 20) - 100)
    ),
    _is("not-utf-8", "a decoder's error", "unreadable", b"\xff\xfe\x00"),
    _is("in-utf-16", "another reading than the reviewer's", "unreadable", f"{_HEAD}rules: []".encode("utf-16")),
    _is("nul-in-document", "end a C string early", "bad-yaml", f"{_HEAD}rules: []\0"),
    _is("two-documents", "the second one is obeyed", "bad-yaml", f"{_HEAD}rules: []\n---\n{_HEAD}rules: []"),
    _is("empty-document", "an attribute of nothing", "bad-document", ""),
    _is("document-as-list", "an attribute of a list", "bad-document", "- 1"),
    _is("no-rules", "a policy that says nothing", "bad-document", _HEAD),
    _is("unknown-tier", "a tier above the law", "bad-document", "tier: emperor\nissuer: x\nversion: '1'\nrules: []"),
    _is(
        "tier-order",
        "the user before the law",
        "tier-order",
        f"{_HEAD}rules: []",
        f"{_HEAD.replace('user', 'law')}rules: []",
    ),
    _is("no-document", "no policy without saying so", "empty"),
    _is("expired", "a policy of last year", "not-valid", f"{_HEAD}valid: {{until: 2020-01-01}}\nrules: []"),
    _is("not-yet", "a policy of another century", "not-valid", f"{_HEAD}valid: {{from: 2999-01-01}}\nrules: []"),
    _is("no-such-day", "a date that a parser moves", "bad-document", f"{_HEAD}valid: {{until: 2027-02-30}}\nrules: []"),
    _is(
        "day-in-arabic",
        "digits that a date parser takes",
        "bad-document",
        f"{_HEAD}valid: {{until: \u0662027-01-01}}\nrules: []",
    ),
    _is(
        "issuer-of-two-lines",
        "forge a line of an explanation",
        "bad-document",
        'tier: user\nissuer: "x\\ny"\nversion: "1"\nrules: []',
    ),
    _is(
        "issuer-right-to-left",
        "show another issuer than it is",
        "bad-document",
        'tier: user\nissuer: "\\u202Ex"\nversion: "1"\nrules: []',
    ),
    _is(
        "issuer-of-a-megabyte",
        "fill every grant",
        "bad-document",
        f"tier: user\nissuer: {'x' * 900_000}\nversion: '1'\nrules: []",
    ),
    _is(
        "two-approvals",
        "the second list is obeyed",
        "bad-document",
        f"{_HEAD}rules:\n" + "- {rule: approve, adapters: []}\n" * 2,
    ),
    _is(
        "one-id-twice",
        "one rule under another's id",
        "bad-document",
        f"{_HEAD}rules:\n" + "- {rule: deny, id: x, adapter: expert}\n" * 2,
    ),
    _is("approve-ten-thousand", "project in ten thousand dimensions", "bad-yaml", lambda: _approves(10_000)),
    _is(
        "contradiction",
        "no weights at all",
        "conflict",
        f"{_HEAD}rules:\n- {{{_RUDE}, at_least: 0.9}}\n- {{{_RUDE}, at_most: 0.1}}\n",
    ),
    _is("impossible-minimum", "force more than all", "conflict", f"{_HEAD}rules:\n- {{{_RUDE}, at_least: 2}}\n"),
    _bound("bound-nan", "pass every comparison", "nan"),
    _bound("bound-infinite", "a bound that bounds nothing", ".inf"),
    _bound("bound-underscore", "a number that float() takes", "1_0"),
    _bound("bound-exponent", "a grammar that grows", "1e3"),
    _bound("bound-hexadecimal", "another base", "0x1"),
    _bound("bound-full-width", "a digit that float() takes", "\uff11"),
    _bound("bound-finer-than-a-millionth", "a bound that rounding loosens", "0.0000001"),
    _bound("bound-huge", "overflow the arithmetic", "9" * 32),
    _bound("bound-of-a-list", "a number inside a list", "[1]"),
    _rule("bounds-reversed", "no weights at all", f"{_RUDE}, at_least: 0.9, at_most: 0.1"),
    _rule("bounds-of-nothing", "a rule that seems to bind", "rule: bounds, at_most: 0.1"),
    _rule("bounds-without-bound", "a rule that seems to bind", "rule: bounds, adapter: friendly"),
    _rule("unknown-rule", "a rule that is skipped", "rule: permit, adapter: friendly"),
    _rule("rule-without-kind", "a rule that is skipped", "adapter: friendly, at_most: 1"),
    _rule("misspelt-key", "a bound that is skipped", f"{_RUDE}, at_mosst: 0.1"),
    _rule("cyrillic-key", "a bound that is skipped", f"{_RUDE}, \u0430t_most: 0.1"),
    _rule("twin-adapter", "a bound on a name that is none", "rule: bounds, adapter: fri\u0435ndly, at_most: 0.1"),
    _rule(
        "digest-upper-case",
        "one digest in two spellings",
        f"rule: approve, adapters: [{{name: x, digest: 'sha256:{'A' * 64}'}}]",
    ),
    _rule("digest-cut-off", "match by a beginning", "rule: approve, adapters: [{name: x, digest: 'sha256:abc'}]"),
    _rule(
        "digest-of-another-kind", "a broken hash", f"rule: approve, adapters: [{{name: x, digest: 'md5:{'0' * 32}'}}]"
    ),
    _rule(
        "approved-twice",
        "one name, two digests",
        f"rule: approve, adapters: [{', '.join(f'{{name: x, digest: sha256:{d * 64}}}' for d in '12')}]",
    ),
    _is(
        "digest-twin",
        "a second name for an adapter that a rule caps by its first",
        "bad-adapter",
        lambda: f"{_HEAD}rules: [{{rule: approve, adapters: [{_TWINS}]}}]\n",
    ),
    _rule("scope-twin", "a scope that never applies", f"{_RUDE}, at_most: 0, scope: {{audience: [Minor]}}"),
    _rule("scope-empty", "a scope that never applies", f"{_RUDE}, at_most: 0, scope: {{audience: []}}"),
    _rule("scope-unknown", "a scope that is skipped", f"{_RUDE}, at_most: 0, scope: {{age: [minor]}}"),
    Attack("expired-but-assembled", "a policy of last year, past the door", _assembled, PolicyError, "not-valid"),
    Attack("clock-set-back", "a second life for what has ended", _set_back, PolicyRefusal, "ended"),
    Attack("set-that-expires", "grants from a set nobody renews", _set_that_expires, PolicyRefusal, "ended"),
    Attack("five-hundred-by-sixty", "seconds of work a request", _costly(500, 60), PolicyError, "too-costly"),
    Attack("four-times-two-hundred", "choices that multiply", _costly(200, 0, 4), PolicyError, "too-many-combinations"),
    Attack("law-as-json", "a document that nobody reads", _beside("10-law.json"), PolicyError, "not-a-document"),
    Attack("law-without-suffix", "a document that nobody reads", _beside("10-law"), PolicyError, "not-a-document"),
    Attack(
        "factor-under-a-norm", "terms that a bound on the norm does not see", _factor, PolicyRefusal, "norm-not-linear"
    ),
    Attack("folder-as-policy", "an error nobody thought of", _folder, PolicyError, "unreadable"),
)
