import time

import pytest

from soupmix.errors import PolicyRefusal
from soupmix.projection import time_budget as module
from soupmix.projection.time_budget import check_time, time_budget


def test_a_budget_holds_inside_only(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module, "thread_time", lambda: clock[0])
    with time_budget(2.0):
        with time_budget(1.0):
            clock[0] = 1.5
            with pytest.raises(PolicyRefusal):
                check_time()
        check_time()
        clock[0] = 2.5
        with pytest.raises(PolicyRefusal):
            check_time()
    check_time()


def test_a_budget_inside_another_gives_no_more_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module, "thread_time", lambda: clock[0])
    with time_budget(2.0):
        for _ in range(3):
            with time_budget(1.0):
                clock[0] += 0.6
                check_time()
        with time_budget(1.0):
            clock[0] += 0.6
            with pytest.raises(PolicyRefusal, match="within 2 seconds"):
                check_time()


def test_waiting_spends_nothing_for_a_while() -> None:
    with time_budget(0.2):
        time.sleep(0.3)  # as a thread does whose turn does not come
        check_time()
        time.sleep(0.7)
        with pytest.raises(PolicyRefusal):
            check_time()


def test_computing_spends_it() -> None:
    with time_budget(0.05):
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            pass
        with pytest.raises(PolicyRefusal) as caught:
            check_time()
    assert caught.value.reason == "too-slow"
