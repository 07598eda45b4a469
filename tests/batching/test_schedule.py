"""The scheduler, simulated; a broken one must be noticed by the simulation."""

from collections.abc import Iterator

import pytest

from soupmix.backends import Limits
from soupmix.batching.schedule import Job, Scheduler
from tests.batching.simulate import Foreign, run


def test_no_row_reads_what_is_not_its_own() -> None:
    seen = run(60_000, seed=1)
    assert min(seen[each] for each in ("answers", "cancelled", "copied", "failed steps", "policies")) > 20
    assert min(seen[each] for each in ("shared", "own")) > 50
    assert seen["went on from a prefix"] > 200


@pytest.mark.parametrize("forgotten", ["owner", "merge"])
def test_the_simulation_sees_a_prefix_of_somebody_else(forgotten: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`owner` keeps persons apart, `merge` what only those of one tenant and soup may share."""
    honest = Scheduler._longest

    def careless(self: Scheduler[Job], job: Job) -> tuple[int, int]:
        own = getattr(job, forgotten)
        setattr(job, forgotten, next((getattr(held, forgotten) for held in self._held if held.tokens), own))
        try:
            return honest(self, job)
        finally:
            setattr(job, forgotten, own)

    monkeypatch.setattr(Scheduler, "_longest", careless)
    with pytest.raises(Foreign):
        run(60_000, seed=1)


def test_what_everybody_may_share_is_shared_whole_or_not_at_all() -> None:
    """Else whoever asks could find out, token by token, how it goes on."""
    scheduler = Scheduler[Job](Limits(rows=4, length=100))

    def cached(who: str, prompt: tuple[int, ...], common: int, merge: str = "m") -> int:
        job = Job(f"{who}, {merge}", prompt, merge=merge, common=common)
        scheduler.add(job)
        scheduler.computed(scheduler.plan())
        scheduler.leave(job)
        return job.cached

    assert cached("ann", (1, 2, 3, 4, 9, 9), 4) == 0
    assert cached("bob", (1, 2, 3, 4, 9, 9), 4) == 4, "the rest is Ann's own"
    assert cached("cid", (1, 2, 3, 9), 0) == 0, "a part of it is not what was declared"
    assert cached("dan", (1, 2, 3, 4, 9, 9), 4, "another merge") == 0
    assert cached("ann", (1, 2, 3, 4, 9, 9), 4) == 5, "all but the last token, which is always computed"


def test_the_simulation_sees_a_copy_that_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Scheduler._admit

    def forgetful(self: Scheduler[Job]) -> Iterator[tuple[int, int, int]]:
        list(honest(self))
        yield from ()

    monkeypatch.setattr(Scheduler, "_admit", forgetful)
    with pytest.raises(Foreign):
        run(60_000, seed=1)


def test_prompts_are_taken_in_the_order_in_which_they_came() -> None:
    scheduler = Scheduler[Job](Limits(rows=3, length=100, chunk=10))
    jobs = [Job(f"{number}", (1,) * 8) for number in range(4)]
    for job in jobs:
        scheduler.add(job)
    plan = scheduler.plan()
    assert [(feed.job, len(feed.tokens), feed.complete) for feed in plan.feeds] == [
        (jobs[0], 8, True),
        (jobs[1], 2, False),
    ]
    scheduler.computed(plan)
    jobs[0].answer.append(5)
    plan = scheduler.plan()
    assert [(feed.job, feed.tokens) for feed in plan.feeds] == [
        (jobs[0], (5,)),
        (jobs[1], (1,) * 6),
        (jobs[2], (1,) * 4),
    ]
    assert list(scheduler.waiting) == [jobs[3]]


def test_the_slot_that_was_left_longest_ago_is_taken_first() -> None:
    scheduler = Scheduler[Job](Limits(rows=2, length=100))
    for owner in ("a", "b"):
        job = Job(owner, (1, 2, 3))
        scheduler.add(job)
        scheduler.computed(scheduler.plan())
        scheduler.leave(job)
    for owner, cached in (("c", 0), ("b", 2), ("a", 0)):
        job = Job(owner, (1, 2, 3))
        scheduler.add(job)
        scheduler.plan()
        assert job.cached == cached, owner
        scheduler.computed(scheduler.plan())
        scheduler.leave(job)
