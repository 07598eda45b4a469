"""The padded loop: for models that keep more than keys and values, or attend in ways of their own.

Answers begin in rounds. A round is a left-padded batch with the cache that transformers has for the model, or several, where
the engine found that padding or company changes a row. Rounds take turns, each one token a step, so that nobody waits for the
end of another's answer: up to four begin as soon as somebody asks, and one more whenever somebody has waited for 16 steps, as
long as there is a free row. Nothing is taken over from one answer to another.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor

from soupmix.backends.protocol import Limits
from soupmix.batching.answer import W, WeightedJob
from soupmix.batching.schedule import J, Plan, Scheduler
from soupmix.engine import Engine
from soupmix.engine.decode import SHRINK_AT, PaddedBatch, left_padded
from soupmix.engine.rows import BatchWeights
from soupmix.engine.together import Together

__all__ = ["PaddedLoop", "Rounds"]

_ROUNDS = 4  # that begin at once: more would be smaller, and each costs a forward pass a step
_PATIENCE = 16  # steps and later arrivals that somebody waits for, where so many rounds run
_CHUNKS = 8  # of prompts that begin together: they are computed whole


class Rounds(Scheduler[J]):
    """Decides which answers begin together. Prompts are computed whole: up to eight chunks of them at once, or a longer one."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(replace(limits, chunk=limits.rows * limits.length))
        self._room = _CHUNKS * limits.chunk
        self._rounds: list[set[J]] = []

    def _admit(self) -> Iterator[tuple[int, int, int]]:
        running = set(self.running)
        self._rounds = [left for each in self._rounds if (left := each & running)]
        if len(self._rounds) < _ROUNDS or self._has_waited:
            self._rounds.append(set(self._begin()))
        return iter(())

    def _taken_meanwhile(self, job: J) -> Iterator[tuple[int, int, int]]:
        return iter(())

    @property
    def _has_waited(self) -> bool:
        return bool(self.waiting) and self._clock - self.waiting[0].arrived > _PATIENCE

    def _begin(self) -> Iterator[J]:
        free = [slot for slot, job in enumerate(self._jobs) if job is None]
        longest = 0
        for number, slot in enumerate(free):
            longest = max(longest, len(self.waiting[0].prompt)) if self.waiting else 0
            if not self.waiting or (number and longest * (number + 1) > self._room):
                return
            job = self._jobs[slot] = self.waiting.popleft()
            job.slot = slot
            yield job


class PaddedLoop:
    """The tensors of a running batch in rounds.

    Args:
        engine: whose model and soup layers compute. method: how adapters are merged, one of `soupmix.methods.served`.
    """

    def __init__(self, engine: Engine, method: str) -> None:
        self._engine, self._method = engine, method
        self._rounds: list[_Round] = []

    def forget(self, slot: int) -> None:
        """Rows of answers that have ended are never read again."""

    @torch.inference_mode()
    def logits(self, plan: Plan[W]) -> Tensor:
        """See `Loop.logits`."""
        fed: dict[WeightedJob, tuple[int, ...]] = {feed.job: feed.tokens for feed in plan.feeds}
        self._rounds = [each for each in self._rounds if each.keep(fed)]
        begun = [feed.job for feed in plan.feeds if not feed.start]
        parts = _parts(begun, self._engine.together) if begun else ()
        self._rounds += [_Round(self._engine, self._method, part) for part in parts]
        made: dict[WeightedJob, Tensor] = {}
        for each in self._rounds:
            made |= each.step(fed)
        return torch.stack([made[feed.job] for feed in plan.feeds])


def _parts(jobs: Sequence[WeightedJob], together: Together) -> Iterator[list[WeightedJob]]:
    """Answers whose prompts are computed in one batch."""
    if together == "alone":
        yield from ([job] for job in jobs)
    elif together == "equal":
        for _, part in groupby(sorted(jobs, key=_length), _length):
            yield list(part)
    else:
        yield list(jobs)


def _length(job: WeightedJob) -> int:
    return len(job.prompt)


class _Round:
    """Answers that began together, as one batch."""

    def __init__(self, engine: Engine, method: str, jobs: list[WeightedJob]) -> None:
        self._engine, self._method, self._jobs = engine, method, jobs
        self._weights = self._weighted()
        self._batch = PaddedBatch(engine.model, *left_padded([job.prompt for job in jobs], engine.model.device))
        self._is_new = True

    def keep(self, fed: Mapping[WeightedJob, tuple[int, ...]]) -> bool:
        """Go on with the answers that are fed; False if there is none. Rows that have ended go once there are enough."""
        live = [row for row, job in enumerate(self._jobs) if job in fed]
        if live and len(live) <= SHRINK_AT * len(self._jobs):
            self._jobs = [self._jobs[row] for row in live]
            self._weights = self._weighted()
            self._batch.keep(torch.tensor(live, device=self._engine.model.device))
        return bool(live)

    def step(self, fed: Mapping[WeightedJob, tuple[int, ...]]) -> dict[WeightedJob, Tensor]:
        """Logits behind what is fed, of every answer [vocabulary]."""
        if not self._is_new:  # a row that has ended goes on with anything
            tokens = [fed.get(job, (0,))[-1] for job in self._jobs]
            live = [job in fed for job in self._jobs]
            self._batch.add(*(torch.tensor(each, device=self._engine.model.device) for each in (tokens, live)))
        weights = self._of_prompts() if self._is_new else self._weights
        self._is_new = False
        with self._engine.batch.serving(weights):
            logits = self._batch.logits()
        return {job: logits[row] for row, job in enumerate(self._jobs) if job in fed}

    def _of_prompts(self) -> BatchWeights:
        weights = torch.stack([job.weights for job in self._jobs])
        prompts, bare = [job.prompt for job in self._jobs], [job.bare for job in self._jobs]
        return BatchWeights.of_prompts(weights, prompts, bare, method=self._method)

    def _weighted(self) -> BatchWeights:
        return BatchWeights(torch.stack([job.weights for job in self._jobs]), method=self._method)
