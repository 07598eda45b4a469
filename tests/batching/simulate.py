"""A seeded simulation of the scheduler: what every slot would hold is written down, and every row is checked against it.

Run as a program: `python -m tests.batching.simulate ROWS SEED` schedules so many rows, with joins, leaves, changed weights,
reloaded policies, evictions, failures and cancelled answers, and ends at the first row that would read what is not its own.
"""

import random
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

from soupmix.backends import Limits
from soupmix.batching.schedule import Job, Plan, Scheduler

Slot = dict[int, tuple[str, str, int]]  # position -> (person, by what, token) whose keys and values lie there
OPENING = (1, 2, 3, 4, 5, 6, 7, 8)  # a system prompt that many have, and that the operator lets everybody share


class Foreign(Exception):
    """A row would have read keys and values that are not its own."""


class Simulation:
    """Conversations of many people over a scheduler whose tensors are dictionaries."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._limits = Limits(
            rows=self._draw.choice([1, 2, 7, 16]), length=96, waiting=24, chunk=self._draw.choice([1, 5, 32])
        )
        self._scheduler = Scheduler[Job](self._limits)
        self._slots: list[Slot] = [{} for _ in range(self._limits.rows)]
        self._policy, self._talks = 0, [self._new_talk() for _ in range(12)]
        self._ends: dict[Job, int] = {}
        self._computed: dict[tuple[str, str], set[tuple[int, ...]]] = {}  # what was computed for a person, by what
        self.seen: Counter[str] = Counter()

    def _new_talk(self) -> tuple[str, list[int]]:
        opening = self._draw.choice([(), OPENING])
        return f"person {self._draw.randrange(5)} of tenant {self._draw.randrange(2)}", [
            *opening,
            self._draw.randrange(9),
        ]

    def step(self) -> None:
        """Something happens, then one step is planned and computed, or fails."""
        self._happen()
        plan = self._scheduler.plan()
        for source, target, length in plan.copies:
            for position in range(length):
                self._slots[target][position] = self._slots[source][position]
            self.seen["copied"] += 1
        self._check_plan(plan)
        for feed in plan.feeds:
            self._compute(feed.job, feed.tokens, feed.start)
        if self._draw.random() < 0.01:
            for feed in plan.feeds:
                self._slots[feed.job.slot] = {}
                self._scheduler.leave(feed.job, keep=False)
            self.seen["failed steps"] += 1
            return
        self._scheduler.computed(plan)
        for feed in plan.feeds:
            if feed.complete:
                self._choose(feed.job)

    def _happen(self) -> None:
        if self._draw.random() < 0.02:
            self._policy += 1
            self.seen["policies"] += 1
        while len(self._scheduler.waiting) < self._limits.waiting and self._draw.random() < 0.5:
            self._ask()
        everybody = [*self._scheduler.running, *self._scheduler.waiting]
        if everybody and self._draw.random() < 0.1:
            self._scheduler.leave(self._draw.choice(everybody))
            self.seen["cancelled"] += 1

    def _ask(self) -> None:
        """A turn of some conversation, under the weights that the person has now."""
        number = self._draw.randrange(len(self._talks))
        who, tokens = self._talks[number]
        tokens += [self._draw.randrange(9) for _ in range(self._draw.randrange(1, 12))]
        if len(tokens) > 60:
            who, tokens = self._talks[number] = self._new_talk()
        merge = f"{who.partition(' of ')[2]}, weights {self._draw.randrange(2)}, policy {self._policy}"
        base = f"the base of {who.partition(' of ')[2]}"
        bare = self._draw.choice([0, max(0, len(tokens) - self._draw.randrange(1, 4))])
        most = bare or len(tokens) - 1
        common = len(OPENING) if tuple(tokens[: len(OPENING)]) == OPENING and len(OPENING) <= most else 0
        mode = f", answers from {bare}" if bare else ""
        job = Job(who, tuple(tokens), merge=f"{merge}{mode}", base=base, bare=bare, common=common)
        self._ends[job] = self._draw.randrange(1, self._limits.length - len(tokens))
        self._scheduler.add(job)

    def _check_plan(self, plan: Plan[Job]) -> None:
        slots = [job.slot for job in self._scheduler.running]
        assert len(set(slots)) == len(slots), "two answers in one slot"
        assert len({feed.job for feed in plan.feeds}) == len(plan.feeds), "an answer is fed twice"
        assert sum(len(feed.tokens) for feed in plan.feeds if not feed.job.answer) <= self._limits.chunk
        assert all(feed.tokens for feed in plan.feeds)
        assert self._scheduler.idle or plan.feeds, "nothing is done though somebody waits"

    def _compute(self, job: Job, tokens: tuple[int, ...], start: int) -> None:
        """What a forward pass does: write these tokens, read everything before them."""
        slot, whole = self._slots[job.slot], (*job.prompt, *job.answer)
        assert whole[start : start + len(tokens)] == tokens
        slot.update(
            (start + number, (job.person, _by(job, start + number), each)) for number, each in enumerate(tokens)
        )
        for position in range(start + len(tokens)):
            who, by, token = slot.get(position, ("", "", -1))
            shared = whole[: position + 1] == OPENING[: position + 1]
            if token != whole[position] or by != _by(job, position) or not (who == job.person or shared):
                raise Foreign(f"{job} reads {slot.get(position)} at {position} instead of {whole[position]}")
        if not job.answer:
            self._check_told(job)
        for by, most in ((job.base, job.bare), (job.merge, len(whole))):
            self._computed.setdefault((job.person, by), set()).add(whole[: min(most, start + len(tokens))])
        self.seen["rows"] += 1
        self.seen["with the bare base"] += start < job.bare
        self.seen["went on from a prefix"] += start == job.cached > 0

    def _check_told(self, job: Job) -> None:
        """What is told of the cache is what this person was computed before, or what everybody may share, no more."""
        own = self._computed.get((job.person, job.merge), set())
        bare = self._computed.get((job.person, job.base), set())
        most = max((_alike(each, job.prompt) for each in own), default=0)
        most = max([most, *(min(job.bare, _alike(each, job.prompt)) for each in bare)])
        if job.cached > max(most, job.common):
            raise Foreign(f"{job} is told of {job.cached} tokens, and only {most} were its own")
        self.seen["shared"] += job.cached > most
        own_only = job.common < job.cached <= most
        self.seen["own"] += own_only

    def _choose(self, job: Job) -> None:
        job.answer.append(self._draw.randrange(9))
        if len(job.answer) >= self._ends[job] or self._draw.random() < 0.05:
            del self._ends[job]
            self._scheduler.leave(job)
            self.seen["answers"] += 1
            self._talks[self._draw.randrange(len(self._talks))] = job.person, [*job.prompt, *job.answer][:60]


def _by(job: Job, position: int) -> str:
    """What computes a token: the bare base, or the merge."""
    return job.base if position < job.bare else job.merge


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def run(rows: int, seed: int) -> Counter[str]:
    """At least so many rows, in simulations of 2,000 steps each."""
    seen: Counter[str] = Counter()
    while seen["rows"] < rows:
        simulation = Simulation(seed)
        for _ in range(2000):
            simulation.step()
        seen.update(simulation.seen)
        seed += 1
    return seen


if __name__ == "__main__":
    found = run(int(sys.argv[1]), int(sys.argv[2]))
    print(", ".join(f"{count:,} {what}" for what, count in found.items()), "; no row read what is not its own")
