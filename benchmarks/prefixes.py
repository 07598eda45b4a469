"""Which share of prompt tokens is not computed again, by who may share a prefix: the scheduler alone, no model.

    python benchmarks/prefixes.py

16 people talk in turn, four turns each (30 tokens of prompt, 40 of answer), under one system prompt of 40 tokens, 64 rows.
"""

import random

from soupmix.backends import Limits
from soupmix.batching.schedule import Job, Scheduler

PEOPLE, TURNS, SYSTEM = 16, 4, tuple(range(1000, 1040))
SHARED = {
    "all of a tenant (before)": lambda person, number: "",
    "a person": lambda person, number: f"person {person}",
    "nobody (no `user`)": lambda person, number: f"request {number}",
}


def rate(sharer: str, weights: int, *, declared: bool) -> float:
    draw, scheduler = random.Random(1), Scheduler[Job](Limits(rows=64))
    talks = {person: list(SYSTEM) for person in range(PEOPLE)}
    cached = total = 0
    for turn in range(TURNS):
        for person in draw.sample(range(PEOPLE), PEOPLE):
            talk = talks[person]
            talk += [draw.randrange(900) for _ in range(30)]
            merge, who = f"weights {person % weights}", SHARED[sharer](person, turn * PEOPLE + person)
            job = Job(who, tuple(talk), merge=merge, common=len(SYSTEM) if declared else 0)
            scheduler.add(job)
            scheduler.computed(scheduler.plan())
            cached, total = cached + job.cached, total + len(job.prompt)
            for _ in range(40):
                job.answer.append(draw.randrange(900))
                scheduler.computed(scheduler.plan())
            talk += job.answer
            scheduler.leave(job)
    return cached / total


def main() -> None:
    for weights in (PEOPLE, 4, 1):
        for sharer in SHARED:
            found = [f"{rate(sharer, weights, declared=declared):.0%}" for declared in (False, True)]
            print(f"{weights:2} different weights, shared by {sharer}: {found[0]}, with --shared-prefix {found[1]}")


if __name__ == "__main__":
    main()
