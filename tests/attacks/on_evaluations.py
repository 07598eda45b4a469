"""Attacks through the folder of an evaluation: what it was, what was answered, what was found, and what asks for a pole."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soupmix.errors import EvaluationError, OutputError, SoupmixError
from soupmix.evaluate.evidence import digest_of_evidence
from soupmix.evaluate.kept import kept_values
from soupmix.evaluate.preferences import read_examples, read_preferences
from soupmix.evaluate.promptset import read_prompts
from soupmix.evaluate.record import RECORD, held_record, write_record
from soupmix.evaluate.report import REPORT, read_report
from soupmix.evaluate.samples import SAMPLES, open_samples, read_samples, sample_line
from soupmix.evaluate.trained import TEXTS, read_trained
from soupmix.files import canonical_json
from soupmix.store.manifest import Manifest
from tests.attacks.attack import Attack
from tests.support import evaluated

__all__ = ["ATTACKS"]

Make = bytes | Callable[[], bytes]


def _bytes(made: Make) -> bytes:
    return made() if callable(made) else made


def _said(text: str) -> bytes:
    return canonical_json({"digest": text, "schema_version": 1})


def _of(**fields: Any) -> bytes:
    """A record with other fields, as somebody else would write it."""
    return canonical_json(evaluated.record(1).model_copy(update=fields).model_dump(mode="json"))


def _record(name: str, tries: str, made: Make, reason: str = "bad-record") -> Attack:
    def run(where: Path) -> None:
        (where / RECORD).write_bytes(_bytes(made))
        held_record(where)

    return Attack(f"evaluation-{name}", tries, run, EvaluationError, reason)


def _samples(name: str, tries: str, change: Callable[[Path, bytes], object], reason: str = "bad-samples") -> Attack:
    def run(where: Path) -> None:
        record = evaluated.record(1)
        write_record(where, record)
        change(where / SAMPLES, sample_line(evaluated.samples(record)[0]))
        read_samples(where, record)

    return Attack(f"samples-{name}", tries, run, OutputError if reason == "not-a-file" else EvaluationError, reason)


def _line(name: str, tries: str, **fields: Any) -> Attack:
    def change(path: Path, line: bytes) -> None:
        path.write_bytes(json.dumps({**json.loads(line), **fields}).encode() + b"\n")

    return _samples(name, tries, change)


def _report(name: str, tries: str, made: Make, reason: str = "not-a-report") -> Attack:
    def run(where: Path) -> None:
        (where / REPORT).write_bytes(_bytes(made))
        digest_of_evidence(where / REPORT, Manifest(), [("calm",)])

    return Attack(f"report-{name}", tries, run, EvaluationError, reason)


def _file(name: str, tries: str, read: Callable[[Path], object], made: Make, reason: str) -> Attack:
    def run(where: Path) -> None:
        (where / "given").write_bytes(_bytes(made))
        read(where / "given")

    return Attack(name, tries, run, EvaluationError, reason)


def _kept(name: str, tries: str, made: Make) -> Attack:
    def run(where: Path) -> None:
        (where / "kept.json").write_bytes(_bytes(made))
        place = where / "kept.json", "key"
        kept_values(["x"], [place], lambda given, of: [{}], None, jobs=1, advance=lambda done: None, damaged="damaged")

    return Attack(f"kept-{name}", tries, run, EvaluationError, "damaged")


def _linked(where: Path, write: bool) -> None:
    record = evaluated.record(1)
    (where / "elsewhere").write_bytes(b"")
    (where / "out").mkdir()
    (where / "out" / SAMPLES).hardlink_to(where / "elsewhere")
    if write:
        with open_samples(where / "out", record):
            pass
    read_samples(where / "out", record)


def _at(name: str, tries: str, put: Callable[[Path], object], error: type[SoupmixError], reason: str) -> Attack:
    def run(where: Path) -> None:
        put(where / REPORT)
        read_report(where / REPORT)

    return Attack(f"report-{name}", tries, run, error, reason)


def _trained(text: object) -> bytes:
    return json.dumps({"pole": "calm", "prompt": "Why?", "text": text, "plain": "So."}).encode()


def _trained_elsewhere(where: Path) -> None:
    (where / "calm").mkdir()
    (where / "calm" / TEXTS).symlink_to("/etc/passwd")
    read_trained(where)


_LISTS = b"[" + b"[]," * 4_000_000 + b"[]]"

ATTACKS = (
    _record("deep", "overflow the stack", b"[" * 500_000),
    _record("of-lists", "twelve megabytes that become a gigabyte", lambda: _LISTS),
    _record("duplicate", "one of them is checked", b'{"seed": 1, "seed": 2}'),
    _record("nan", "a number that equals nothing", b'{"seed": NaN}'),
    _record("null", "an attribute of nothing", b"null"),
    _record("twice", "count a question twice", lambda: _of(prompts=evaluated.record(1).prompts * 2)),
    _record("two-arms", "one of them answers for both", lambda: _of(arms=evaluated.record(1).arms[:1] * 2)),
    _record("stranger", "an adapter of no dimension", lambda: _of(adapters={})),
    _record("too-large", "fill the memory", lambda: b" " * ((16 << 20) + 1), "too-large"),
    _samples("of-a-line", "fill the memory", lambda path, line: path.write_bytes(b"x" * (4 << 20))),
    _samples("deep", "overflow the stack", lambda path, line: path.write_bytes(b"[" * 500_000 + b"\n")),
    _samples("sparse", "read a terabyte", lambda path, line: (path.touch(), os.truncate(path, 1 << 40))),
    _samples("fifo", "wait for a writer for ever", lambda path, line: os.mkfifo(path), "not-a-file"),
    _samples("link", "read a file elsewhere", lambda path, line: path.symlink_to("/etc/passwd")),
    _samples("twice", "count an answer twice", lambda path, line: path.write_bytes(line + line)),
    _samples("not-utf-8", "a decoder's error", lambda path, line: path.write_bytes(b'{"text": "\xff"}\n')),
    _samples("cut-before", "an answer without its beginning", lambda path, line: path.write_bytes(line[9:])),
    _line("other-seed", "luck that others did not have", seed=7),
    _line("other-key", "an answer of another evaluation", key="0" * 64),
    _line("other-prompt", "an answer to another question", prompt="What else?"),
    _line("other-kind", "a question of another kind", kind="list"),
    _line("other-temperature", "sampled, as if it were greedy", temperature=0.5),
    _line("infinite", "a temperature that equals nothing", temperature=1e999),
    _line("no-text", "an attribute of nothing", text=None),
    _line("tokens", "fewer than none", tokens=-1),
    _line("huge", "a number that takes minutes to read", tokens=10**4000),
    _line("more", "a field that nobody knows", extra=1),
    _line("no-arm", "an attribute of nothing", arm=None),
    Attack(
        "samples-hard-link",
        "have another file appended to",
        lambda where: _linked(where, write=True),
        OutputError,
        "not-a-file",
    ),
    _report("deep", "overflow the stack", b"[" * 500_000),
    _report("of-lists", "twelve megabytes that become a gigabyte", lambda: _LISTS),
    _report(
        "duplicate", "one digest is checked, the other cited", b'{"digest": "a", "digest": "b", "schema_version": 1}'
    ),
    _report("edited", "other figures under a digest", b'{"digest": "sha256:0", "schema_version": 1}', "report-changed"),
    _report(
        "escaped",
        "write to the terminal",
        canonical_json({"digest": "\x1b[31m" * 99, "schema_version": 1}),
        "report-changed",
    ),
    _report("empty", "an attribute of nothing", b""),
    _report("null", "an attribute of nothing", b"null"),
    _report("too-large", "fill the memory", lambda: b" " * ((32 << 20) + 1), "too-large"),
    _at("link", "cite a file elsewhere", lambda path: path.symlink_to("/etc/passwd"), EvaluationError, "symlink"),
    _at("fifo", "wait for a writer for ever", os.mkfifo, EvaluationError, "not-a-file"),
    _file("trained-deep", "overflow the stack", read_trained, b"[" * 500_000, "trained"),
    _file("trained-of-lists", "twelve megabytes that become a gigabyte", read_trained, lambda: _LISTS, "trained"),
    _file("trained-many", "measure for days", read_trained, b'{"pole": "calm"}\n' * 9999, "trained"),
    _file("trained-long", "measure one text for days", read_trained, lambda: _trained("x" * 99_999), "trained"),
    _file("trained-null", "a text of nothing", read_trained, lambda: _trained(None), "trained"),
    _file("trained-too-large", "fill the memory", read_trained, lambda: b" " * ((32 << 20) + 1), "too-large"),
    Attack(
        "trained-of-a-pole-elsewhere",
        "have another file measured, and cite its digest",
        _trained_elsewhere,
        EvaluationError,
        "symlink",
    ),
    _file("preferences-deep", "overflow the stack", read_preferences, b"[" * 500_000, "preferences"),
    _file("preferences-list", "an attribute of a list", read_preferences, b'["calm"]', "preferences"),
    _file("preferences-null", "a prompt of nothing", read_preferences, b'{"calm": null}', "preferences"),
    _file(
        "preferences-long",
        "a prompt that fills the model",
        read_preferences,
        b'{"calm": "%s"}' % (b"x" * 9999),
        "preferences",
    ),
    _kept("deep", "overflow the stack", b"[" * 500_000),
    _kept("infinite", "a value that equals nothing", b'{"key": {"kl": Infinity}}'),
    _kept("null", "an attribute of nothing", b'{"key": null}'),
    _file("examples-deep", "overflow the stack", read_examples, b"[" * 500_000, "examples"),
    _file("examples-null", "an answer of nothing", read_examples, b'{"calm": [["Why?", null]]}', "examples"),
    _file("examples-text", "letters of a text as pairs", read_examples, b'{"calm": ["ab", "cd"]}', "examples"),
    _file(
        "examples-long",
        "an answer that fills the model",
        read_examples,
        b'{"calm": [["?", "%s"]]}' % (b"x" * 9999),
        "examples",
    ),
    _file(
        "examples-many",
        "more of them than a model can read",
        read_examples,
        b'{"calm": [%s["?", "."]]}' % (b'["?", "."],' * 16),
        "examples",
    ),
    _file(
        "examples-twice",
        "two sets of examples under one name",
        read_examples,
        b'{"calm+loud": [["?", "."]], "loud+calm": [["?", "!"]]}',
        "examples",
    ),
    _file("prompts-deep", "overflow the stack", read_prompts, b"[" * 500_000, "prompts"),
    _file(
        "prompts-null",
        "a question of nothing",
        read_prompts,
        b'{"prompt": null, "kind": "a", "topic": ["a"]}',
        "prompts",
    ),
    _file(
        "prompts-topic-number",
        "a topic that is none",
        read_prompts,
        b'{"prompt": "a", "kind": "a", "topic": 3}',
        "prompts",
    ),
)
