"""The scheduler, simulated; a broken one must be noticed by the simulation."""

from collections.abc import Iterator

import pytest

from soupmix.backends import Limits
from soupmix.batching.schedule import Job, Scheduler
from tests.batching.simulate import Foreign, run


def test_no_row_reads_what_is_not_its_own() -> None:
    seen = run(60_000, seed=1)
    assert min(seen[each] for each in ("answers", "cancelled", "copied", "failed steps", "policies")) > 20
    assert min(seen[each] for each in ("shared", "own", "with the bare base")) > 50
    assert seen["went on from a prefix"] > 200


@pytest.mark.parametrize("forgotten", ["person", "merge", "base", "bare"])
def test_the_simulation_sees_a_prefix_of_somebody_else(forgotten: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`person` keeps persons apart, `merge` soups and tenants, `base` tenants, `bare` what the base and a soup computed."""
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
        job = Job(who, prompt, merge=merge, common=common)
        scheduler.add(job)
        scheduler.computed(scheduler.plan())
        scheduler.leave(job)
        return job.cached

    assert cached("ann", (1, 2, 3, 4, 9, 9), 4) == 0
    assert cached("bob", (1, 2, 3, 4, 9, 9), 4) == 4, "the rest is Ann's own"
    assert cached("cid", (1, 2, 3, 9), 0) == 0, "a part of it is not what was declared"
    assert cached("dan", (1, 2, 3, 4, 9, 9), 4, "another merge") == 0
    assert cached("ann", (1, 2, 3, 4, 9, 9), 4) == 5, "all but the last token, which is always computed"


def cached(scheduler: Scheduler[Job], job: Job) -> int:
    """Tokens that a job took over, after its prompt was computed."""
    scheduler.add(job)
    while job.slot < 0 or job.computed < len(job.prompt):
        scheduler.computed(scheduler.plan())
    scheduler.leave(job)
    return job.cached


def test_what_the_bare_base_computed_goes_on_under_every_merge_and_nothing_else_does() -> None:
    scheduler = Scheduler[Job](Limits(rows=9, length=100))
    ids, both = (1, 2, 3, 4, *range(5, 15)), {"base": "b", "bare": 4}
    assert cached(scheduler, Job("ann", ids, merge="m", **both)) == 0
    assert cached(scheduler, Job("ann", ids, merge="other", **both)) == 4
    assert cached(scheduler, Job("ann", ids, merge="m", **both)) == 13
    assert cached(scheduler, Job("ann", (*ids, 7, 8), merge="m", base="b", bare=15)) == 4, "the answer ran on the soup"
    assert cached(scheduler, Job("ann", ids, merge="full", base="b")) == 0, "no soup goes on from the base"
    assert cached(scheduler, Job("ann", (*ids, 9, 9), merge="x", base="b", bare=15)) == 14, "and then on the base"
    assert cached(scheduler, Job("ann", ids, merge="m", base="of another tenant", bare=5)) == 0
    assert cached(scheduler, Job("bob", ids, merge="m", **both)) == 0
    assert cached(scheduler, Job("cid", ids, merge="z", common=3, **both)) == 3


def test_what_others_compute_meanwhile_is_taken_over() -> None:
    """64 people ask at once under one declared beginning of 100 tokens: it is computed once."""
    opening = tuple(range(100))
    scheduler = Scheduler[Job](Limits(rows=64, length=200, chunk=100))
    jobs = [Job(f"{n}", (*opening, 200 + n, 300, 301), merge=f"{n}", base="b", bare=101, common=100) for n in range(64)]
    for job in jobs:
        scheduler.add(job)
    computed = 0
    while any(job.computed < len(job.prompt) for job in jobs):
        plan = scheduler.plan()
        computed += sum(len(feed.tokens) for feed in plan.feeds)
        scheduler.computed(plan)
    assert computed == 100 + 64 * 3
    assert [job.cached for job in jobs] == [0] + [100] * 63


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
