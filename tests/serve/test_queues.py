"""Whose turn it is to compute: a person's one after the other, and no tenant waits for another's flood."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from soupmix.errors import Overloaded
from soupmix.serve import queues as module
from soupmix.serve.queues import MOST_OF_ALL, MOST_OF_ONE, PersonQueues


def test_one_person_is_computed_once_at_a_time_and_two_of_a_tenant_together() -> None:
    turns, lock, running, most = PersonQueues(), threading.Lock(), list[str](), {"person": 0, "tenant": 0}

    def compute(number: int) -> None:
        person = f"p{number % 4}"
        with turns.turn("acme", person):
            with lock:
                running.append(person)
                most["person"] = max(most["person"], running.count(person))
                most["tenant"] = max(most["tenant"], len(running))
            threading.Event().wait(0.01)
            with lock:
                running.remove(person)

    with ThreadPoolExecutor(MOST_OF_ONE) as pool:
        list(pool.map(compute, range(40)))
    assert most == {"person": 1, "tenant": 2}
    assert turns._queues == {}, "nothing is kept of who has left"


def test_a_tenant_that_floods_keeps_nobody_else_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.02)
    turns, entered, leave = PersonQueues(), threading.Semaphore(0), threading.Event()

    def hold(number: int) -> None:
        with turns.turn("flood", f"p{number}"):
            entered.release()
            leave.wait(5)

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(2)]
    for each in threads:
        each.start()
        entered.acquire()
    with pytest.raises(Overloaded) as caught, turns.turn("flood", "p9"):
        pass
    assert caught.value.reason == "queue-full"
    with turns.turn("acme", "p0"):
        pass
    leave.set()
    for each in threads:
        each.join()
    with turns.turn("flood", "p0"):
        pass
    assert turns._queues == {}


def test_few_wait() -> None:
    turns = PersonQueues()
    with ExitStack() as stack:
        keys = [(f"t{n}", f"p{n}") for n in range(MOST_OF_ALL)]
        for tenant, person in keys:
            stack.enter_context(turns.turn(tenant, person))
        with pytest.raises(Overloaded), turns.turn("other", "p"):
            pass
    for _ in range(MOST_OF_ONE):
        turns._entered((("acme", "p"), ("acme",)))
    with pytest.raises(Overloaded), turns.turn("acme", "q"):
        pass
    with turns.turn("other", "p"):
        pass
