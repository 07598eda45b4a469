"""Rows of one batch of prompts while compiled steps compute them, each in a slot of its own, without padding."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from soupmix.engine.compiled import EngineStep
from soupmix.engine.likeness import allowed
from soupmix.engine.rows import ActiveBatch, BatchWeights, TrialWeights, strangers
from soupmix.engine.together import STEPS, prompts, unlike_whole

__all__ = ["SlotRows", "objection"]

_CHUNK = 512  # prompt tokens a step: what a step holds between its products grows with them


class SlotRows:
    """As `PaddedBatch`, of an engine whose steps are compiled. Inside `serving`, it tells the batch whose its tokens are.

    Args:
        step: of the engine. batch: the one that its model serves. given: token ids of every prompt.
        most: tokens of a prompt and its answer. weights: of every prompt [rows, K] fp32. bare: how many tokens of each, the
            first, run on the bare base. weighted: makes the weights of a batch, of one per person and the person of every token.
    """

    def __init__(
        self,
        step: EngineStep,
        batch: ActiveBatch,
        given: Sequence[Sequence[int]],
        most: int,
        weights: Tensor,
        bare: Sequence[int],
        weighted: Callable[..., BatchWeights],
    ) -> None:
        self._step, self._batch, self._given, self._most = step, batch, given, most
        self._steps = step.in_slots(len(given), most)
        self._weights, self._bare, self._weighted = weights, bare, weighted
        self._slots = torch.arange(len(given))
        self._positions = torch.tensor([len(each) - 1 for each in given])
        self._tokens: Tensor | None = None

    def logits(self) -> Tensor:
        """Compute what is next, first the prompts and then what was added: logits behind it [rows, vocabulary]."""
        if self._tokens is None:
            return self._of_prompts(torch.tensor([len(each) for each in self._given]).cumsum(0) - 1)
        return self._steps.logits(self._tokens, self._positions, self._slots, torch.arange(len(self._slots)))

    def logits_along(self, ids: Tensor) -> Tensor:
        """See `PaddedBatch.logits_along`."""
        rows, count = ids.shape
        people = torch.arange(rows).repeat_interleave(count)
        positions = (self._positions[:, None] + torch.arange(1, count + 1)).flatten()
        every = torch.arange(len(people))
        found = self._computed(ids.flatten(), positions, self._slots[people], self._weights, people, every)
        self._positions = self._positions + count
        return found.view(rows, count, -1)

    def add(self, tokens: Tensor, live: Tensor) -> None:
        """See `PaddedBatch.add`."""
        self._tokens, self._positions = tokens, self._positions + live

    def keep(self, rows: Tensor) -> None:
        """See `PaddedBatch.keep`. Only a row that comes again is copied, into a slot that nobody has."""
        slots = self._slots[rows].tolist()
        again = [place for place, slot in enumerate(slots) if slot in slots[:place]]
        free = [slot for slot in range(self._steps.slots) if slot not in slots]
        if len(free) < len(again):
            more = self._step.in_slots(len(slots), self._most)
            for slot in set(slots):
                more.take(self._steps, slot, slot, self._most)
            free, self._steps = [*free, *range(self._steps.slots, more.slots)], more
        self._positions, self._weights = self._positions[rows], self._weights[rows]
        self._tokens = None if self._tokens is None else self._tokens[rows]
        for place, slot in zip(again, free, strict=False):
            self._steps.take(self._steps, slots[place], slot, int(self._positions[place]) + 1)
            slots[place] = slot
        self._slots = torch.tensor(slots, dtype=torch.int64)

    def logits_of_prompts(self) -> Tensor:
        """Compute the prompts: logits behind every token of the first, of the second and so on [tokens, vocabulary]."""
        return self._of_prompts(torch.arange(sum(map(len, self._given))))

    def _of_prompts(self, wanted: Tensor) -> Tensor:
        """Compute the prompts: logits behind these of their tokens, ascending [wanted] int64."""
        lengths = [len(each) for each in self._given]
        tokens = torch.tensor([token for each in self._given for token in each])
        slots = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
        positions = torch.cat([torch.arange(length) for length in lengths])
        people = torch.where(positions < torch.tensor(list(self._bare))[slots], len(lengths), slots)
        everybody = torch.cat([self._weights, torch.zeros_like(self._weights[:1])])
        return self._computed(tokens, positions, slots, everybody, people, wanted)

    def _computed(
        self, tokens: Tensor, positions: Tensor, slots: Tensor, weights: Tensor, people: Tensor, wanted: Tensor
    ) -> Tensor:
        """Compute tokens of several rows in steps of a bounded size: logits behind those that are wanted.

        Afterwards the batch is that of the rows again, one token each.
        """
        found = list[Tensor]()
        for first in range(0, len(tokens), _CHUNK):
            part = slice(first, first + _CHUNK)
            here = wanted[(wanted >= first) & (wanted < first + _CHUNK)] - first
            kept = here if len(here) else torch.zeros(1, dtype=torch.int64)  # of nothing no logits can be made
            self._batch.change(self._weighted(weights, people[part], kept=kept))
            found.append(self._steps.logits(tokens[part], positions[part], slots[part], kept)[: len(here)])
        self._batch.change(self._weighted(self._weights))
        return found[0] if len(found) == 1 else torch.cat(found)


@torch.inference_mode()
def objection(model: Any, batch: ActiveBatch, step: EngineStep, size: int, noise: float) -> str | None:
    """Why compiled steps do not compute what the model does, in words; None if they do. Tried as `soupmix.engine.together` says.

    Args:
        size: ids are below it. noise: of the model, see `soupmix.engine.likeness`.
    """
    people = strangers(batch.adapters, model.device)[0 if batch.adapters else 2 :]
    given = [ids for ids in prompts(model, size)[:2] for _ in people]
    weights = people.repeat(len(given) // len(people), 1)
    heads = [ids[: 1 - STEPS].tolist() for ids in given]
    rows = SlotRows(step, batch, heads, max(map(len, given)), weights, [0] * len(given), TrialWeights)
    with batch.serving(TrialWeights(weights)):
        found = torch.stack(list(_stepwise(rows, given, batch, weights)), 1)
    return unlike_whole(model, batch, zip(given, weights, found, strict=True), allowed(noise, model.dtype))


def _stepwise(rows: SlotRows, given: Sequence[Tensor], batch: ActiveBatch, weights: Tensor) -> Iterator[Tensor]:
    for step in range(STEPS):
        if step:
            rows.add(torch.stack([ids[step - STEPS] for ids in given]), torch.ones(len(given), dtype=torch.bool))
        yield rows.logits()
        batch.change(TrialWeights(weights))
