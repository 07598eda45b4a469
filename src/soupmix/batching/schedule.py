"""Which answers run, in which slots, and which tokens the next step computes: decisions only, no tensors.

A slot holds the keys and values of a token sequence, for one person: the first of them may be those of the bare base, all others
are of one merge. When its answer ends, the slot keeps them until another answer needs the slot. A job whose prompt begins with
the same tokens, computed with the same, takes them over instead of computing them: as many as are equal, if it is of the same
person; of another person only a beginning that the operator has declared to be shared, and all of that beginning or nothing.
What a merge computed goes on under that merge alone; what the bare base computed, under any merge whose prompts it computes.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Generic, TypeVar

from soupmix.backends.protocol import Limits

__all__ = ["Feed", "J", "Job", "Plan", "Scheduler"]


@dataclass(slots=True, eq=False)
class Job:
    """One answer that waits or runs.

    Attributes:
        person: whose; jobs of one person take over each other's keys and values.
        prompt: token ids. answer: token ids so far, without the one that ends it.
        computed: how many tokens of prompt and answer have keys and values in the slot.
        cached: how many of these were taken over. slot: where it runs; -1 while it waits.
        arrived: a larger number for a job that came later.
        merge: identity of the merge, whoever the person is. bare: the first so many tokens of the prompt are computed with the
            bare base instead, and no further one. base: identity of that, whatever the merge is.
        common: the first so many tokens of the prompt are a beginning that all persons share; never all of the prompt, nor more
            than `bare` where that is not 0.
    """

    person: str
    prompt: tuple[int, ...]
    answer: list[int] = field(default_factory=list)
    computed: int = 0
    cached: int = 0
    slot: int = -1
    arrived: int = 0
    merge: str = ""
    base: str = ""
    bare: int = 0
    common: int = 0

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens of prompt and answer that have keys and values."""
        return (*self.prompt, *self.answer)[: self.computed]


J = TypeVar("J", bound=Job)


@dataclass(frozen=True, slots=True)
class Feed(Generic[J]):
    """Tokens of a job that a step computes.

    Attributes:
        start: position of the first of them. complete: whether they are the last of what is known, so that the step
            chooses the next token.
    """

    job: J
    tokens: tuple[int, ...]
    start: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Plan(Generic[J]):
    """One step.

    Attributes:
        copies: (from slot, to slot, number of tokens): keys and values to copy before anything is computed.
        feeds: what is computed: answers that go on with one token, by slot, then prompts.
    """

    copies: tuple[tuple[int, int, int], ...]
    feeds: tuple[Feed[J], ...]


@dataclass(slots=True)
class _Held:
    """Whose keys and values a free slot still holds."""

    person: str = ""
    tokens: tuple[int, ...] = ()
    used: int = 0  # the step in which an answer ended here
    merge: str = ""
    base: str = ""
    bare: int = 0


class Scheduler(Generic[J]):
    """Decides what every step computes. Not thread-safe: one thread at a time.

    Attributes:
        waiting: jobs in the queue, first come first.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.waiting: deque[J] = deque()
        self._jobs: list[J | None] = [None] * limits.rows
        self._held = [_Held() for _ in range(limits.rows)]
        self._clock = 0

    @property
    def running(self) -> list[J]:
        """Jobs in slots, by slot."""
        return [job for job in self._jobs if job is not None]

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and not any(self._jobs)

    def add(self, job: J) -> None:
        """Queue a job, behind all others."""
        self._clock += 1
        job.arrived = self._clock
        self.waiting.append(job)

    def leave(self, job: J, *, keep: bool = True) -> None:
        """Take a job out. `keep`: later jobs may take over the keys and values in its slot."""
        if job.slot < 0:
            self.waiting.remove(job)
            return
        held = _Held(job.person, job.tokens, self._clock, job.merge, job.base, job.bare) if keep else _Held()
        self._held[job.slot] = held
        self._jobs[job.slot] = None
        job.slot = -1

    def plan(self) -> Plan[J]:
        """Give free slots to waiting jobs, and decide the next step: a token of every answer, and `Limits.chunk` of prompts."""
        self._clock += 1
        copies = list(self._admit())
        feeds = [Feed(job, (job.answer[-1],), job.computed, True) for job in self.running if job.answer]
        room = self._limits.chunk
        for job in sorted(
            (job for job in self.running if not job.answer), key=lambda each: each.computed, reverse=True
        ):
            if room:
                copies += self._taken_meanwhile(job)
            tokens = job.prompt[job.computed : job.computed + room]
            if tokens:
                feeds.append(Feed(job, tokens, job.computed, job.computed + len(tokens) == len(job.prompt)))
                room -= len(tokens)
        return Plan(tuple(copies), tuple(feeds))

    def computed(self, plan: Plan[J]) -> None:
        """Note that a step was computed: its tokens have keys and values now."""
        for feed in plan.feeds:
            feed.job.computed = feed.start + len(feed.tokens)

    def _admit(self) -> Iterator[tuple[int, int, int]]:
        while self.waiting and (free := [slot for slot, job in enumerate(self._jobs) if job is None]):
            job = self.waiting.popleft()
            source, shared = self._longest(job)
            held = self._held[source]
            own = source in free and held.person == job.person
            in_place = own and 2 * shared >= len(held.tokens)  # else most of it may still be of use to another job
            slot = source if in_place else self._emptiest(free, source)
            if shared and slot != source:
                yield source, slot, shared
            self._jobs[slot], self._held[slot] = job, _Held()
            job.slot, job.computed, job.cached = slot, shared, shared

    def _taken_meanwhile(self, job: J) -> Iterator[tuple[int, int, int]]:
        """What others have computed of a prompt since its job has a slot, if that is more than the job itself has."""
        source, shared = self._longest(job)
        if shared > job.computed:
            yield source, job.slot, shared
            job.cached, job.computed = job.cached + shared - job.computed, shared

    def _longest(self, job: J) -> tuple[int, int]:
        """The slot with the most tokens that this job may take over, and how many; never its whole prompt."""
        best, most = -1, 0
        for slot, held in enumerate(runs or held for runs, held in zip(self._jobs, self._held, strict=True)):
            shared = _shared(held, job)
            if shared > most:
                best, most = slot, shared
        return best, most

    def _emptiest(self, free: list[int], spare: int) -> int:
        """A free slot: an empty one, else the one whose answer ended longest ago; `spare` only where there is no other."""
        return min(free, key=lambda slot: (slot == spare, bool(self._held[slot].tokens), self._held[slot].used, slot))


def _shared(held: Job | _Held, job: Job) -> int:
    """How many tokens a job may take over from a slot or from a running job."""
    most = 0  # so many tokens are computed with the same in both
    if held.merge == job.merge and held.bare == job.bare:
        most = len(job.prompt) - 1
    elif held.base == job.base:
        most = min(held.bare, job.bare)
    if held.person == job.person:
        pairs = zip(held.tokens, job.prompt[:most], strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    if 0 < job.common <= most and held.tokens[: job.common] == job.prompt[: job.common]:
        return job.common
    return 0
