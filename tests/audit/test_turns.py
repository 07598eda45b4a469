"""Turns: nobody writes beside another, nothing is done twice or forgotten, and who gives up does not hold up the others."""

import random
import signal
import threading
import time

import pytest

from soupmix.audit.turns import Turns


@pytest.mark.parametrize("seed", range(5))
def test_every_item_is_done_once_by_one_thread_at_a_time(seed: int) -> None:
    turns, done, inside, worst = Turns[tuple[int, int]](), list[tuple[int, int]](), 0, 0
    alone = 0

    def enter() -> None:
        nonlocal inside, worst
        inside += 1
        worst = max(worst, inside)
        time.sleep(0.0003)

    def work(batch: object) -> None:
        nonlocal inside
        enter()
        done.extend(batch)  # type: ignore[arg-type]
        inside -= 1

    def thread(number: int) -> None:
        nonlocal alone, inside
        rng = random.Random(f"{seed} {number}")
        for count in range(30):
            if rng.random() < 0.2:
                with turns.alone():
                    enter()
                    alone += 1
                    inside -= 1
            turns.share((number, count), work)
            assert (number, count) in done

    run([lambda number=number: thread(number) for number in range(12)])  # type: ignore[misc]
    assert worst == 1
    assert sorted(done) == [(number, count) for number in range(12) for count in range(30)]
    assert alone > 20


def run(works: list[object]) -> None:
    threads = [threading.Thread(target=work) for work in works]  # type: ignore[arg-type]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert not any(each.is_alive() for each in threads)


@pytest.mark.parametrize("asleep", [True, False], ids=["asleep", "woken"])
def test_who_is_interrupted_while_waiting_gives_up_and_the_rest_goes_on(asleep: bool) -> None:
    """A signal to the thread itself ends its sleep; one to another thread is noticed when it is woken to have its turn."""
    turns, done = Turns[str](), list[str]()
    started, go = threading.Event(), threading.Event()

    def slow(batch: object) -> None:
        started.set()
        go.wait(10)
        done.extend(batch)  # type: ignore[arg-type]

    first = threading.Thread(target=turns.share, args=("first", slow))
    first.start()
    started.wait(10)
    main = threading.main_thread().ident or 0
    interrupt = (signal.pthread_kill, [main, signal.SIGINT]) if asleep else (signal.raise_signal, [signal.SIGINT])
    threading.Timer(0.1, *interrupt).start()
    threading.Timer(0.3, go.set).start()
    with pytest.raises(KeyboardInterrupt):
        turns.share("interrupted", slow)
    assert go.is_set() != asleep
    first.join(10)
    turns.share("after", slow)
    assert done == ["first", "after"]


def test_an_error_of_the_work_reaches_its_thread_and_frees_the_turn() -> None:
    turns = Turns[int]()

    def fail(batch: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        turns.share(1, fail)
    with turns.alone():
        pass
