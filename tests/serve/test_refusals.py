"""Refusals cannot fill the disk: a record of one is bounded, and beyond so many a minute of one key they are counted."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from soupmix.audit import AuditLog, Record, read_records, verify
from soupmix.errors import OutputError, SoupmixError
from soupmix.serve.refusals import Refusals
from soupmix.weights import Weights
from tests.support.serving import MODEL, Running

Start = Callable[..., AbstractContextManager[Running]]
MANY = {f"{number:02d}{'x' * 61}": 0.123456 for number in range(64)}
ASK = {"model": MODEL, "prompt": "x", "max_tokens": 1}


def entries(folder: Path) -> list[dict[str, Any]]:
    return [record["entry"] for _, record in read_records(folder)]


def test_sixty_four_unknown_names_are_a_short_record_that_counts_them(server: Running) -> None:
    with server.http("beta") as http:
        assert http.post("/v1/completions", json={**ASK, "soup": {"weights": MANY}}).status_code == 400
    record = [record for _, record in read_records(server.state.audit.folder)][-1]  # type: ignore[union-attr]
    assert record["entry"]["reason"] == "unknown-adapter"
    assert record["entry"]["omitted"] + len(record["entry"]["requested"]) == 64
    assert len(json.dumps(record)) < 1600


def test_what_is_not_cut_has_the_line_that_it_always_had() -> None:
    asked = Weights("calm=0.5")
    made = Record.of_refusal(
        SoupmixError("no", reason="x"), person=None, requested=asked, attributes={}, policy=None, is_signed=True
    )
    assert made.encoded() == Record("refusal", requested=asked, reason="x").encoded()
    assert b"omitted" not in made.encoded()


def test_a_thousand_refusals_are_few_records_and_a_count(start: Start, tmp_path: Path) -> None:
    with start(refusals=5, audit=tmp_path / "audit") as server:
        with server.http() as acme, server.http("beta") as beta:
            for _ in range(100):
                acme.post("/v1/completions", json={**ASK, "soup": {"weights": MANY}})
                acme.post("/v1/completions", json={**ASK, "soup": {"weights": {"plain": 1}}})
            beta.post("/v1/completions", json={**ASK, "soup": {"weights": {"plain": 1}}})
            granted = acme.post("/v1/completions", json=ASK)
        assert granted.status_code == 200
        assert len(entries(tmp_path / "audit")) == 5 + 1 + 1
    found = entries(tmp_path / "audit")
    assert sum(each.get("repeated", 1) for each in found if each["event"] == "refusal") == 201
    assert Counter(each["reason"] for each in found if each.get("repeated")) == {
        "unknown-adapter": 1,
        "refused-by-rule": 1,
    }
    assert verify(tmp_path / "audit").ok


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _refusal(reason: str = "r") -> Record:
    return Record("refusal", reason=reason)


def test_counts_are_written_when_their_minute_is_over() -> None:
    written: list[Record] = []
    clock = _Clock()
    refusals = Refusals(written.append, 2, clock)
    for _ in range(10):
        refusals.record("a", _refusal())
    refusals.record("b", _refusal())
    assert [each.repeated for each in written] == [0, 0, 0]
    clock.now = 59.9
    refusals.flush()
    assert len(written) == 3
    clock.now = 60.0
    refusals.record("b", _refusal())
    assert [each.repeated for each in written[3:]] == [8, 0]
    clock.now = -1e9  # a clock that moves back writes nothing twice
    refusals.flush(everything=True)
    assert len(written) == 5


def test_no_count_is_lost_when_the_disk_refuses() -> None:
    written: list[Record] = []
    full = False

    def append(entry: Record) -> None:
        if full:
            raise OutputError("no space", reason="write-failed")
        written.append(entry)

    refusals = Refusals(append, 1)
    for number in range(11):
        refusals.record("a", _refusal(f"r{number % 2}"))
    full = True
    with pytest.raises(OutputError):
        refusals.flush(everything=True)
    full = False
    refusals.flush(everything=True)
    assert sum(each.repeated or 1 for each in written) == 11


def test_threads_lose_no_count(tmp_path: Path) -> None:
    with AuditLog.open(tmp_path / "audit") as log:
        refusals = Refusals(log.append, 10)

        def refuse(key: str) -> None:
            for _ in range(500):
                refusals.record(key, _refusal())

        threads = [threading.Thread(target=refuse, args=(str(number % 2),)) for number in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        refusals.flush(everything=True)
    assert sum(each.get("repeated", 1) for each in entries(tmp_path / "audit")) == 4000
    assert len(entries(tmp_path / "audit")) == 22
    assert verify(tmp_path / "audit").ok
