"""The padded loop: answers begin in rounds, several rounds take turns, and a row that ends leaves the others as they are."""

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from soupmix.backends import Limits, Request, Sampling
from soupmix.batching import Batcher
from soupmix.batching.padded import Rounds
from soupmix.batching.schedule import Job
from soupmix.engine import Engine
from soupmix.policy import Grant
from tests.support.batcher_client import ask

Granter = Callable[..., Grant]
SMALL = Limits(rows=5, length=256, waiting=64, chunk=16)


def jobs(*lengths: int) -> list[Job]:
    return [Job(person="ann", prompt=(7,) * length, merge="m") for length in lengths]


def begun(rounds: Rounds[Job], waiting: list[Job]) -> list[list[int]]:
    """Lengths of the prompts that begin with every step, until nobody waits; nobody leaves."""
    for job in waiting:
        rounds.add(job)
    found = []
    while rounds.waiting:
        plan = rounds.plan()
        rounds.computed(plan)
        assert not plan.copies
        assert all(feed.complete for feed in plan.feeds)
        found.append([len(feed.tokens) for feed in plan.feeds if not feed.start])
        for feed in plan.feeds:
            feed.job.answer.append(5)
        if not found[-1]:
            break
    return found


def test_prompts_begin_together_up_to_eight_chunks() -> None:
    rounds = Rounds[Job](Limits(rows=64, length=2048, chunk=10))
    assert begun(rounds, jobs(20, 20, 20, 20, 5, 300, 41, 2)) == [[20, 20, 20, 20], [5], [300], [41], []]


def test_four_rounds_begin_at_once_and_then_one_whenever_another_ends() -> None:
    rounds = Rounds[Job](Limits(rows=64, length=2048, chunk=10))
    waiting = jobs(*[60] * 6)
    assert begun(rounds, waiting) == [[60], [60], [60], [60], []]
    rounds.leave(waiting[1])
    assert begun(rounds, []) == [[60], []]


@pytest.mark.parametrize("seed", range(5))
def test_nobody_waits_longer_than_sixteen_steps_for_a_free_row(seed: int) -> None:
    """However long others answer: a round of one's own begins then, with all who have come meanwhile."""
    draw, rounds = random.Random(seed), Rounds[Job](Limits(rows=200, length=64, chunk=64))
    since: dict[Job, int] = {}
    for step in range(300):
        for job in jobs(*[3] * (draw.random() < 0.3)):
            rounds.add(job)
            since[job] = step
        rounds.computed(plan := rounds.plan())
        for feed in plan.feeds:
            if not feed.start:
                assert step - since[feed.job] <= 16
            feed.job.answer.append(5)
            if draw.random() < 0.01:
                rounds.leave(feed.job)
        assert all(step - since[job] <= 16 for job in rounds.waiting)


def test_nothing_is_taken_over_and_no_slot_is_held_twice() -> None:
    rounds = Rounds[Job](Limits(rows=3, length=64, chunk=64))
    first = jobs(9, 9, 9)
    begun(rounds, first)
    for job in first:
        rounds.leave(job)
    again = jobs(9, 9, 9)
    begun(rounds, again)
    assert sorted(job.slot for job in again) == [0, 1, 2]
    assert {job.cached for job in again} == {0}


def test_a_short_answer_does_not_wait_for_the_end_of_a_long_one(engine: Engine, grant: Granter) -> None:
    with Batcher(engine, SMALL, loop="padded") as batcher:
        long = ask(batcher, Request((7, 8, 9), grant(calm=1), Sampling(max_new_tokens=240, temperature=1, seed=3)))
        while not batcher.state().generated_tokens:
            pass
        short = ask(batcher, Request((7, 8), grant(loud=1), Sampling(max_new_tokens=2)))
        short.wait()
        assert batcher.state().running, "the long one goes on"
        counts = [delta.completion_tokens for delta in long.wait()]
    assert all(one <= other for one, other in pairwise(counts))


def test_four_long_answers_hold_nobody_up(engine: Engine, grant: Granter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engine.__dict__, "ends", frozenset())
    with Batcher(engine, replace(SMALL, rows=8), loop="padded") as batcher:
        running = []
        for number in range(4):
            running.append(ask(batcher, Request((7, number, 9), grant(calm=1), Sampling(max_new_tokens=240))))
            running[-1].deltas.get(timeout=60)  # it has begun, in a round of its own
        ask(batcher, Request((7, 8), grant(loud=1), Sampling(max_new_tokens=2))).wait()
        assert batcher.state().running == 4, "the long ones go on"
        for each in running:
            each.ticket.cancel()


def test_a_row_that_is_not_finite_ends_alone(engine: Engine, grant: Granter, monkeypatch: pytest.MonkeyPatch) -> None:
    few = Sampling(max_new_tokens=8)
    asked = [Request((5 + number, 7, 8), grant(calm=1), few, logprobs=0) for number in range(3)]
    with Batcher(engine, SMALL, loop="padded") as batcher:
        expected = [[each.tokens for each in ask(batcher, request).wait()] for request in asked]
    layer = engine.model.get_submodule("model.layers.0")
    honest, calls = layer.forward, []

    def second_row_is_nan(hidden: torch.Tensor, *arguments: object, **options: object) -> object:
        out = honest(hidden, *arguments, **options)
        if len(out) == 3:
            calls.append(1)
            if len(calls) == 3:
                out = out.clone()
                out[1] = torch.nan
        return out

    with Batcher(engine, SMALL, loop="padded") as batcher:
        monkeypatch.setattr(layer, "forward", second_row_is_nan)
        with batcher._changed:  # so that they begin together
            pending = [ask(batcher, request) for request in asked]
        deltas = [each.wait() for each in pending]
    assert [each[-1].finish for each in deltas] == ["length", "error", "length"]
    assert deltas[1][-1].error is not None
    assert deltas[1][-1].error.reason == "not-finite"
    for row in (0, 2):
        assert [token.id for each in deltas[row] for token in each.tokens] == [
            token.id for tokens in expected[row] for token in tokens
        ]
