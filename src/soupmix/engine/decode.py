"""The decode loop: prefill a left-padded batch, then one token per row and step; a finished row leaves the batch.

Its KV cache has room to grow: a step writes its own tokens instead of copying all that came before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from soupmix.backends.protocol import MOST_SEEDS, Sampling
from soupmix.engine.grammar import Grammar
from soupmix.engine.mixing import Mixture
from soupmix.engine.sampling import choose, stream

__all__ = ["SHRINK_AT", "KeptRows", "PaddedBatch", "Rows", "Tokens", "decode", "decode_rows", "left_padded"]

_ROOM = 64  # tokens
SHRINK_AT = 0.8
"""Rows that have ended are dropped together, once so many are left: each drop copies the KV cache of all others."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one row produced.

    Attributes:
        ids: token ids without the one that ends the answer. finished: whether the row ended by itself, not at the cap.
    """

    ids: tuple[int, ...]
    finished: bool


class Rows(Protocol):
    """Rows of a model while they are decoded; see `PaddedBatch`."""

    def logits(self) -> Tensor:
        """Logits behind what every row has [rows, vocabulary]."""
        ...

    def add(self, tokens: Tensor, live: Tensor) -> None:
        """Go on with one more token in every row."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order."""
        ...


class KeptRows(Protocol):
    """As `Rows`; `PaddedBatch` and `soupmix.engine.slot_rows.SlotRows` are such."""

    def logits(self) -> Tensor:
        """See `Rows`."""
        ...

    def logits_along(self, ids: Tensor) -> Tensor:
        """Go on with these tokens in every row, [rows, tokens] int64: logits behind each of them [rows, tokens, vocabulary]."""
        ...

    def add(self, tokens: Tensor, live: Tensor) -> None:
        """See `Rows`."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, in this order, indices [kept] int64; a row that comes twice goes on as two."""
        ...


def decode(
    batch: KeptRows,
    device: torch.device,
    *,
    sampling: Sampling,
    streams: Sequence[int],
    stop: frozenset[int],
    keep: Callable[[Tensor], None],
    begin: Callable[[], None] = lambda: None,
    grammars: Sequence[Grammar | None] = (),
) -> list[Tokens]:
    """Generate an answer for every row of a batch.

    Args:
        batch: behind nothing yet. device: where it computes.
        sampling: how tokens are chosen in every row. streams: what is added to `sampling.seed`, for every row.
        stop: token ids that end an answer.
        keep: called whenever rows leave the batch, with the indices [kept] int64 of those that go on.
        begin: called once all prompts are computed, before the answers are.
        grammars: as `decode_rows`.

    Returns:
        One `Tokens` per row, in order.
    """
    told = _Told(batch, keep, begin, device)
    return decode_rows(told, sampling=sampling, streams=streams, stop=stop, grammars=grammars)


@torch.inference_mode()
def decode_rows(
    batch: Rows,
    *,
    sampling: Sampling,
    streams: Sequence[int],
    stop: frozenset[int],
    mix: Mixture | None = None,
    grammars: Sequence[Grammar | None] = (),
) -> list[Tokens]:
    """Generate answers from the rows of a batch, each from a row of its own or from several that go on alike.

    Args:
        batch: behind its prompts. mix: how rows make answers; None: each makes one.
        sampling, streams, stop: as `decode`, of answers.
        grammars: what each answer is held to; None, or none given: nothing.

    Returns:
        One `Tokens` per answer, in order.
    """
    mix = Mixture.plain(len(streams)) if mix is None else mix
    samplings = [replace(sampling, seed=(sampling.seed + number) % MOST_SEEDS) for number in streams]
    uniform = torch.stack([stream(each) for each in samplings])
    taken: list[list[int]] = [[] for _ in streams]
    finished = [False] * len(streams)
    answers = list(range(len(streams)))
    held = list(grammars) or [None] * len(streams)
    live = torch.ones(len(streams), dtype=torch.bool)
    for step in range(sampling.max_new_tokens):
        allowed = [None if grammar is None else grammar.allowed for grammar in held]
        said = [taken[answer] for answer in answers]
        chosen = choose(mix.logits(batch.logits()), samplings, uniform[:, step], said, allowed)
        for slot, token in enumerate(chosen.tolist()):
            if live[slot]:
                finished[answers[slot]] = token in stop
                live[slot] = not finished[answers[slot]]
                if live[slot]:
                    taken[answers[slot]].append(token)
                    if (grammar := held[slot]) is not None:
                        grammar.accept(token)
        left = int(live.sum())
        if left == 0:
            break
        batch.add(mix.to_rows(chosen), mix.to_rows(live.to(chosen.device)))
        if left <= SHRINK_AT * len(answers):
            kept = live.nonzero()[:, 0].tolist()
            batch.keep(mix.rows(kept))
            mix, uniform = mix.subset(kept), uniform[kept]
            answers, samplings, held = ([each[slot] for slot in kept] for each in (answers, samplings, held))
            live = torch.ones(len(answers), dtype=torch.bool)
    return [Tokens(tuple(t), f) for t, f in zip(taken, finished, strict=True)]


def left_padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids with padding before the shorter rows, and 1 for every token and 0 for padding: [rows, longest] int64 each."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*[0] * (longest - len(row)), *row] for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


class PaddedBatch:
    """A left-padded batch while it is decoded, with the cache that transformers has for its model.

    Args:
        model: a transformers causal language model.
        ids: prompt tokens [rows, length] int64, on the model's device. mask: 1 for a token, 0 for padding, same shape. The model
            is told of it only if there is padding: a state-space layer may take it for one of its inputs later on.
    """

    def __init__(self, model: Any, ids: Tensor, mask: Tensor) -> None:
        self._model, self._ids, self._mask = model, ids, mask
        self._is_padded = not bool(mask.all())
        self._positions = (mask.cumsum(1) - 1).clamp(min=0)
        self._cache = _roomy_cache(model.config)
        # transformers 5.24 calls it by another name
        self._name = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"

    def logits(self) -> Tensor:
        """Compute what is next, first the prompts and then what was added: logits behind it [rows, vocabulary]."""
        # an index tensor, not 1: the slice that 1 takes is strided, and torch would then copy lm_head once per row
        return self._computed(torch.tensor([self._ids.shape[1] - 1], device=self._ids.device))[:, -1]

    def logits_along(self, ids: Tensor) -> Tensor:
        """See `KeptRows.logits_along`."""
        ahead = torch.arange(1, ids.shape[1] + 1, device=ids.device)
        self._mask = torch.cat([self._mask, torch.ones_like(ids)], 1)
        self._positions, self._ids = self._positions[:, -1:] + ahead, ids
        return self._computed(0)

    def _computed(self, logits_to_keep: Tensor | int) -> Tensor:
        out = self._model(
            input_ids=self._ids,
            attention_mask=self._mask if self._is_padded else None,
            position_ids=self._positions,
            logits_to_keep=logits_to_keep,
            use_cache=True,
            **{self._name: self._cache},
        )
        logits: Tensor = out.logits
        return logits

    def add(self, tokens: Tensor, live: Tensor) -> None:
        """Go on with one more token in every row, [rows] int64. Rows that are not live [rows] bool have ended.

        They stay where they are, as a model may know no position beyond.
        """
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], 1)
        self._positions, self._ids = self._positions[:, -1:] + live[:, None], tokens[:, None]

    def keep(self, rows: Tensor) -> None:
        """See `KeptRows.keep`."""
        self._cache.reorder_cache(rows)  # of all kinds of layers only this selects whatever they hold
        self._mask, self._positions, self._ids = self._mask[rows], self._positions[rows], self._ids[rows]


class _Told:
    """A batch whose owner is told when its prompts are computed, and which rows go on."""

    def __init__(
        self, batch: KeptRows, keep: Callable[[Tensor], None], begin: Callable[[], None], device: torch.device
    ) -> None:
        self.add = batch.add
        self._batch, self._keep, self._device = batch, keep, device
        self._begin: Callable[[], None] | None = begin

    def logits(self) -> Tensor:
        found = self._batch.logits()
        if self._begin is not None:
            self._begin()
            self._begin = None
        return found

    def keep(self, rows: Sequence[int]) -> None:
        kept = torch.tensor(rows, device=self._device)
        self._batch.keep(kept)
        self._keep(kept)


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """`DynamicLayer` whose keys and values [rows, heads, tokens, size] are views of larger buffers.

    When something replaces the views (selecting or reordering rows), the next step copies them into a new buffer.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._rooms: list[Tensor | None] = [None, None]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append tokens [rows, heads, new, size]; return all keys and all values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys = self._append(0, self.keys, key_states)  # type: ignore[has-type]
        values = self._append(1, self.values, value_states)  # type: ignore[has-type]
        self.keys, self.values = keys, values
        return keys, values

    def _append(self, which: int, past: Tensor, new: Tensor) -> Tensor:
        held = past.shape[-2] if past.numel() else 0
        total = held + new.shape[-2]
        room = self._rooms[which]
        # once rows were selected, `past` lies elsewhere than in its buffer
        if (
            room is None
            or room.shape[-2] < total
            or room.shape[0] != new.shape[0]
            or past.data_ptr() != room.data_ptr()
        ):
            room = new.new_empty(*new.shape[:2], total + _ROOM, new.shape[-1])
            if held:
                room[:, :, :held] = past
            self._rooms[which] = room
        room[:, :, held:total] = new
        return room[:, :, :total]


def _roomy_cache(config: Any) -> DynamicCache:
    """The cache that transformers would make for this model, with roomy layers where it has plain ones."""
    cache = DynamicCache(config=config)
    cache.layers = [_RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
