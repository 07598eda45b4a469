"""One record is one line of ASCII, whatever the strings in it hold, and every other spelling is refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soupmix.audit.checkpoints import Checkpoint
from soupmix.audit.records import Chain, Record, line_of, time_text
from soupmix.errors import AuditError
from soupmix.files import compact_json
from soupmix.policy import Policy
from soupmix.weights import Weights

ORIGIN = f"soupmix.audit/{'0' * 32}"
TEXTS = st.text(st.characters(), max_size=12) | st.sampled_from(
    ['x\n{"sequence":99}', "\u2028", "\0", '"', "\\", "\ud800"]
)


def entries() -> st.SearchStrategy[Record]:
    weights = st.dictionaries(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True), st.integers(-(10**9), 10**9))
    return st.builds(
        Record,
        event=st.sampled_from(["grant", "refusal"]),
        requested=weights.map(Weights.from_micro),
        granted=weights.map(Weights.from_micro),
        attributes=st.dictionaries(TEXTS, TEXTS, max_size=3),
        policy=st.none() | TEXTS,
        is_open=st.booleans(),
        binding=st.lists(TEXTS, max_size=3).map(tuple),
        reason=st.none() | TEXTS,
    )


@settings(max_examples=150, deadline=None)
@given(entries(), st.none() | st.just("f" * 64))
def test_one_record_is_one_canonical_line_and_is_read_back(entry: Record, who: str | None) -> None:
    writing, reading = Chain(ORIGIN), Chain(ORIGIN)
    for _ in range(2):
        line = writing.add(entry.encoded(), "2026-11-24T07:00:00Z", who)
        assert len(line.splitlines()) == 1
        assert all(32 <= byte < 127 for byte in line)
        record = reading.follow(line)
        assert compact_json(record) == line  # the spliced line is the canonical one
        assert record["entry"]["attributes"] == dict(entry.attributes)
        assert record["entry"]["requested"] == dict(entry.requested)
        assert (record["who"], record["sequence"]) == (who, reading.tree.size - 1)
    assert (reading.last, reading.tree.root()) == (writing.last, writing.tree.root())


GOOD = line_of(Record("grant").encoded(), previous=Chain(ORIGIN).last, sequence=0, time="t", who=None)
BAD = {
    "no JSON": (b"x", "bad-record"),
    "not UTF-8": (b"\xff", "bad-record"),
    "a list": (b"[]", "bad-record"),
    "a space": (GOOD.replace(b":", b": ", 1), "bad-record"),
    "another order": (
        json.dumps(dict(reversed(json.loads(GOOD).items())), separators=(",", ":")).encode(),
        "bad-record",
    ),
    "key twice": (GOOD[:-1] + b',"who":null}', "bad-record"),
    "escaped letter": (GOOD.replace(b"grant", b"gr\\u0061nt"), "bad-record"),
    "more keys": (GOOD[:-1] + b',"z":1}', "bad-record"),
    "NaN": (GOOD.replace(b'"schema":1', b'"schema":NaN'), "bad-record"),
    "other schema": (GOOD.replace(b'"schema":1', b'"schema":2'), "bad-record"),
    "true for 1": (GOOD.replace(b'"schema":1', b'"schema":true'), "bad-record"),
    "a huge number": (GOOD.replace(b'"sequence":0', b'"sequence":' + b"9" * 5000), "bad-record"),
    "deep": (b"[" * 100_000, "bad-record"),
    "another number": (GOOD.replace(b'"sequence":0', b'"sequence":1'), "wrong-sequence"),
    "another past": (GOOD.replace(Chain(ORIGIN).last.hex().encode(), b"0" * 64), "broken-chain"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_any_other_line_is_refused_by_its_reason(case: str) -> None:
    line, reason = BAD[case]
    Chain(ORIGIN).follow(GOOD)
    with pytest.raises(AuditError) as refused:
        Chain(ORIGIN).follow(line)
    assert refused.value.reason == reason


def test_a_record_of_another_log_does_not_fit() -> None:
    with pytest.raises(AuditError, match="does not follow"):
        Chain(f"soupmix.audit/{'1' * 32}").follow(GOOD)


def test_an_entry_takes_what_a_grant_says() -> None:
    class Adapter:
        name, dimension, pole, digest, tags = "friendly", "style", "friendly", f"sha256:{'a' * 64}", ()

    grant = Policy.open([Adapter()]).clamp({"friendly": 1.5}, audience="minor")
    entry = Record.of_grant(grant, person="anna", is_signed=False, merge="sha256:m")
    assert json.loads(entry.encoded()) == {
        "attributes": {"audience": "minor"},
        "binding": ["built-in/soupmix/one-dimension", "built-in/soupmix/unit-interval"],
        "event": "grant",
        "granted": {"friendly": 1_000_000},
        "merge": "sha256:m",
        "open": True,
        "policy": grant.policy_digest,
        "reason": None,
        "requested": {"friendly": 1_500_000},
        "signed": False,
    }


def test_what_cannot_be_recorded_is_refused_before_anything_is_written() -> None:
    for make, reason in (
        (lambda: Record("dance"), "bad-entry"),
        (lambda: Record("grant", person=""), "bad-person"),
        (lambda: Record("grant", person="x" * 1025), "bad-person"),
        (lambda: Record("grant", attributes={"tenant": "x" * (1 << 20)}).encoded(), "too-long"),
    ):
        with pytest.raises(AuditError) as refused:
            make()
        assert refused.value.reason == reason


def test_time_is_whole_seconds_of_utc() -> None:
    assert time_text(0.99) == "1970-01-01T00:00:00Z"
    assert time_text(1_795_503_600) == "2026-11-24T07:00:00Z"


def test_a_checkpoint_reads_back_and_no_other_spelling_of_it_does() -> None:
    chain = Chain(ORIGIN)
    for _ in range(11):
        chain.add(Record("grant").encoded(), "t", None)
    note = Checkpoint.of(ORIGIN, chain)
    text = note.text()
    assert Checkpoint.parse(text) == note
    again = note.chain()
    assert again.add(b"{}", "t", None) == chain.add(b"{}", "t", None)
    bad = [text[:-1], text + "\n", text.replace("\n11\n", "\n 11\n"), text.replace("\n11\n", "\n12\n"), "", "\n\n"]
    bad += [text.replace("last ", "next "), text.replace("\n11\n", "\n１１\n"), text + "x\n", text.replace("=", "", 1)]
    for each in bad:
        with pytest.raises(AuditError) as refused:
            Checkpoint.parse(each)
        assert refused.value.reason == "bad-checkpoint"
