"""Best of n with a beam over segments: of several candidates of each segment those go on that a score prefers.

It is DeAL (Huang et al. 2024, arXiv 2402.06147) without lookahead: what is scored is the text that is there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from soupmix.backends.protocol import MOST_SEEDS, Sampling
from soupmix.engine.decode import Rows, Tokens
from soupmix.engine.mixing import Mixture
from soupmix.engine.sampling import choose, stream

__all__ = ["Found", "Search", "SegmentBeam"]

_APART = 0x9E3779B9  # between the seeds of candidates; odd, as torch reads the lower 32 bits of a seed only


@dataclass(frozen=True, slots=True)
class SegmentBeam:
    """How many are tried.

    Attributes:
        candidates: of every answer, at once. beams: how many of them go on behind each segment, at most as many as candidates.
        segment: its tokens.
    """

    candidates: int
    beams: int
    segment: int


@dataclass(frozen=True, slots=True)
class Found:
    """The best candidate, and how many tokens of candidates were decoded for it."""

    tokens: Tokens
    candidates: int


@dataclass(slots=True)
class _Candidate:
    """What is made of one answer; `place` among its candidates says which luck is its own."""

    answer: int
    place: int
    ids: tuple[int, ...] = ()
    finished: bool = False
    total: float = 0.0
    counted: int = 0

    @property
    def score(self) -> float:
        return self.total / max(self.counted, 1)


class Search:
    """Answers that are generated segment by segment.

    A candidate's score is a mean over its tokens, the one that ends it among them. The first candidate has the luck that
    `decode_rows` would give the answer, so that one candidate is that answer; the others have luck of their own. Where tokens
    are chosen greedily, the candidates of a beam begin its segment with the likeliest tokens, one each.

    Args:
        batch: behind its prompts. mix: how rows make answers.
        scores: of every answer, what each row's log-probability of a token is multiplied by before they are summed.
        sampling, streams, stop: as `decode_rows`.
        beam: how many are tried.

    Attributes:
        live: the candidates that have rows in the batch, in its order.
    """

    def __init__(
        self,
        batch: Rows,
        mix: Mixture,
        scores: Sequence[Sequence[float]],
        *,
        sampling: Sampling,
        streams: Sequence[int],
        stop: frozenset[int],
        beam: SegmentBeam,
    ) -> None:
        self._batch, self._mix, self._scores, self._stop, self._beam = batch, mix, scores, stop, beam
        self._sampling = sampling
        self._uniform = torch.stack([torch.stack(list(_luck(sampling, each, beam.candidates))) for each in streams])
        self.live = [_Candidate(number, 0) for number in range(len(streams))]
        self._kept: list[list[_Candidate]] = [[] for _ in streams]
        self._decoded = [0] * len(streams)

    @torch.inference_mode()
    def found(self) -> list[Found]:
        """One per answer, in order; it does not depend on the others. To be asked once."""
        most, segment = self._sampling.max_new_tokens, self._beam.segment
        for step in range(most):
            logits = self._batch.logits()
            if step % segment == 0:
                logits = self.expand(logits)
            chosen = self.draw(logits, step)
            ended = self.take(chosen, logits)
            last = step + 1 == most
            if ended or last or (step + 1) % segment == 0:
                chosen = self.select(chosen)
            if last or not self.live:
                break
            self.go_on(chosen)
        return [Found(Tokens(best.ids, best.finished), count) for best, count in self.best()]

    def expand(self, logits: Tensor) -> Tensor:
        """Make candidates of every beam; logits [rows, vocabulary] of theirs."""
        beams = [each.answer for each in self.live]
        parents = [
            slot
            for slot, each in enumerate(self.live)
            for _ in range(self._beam.candidates // beams.count(each.answer))
        ]
        rows, places = self._mix.rows(parents), [0] * len(self._kept)
        self._batch.keep(rows)
        self._mix, live = self._mix.subset(parents), []
        for slot in parents:
            answer = self.live[slot].answer
            live.append(replace(self.live[slot], place=places[answer]))
            places[answer] += 1
        self.live, self._parents = live, parents
        return logits[rows]

    def draw(self, logits: Tensor, step: int) -> Tensor:
        """The next token of every candidate [candidates] int64."""
        mixed = self._mix.logits(logits)
        numbers = torch.stack([self._uniform[each.answer, each.place, step] for each in self.live])
        chosen = choose(mixed, [self._sampling] * len(self.live), numbers, [each.ids for each in self.live])
        if self._sampling.temperature or step % self._beam.segment:
            return chosen
        return torch.stack([self._nth(slot, mixed[slot], chosen[slot]) for slot in range(len(self.live))])

    def _nth(self, slot: int, logits: Tensor, likeliest: Tensor) -> Tensor:
        """Of the candidates of one beam the first has the likeliest token, the second the next one, and so on."""
        rank = slot - self._parents.index(self._parents[slot])
        others = [each for each in logits.topk(min(rank + 1, len(logits))).indices if each != likeliest]
        there = rank and len(others) >= rank and logits[others[rank - 1]].isfinite()
        return others[rank - 1] if there else likeliest

    def take(self, chosen: Tensor, logits: Tensor) -> bool:
        """Add these tokens to the candidates that have not ended; whether all have now."""
        log_p = logits.float().log_softmax(-1).gather(-1, self._mix.to_rows(chosen)[:, None])[:, 0].tolist()
        rows = iter(log_p)
        for each, token in zip(self.live, chosen.tolist(), strict=True):
            factors = self._scores[each.answer]
            gained = sum(factor * next(rows) for factor in factors)
            if not each.finished:
                each.total, each.counted = each.total + gained, each.counted + 1
                each.finished = token in self._stop
            if not each.finished:
                each.ids = (*each.ids, token)
                self._decoded[each.answer] += 1
        return all(each.finished for each in self.live)

    def select(self, chosen: Tensor) -> Tensor:
        """Go on with the best candidates, of which those that have ended have no rows; the tokens of those that have."""
        for answer, before in enumerate(self._kept):
            different: dict[object, _Candidate] = {}
            for each in [*(one for one in before if one.finished), *(one for one in self.live if one.answer == answer)]:
                different.setdefault((each.ids, each.finished), each)
            self._kept[answer] = sorted(different.values(), key=lambda each: -each.score)[: self._beam.beams]
        going = {id(each) for kept in self._kept for each in kept if not each.finished}
        slots = [slot for slot, each in enumerate(self.live) if id(each) in going]
        if slots:
            self._batch.keep(self._mix.rows(slots))
        self._mix, self.live = self._mix.subset(slots), [self.live[slot] for slot in slots]
        return chosen[slots]

    def go_on(self, chosen: Tensor) -> None:
        """Give the batch these tokens."""
        live = torch.tensor([not each.finished for each in self.live], device=chosen.device)
        self._batch.add(self._mix.to_rows(chosen), self._mix.to_rows(live))

    def best(self) -> Iterator[tuple[_Candidate, int]]:
        """Of every answer the best candidate, and how many tokens of candidates were decoded."""
        return zip((kept[0] for kept in self._kept), self._decoded, strict=True)


def _luck(sampling: Sampling, number: int, candidates: int) -> Iterator[Tensor]:
    """The random numbers of each candidate of one answer, [max_new_tokens] each."""
    for place in range(candidates):
        yield stream(replace(sampling, seed=(sampling.seed + number + place * _APART) % MOST_SEEDS))
