"""A policy ends: with its document, its report, its signed set; by one reading of the clock at a load, and a live one after."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.policy import Policy, parse_document
from soupmix.policy.clock import Clock, Reading
from tests.support.shelf import NAMES, SHELF, digest_of

MIDNIGHT = datetime(2026, 11, 25, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Hands:
    """A clock that a test moves, and that counts how often it is read; `step` is what passes between two readings."""

    def __init__(self, at: datetime, step: timedelta = timedelta()) -> None:
        self.at, self.step, self.read = at, step, 0

    def __call__(self) -> datetime:
        self.read += 1
        self.at += self.step
        return self.at - self.step


def parsed(*rules: dict[str, Any], **more: Any) -> list[tuple[str, Any]]:
    content = {"tier": "organisation", "issuer": "A", "version": "1", "rules": list(rules), **more}
    return [("acme.yaml", parse_document(json.dumps(content), "acme.yaml"))]


def report(until: str) -> dict[str, Any]:
    return {"evidence": {"report": digest_of("report"), "until": until}}


def ends_with_document() -> list[tuple[str, Any]]:
    return parsed(valid={"until": "2026-11-24"})


def ends_with_report() -> list[tuple[str, Any]]:
    listed = [{"name": name, "digest": digest_of(name), **report("2026-11-24")} for name in NAMES]
    return parsed({"rule": "approve", "adapters": listed})


def ends_with_combination() -> list[tuple[str, Any]]:
    return parsed({"rule": "combinations", "allow": [{"adapters": NAMES, **report("2026-11-24")}]})


ENDING = {"document": ends_with_document, "report": ends_with_report, "combination": ends_with_combination}


@pytest.mark.parametrize("made", ENDING.values(), ids=ENDING)
def test_what_ends_at_midnight_ends_to_the_second(made: Callable[[], list[tuple[str, Any]]]) -> None:
    hands = Hands(MIDNIGHT - SECOND)
    policy = Policy.assemble(made(), SHELF, now=hands)
    assert policy.ends == MIDNIGHT
    assert policy.clamp("friendly=0.5").granted
    hands.at = MIDNIGHT - timedelta(microseconds=1)
    assert policy.clamp("friendly=0.5").granted
    assert not policy.ended
    hands.at = MIDNIGHT
    assert policy.ended
    with pytest.raises(PolicyRefusal, match=r"acme\.yaml, which this policy rests on, ended on 2026-11-24") as caught:
        policy.clamp("friendly=0.5")
    assert caught.value.reason == "ended"


@pytest.mark.parametrize("made", ENDING.values(), ids=ENDING)
def test_a_load_across_midnight_keeps_the_end(made: Callable[[], list[tuple[str, Any]]], tmp_path: Path) -> None:
    """The first reading is on the document's last day; every later one is on the day after."""
    path = tmp_path / "acme.yaml"
    path.write_text(json.dumps(made()[0][1].model_dump(mode="json", by_alias=True, exclude_none=True)))
    path.write_text(path.read_text().replace("500000", "0.5"))
    for load in (
        lambda hands: Policy.load(path, adapters=SHELF, now=hands),
        lambda hands: Policy.assemble(made(), SHELF, now=hands),
    ):
        hands = Hands(MIDNIGHT - SECOND, step=2 * SECOND)
        policy = load(hands)
        assert hands.read == 1, "a load reads the clock once"
        assert policy.ends == MIDNIGHT
        with pytest.raises(PolicyRefusal):
            policy.clamp("friendly=0.5")


@pytest.mark.parametrize("valid", [{"until": "2026-11-23"}, {"from": "2026-11-25"}])
def test_assembling_checks_windows_itself(valid: dict[str, str]) -> None:
    with pytest.raises(PolicyError, match=r"acme\.yaml (was valid until|is valid from)") as caught:
        Policy.assemble(parsed(valid=valid), SHELF, now=MIDNIGHT - SECOND)
    assert caught.value.reason == "not-valid"


def test_a_set_that_expires_ends_the_policy_to_the_second() -> None:
    expires = datetime(2026, 11, 24, 15, 30, 1, tzinfo=UTC)
    hands = Hands(expires - SECOND)
    policy = Policy.assemble(parsed(), SHELF, now=hands, expiries={"the signed set of the law": expires})
    assert (policy.ends, policy.last_day) == (expires, None)
    policy.clamp("friendly=0.5")
    hands.at = expires
    with pytest.raises(PolicyRefusal, match=r"the signed set of the law, .* ended at 2026-11-24 15:30:01 UTC"):
        policy.clamp("friendly=0.5")
    with pytest.raises(PolicyError, match="the signed set of the law expired at 2026-11-24 15:30:01 UTC") as caught:
        Policy.assemble(parsed(), SHELF, now=hands, expiries={"the signed set of the law": expires})
    assert caught.value.reason == "expired"


def test_a_clock_that_is_set_back_revives_nothing() -> None:
    hands = Hands(MIDNIGHT - SECOND)
    policy = Policy.assemble(ends_with_document(), SHELF, now=hands)
    before = policy.clamp("friendly=0.5")
    hands.at = MIDNIGHT
    with pytest.raises(PolicyRefusal):
        policy.clamp("friendly=0.5")
    hands.at -= timedelta(days=1)
    for weights in (before.requested, "friendly=0.25"):
        with pytest.raises(PolicyRefusal, match="ended on 2026-11-24"):
            policy.clamp(weights)
    assert policy.ended


def test_a_datetime_goes_on_from_there() -> None:
    """Naming the present must not make a policy endless, so a datetime does not stand still."""
    policy = Policy.assemble(ends_with_document(), SHELF, now=MIDNIGHT - timedelta(milliseconds=200))
    policy.clamp("friendly=0.5")
    time.sleep(0.25)
    with pytest.raises(PolicyRefusal, match="ended on 2026-11-24"):
        policy.clamp("friendly=0.5")


def test_a_policy_without_an_end_asks_for_none() -> None:
    policy = Policy.assemble(parsed(valid={"until": "9999-12-31"}), SHELF, now=MIDNIGHT)
    assert (policy.ends, policy.ended) == (None, False)
    assert Policy.open(SHELF).ends is None


@given(st.lists(st.tuples(st.integers(-1000, 1000), st.integers(0, 100)), max_size=20))
def test_a_clock_never_goes_back_nor_slower_than_the_seconds_that_pass(moves: list[tuple[int, int]]) -> None:
    """Whatever the machine's clock does in between: the time that is told rises at least by what has passed."""
    wall, passed = [MIDNIGHT], [0.0]
    clock = Clock(lambda: wall[0], lambda: passed[0])
    told = clock()
    for jump, seconds in moves:
        wall[0] += timedelta(seconds=jump + seconds)
        passed[0] += seconds
        now = clock()
        assert now >= told + timedelta(seconds=seconds)
        assert now >= wall[0]
        told = now


def test_all_policies_of_a_process_share_the_machines_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Reading.of(None).clock is Reading.of(None).clock
    hands = Hands(MIDNIGHT)
    clock = Clock(hands)
    monkeypatch.setattr("soupmix.policy.clock._MACHINE", clock)
    Policy.open(SHELF)
    hands.at -= timedelta(days=1)
    with pytest.raises(PolicyError, match="was valid until 2026-11-24, and today is 2026-11-25"):
        Policy.assemble(ends_with_document(), SHELF)


def test_times_of_other_zones_and_of_none_are_read_as_utc() -> None:
    east = MIDNIGHT.astimezone().replace(tzinfo=None)  # naive: the machine's zone
    assert Reading.of(lambda: east).at == MIDNIGHT
    assert Reading.of(lambda: east).at.tzinfo is UTC


def test_a_reading_is_not_read_again() -> None:
    hands = Hands(MIDNIGHT - SECOND, step=2 * SECOND)
    reading = Reading.of(hands)
    assert Reading.of(reading) == reading
    assert Policy.assemble(ends_with_document(), SHELF, now=reading).ends == MIDNIGHT
    assert hands.read == 1
