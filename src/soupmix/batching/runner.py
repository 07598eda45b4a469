"""Compute one step: the tokens of a plan in one forward pass, each with the soup of its own answer."""

from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from typing import Any

import torch
from torch import Tensor

from soupmix.backends.protocol import Token
from soupmix.batching.answer import Answer, Chosen, TokenNames
from soupmix.batching.schedule import Feed, Plan
from soupmix.batching.slots import Layout, Slots, Span
from soupmix.engine import Engine
from soupmix.engine.rows import BatchWeights
from soupmix.engine.sampling import choose

__all__ = ["Runner"]

_SHORT = 255  # tokens; rows up to here attend together whatever their lengths


class Runner:
    """The tensors of a running batch: computes one step of a plan.

    Args:
        engine: whose model and soup layers compute. rows, length: size of the KV cache, `Limits.rows` x `Limits.length` tokens.
        method: how adapters are merged, one of `soupmix.methods.served`.

    Raises:
        BaseModelError: the model's attention cannot run over slots (reason "unsupported-attention").
    """

    def __init__(self, engine: Engine, rows: int, length: int, method: str) -> None:
        self._engine, self._method = engine, method
        self._slots = Slots(engine.model, rows, length)
        self._names, self._ends = TokenNames(engine.detokenizer), engine.ends
        self._last: tuple[list[Any], BatchWeights] = [], BatchWeights(torch.zeros(0, 0))

    def forget(self, slot: int) -> None:
        """Overwrite the keys and values of a slot with zeros, for a slot that may hold NaN."""
        self._slots.clear(slot)

    @torch.inference_mode()
    def step(self, plan: Plan[Answer]) -> list[tuple[Answer, Chosen | None]]:
        """Compute a step, and choose the next token of every feed that completes its prompt or goes on with its answer.

        Returns:
            (answer, token) of every complete feed, in the order of the plan; None for a token whose logits are not finite.
        """
        for source, target, length in plan.copies:
            self._slots.copy(source, target, length)
        logits = self._forward(plan.feeds)
        asked = [feed.job for feed in plan.feeds if feed.complete]
        if not asked:
            return []
        uniform = torch.stack([each.uniform[each.steps] for each in asked])
        chosen = choose(logits, [each.request.sampling for each in asked], uniform)
        finite = torch.isfinite(logits.amax(-1)).tolist()
        tokens = self._tokens(logits, chosen, asked)
        ends = self._ends
        made = (Chosen(token, token in ends, tokens.get(row)) for row, token in enumerate(chosen.tolist()))
        return [(each, token if sound else None) for each, token, sound in zip(asked, made, finite, strict=True)]

    def _forward(self, feeds: Sequence[Feed[Answer]]) -> Tensor:
        """Logits of the last token of every complete feed [complete, vocabulary]."""
        device = self._engine.model.device
        ids = torch.tensor([list(chain.from_iterable(feed.tokens for feed in feeds))], device=device)
        layout = _layout(feeds, device)
        counts = torch.tensor([len(feed.tokens) for feed in feeds])
        asked = [number for number, feed in enumerate(feeds) if feed.complete]
        kept = (counts.cumsum(0) - 1)[asked or [-1]].to(device)  # of nothing no logits can be made
        batch = self._batch(feeds, counts, kept)
        with self._engine.batch.serving(batch), self._slots.attending(layout):
            out = self._engine.model(
                input_ids=ids, position_ids=layout.positions[None], use_cache=False, logits_to_keep=kept
            )
        logits: Tensor = out.logits[0]
        return logits[: len(asked)]

    def _batch(self, feeds: Sequence[Feed[Answer]], counts: Tensor, kept: Tensor) -> BatchWeights:
        """The weights of every row: the same object as in the last step if it had the same answers and numbers of tokens."""
        fed = [(feed.job, len(feed.tokens), feed.complete) for feed in feeds]
        if fed != self._last[0]:
            weights = torch.stack([feed.job.weights for feed in feeds])
            people = torch.arange(len(feeds)).repeat_interleave(counts).to(weights.device)
            self._last = fed, BatchWeights(weights, people, kept=kept, method=self._method)
        return self._last[1]

    def _tokens(self, logits: Tensor, chosen: Tensor, asked: Sequence[Answer]) -> dict[int, Token]:
        """The chosen token with its log probability, for the rows whose request asks for them."""
        tokens = {}
        for row, each in enumerate(asked):
            if each.request.logprobs is not None:
                tokens[row] = self._names.token(logits[row], int(chosen[row]), each.request.logprobs)
        return tokens


def _layout(feeds: Sequence[Feed[Answer]], device: torch.device) -> Layout:
    """The slot and position of every token of a step, and which tokens attend together."""
    slots = [feed.job.slot for feed in feeds for _ in feed.tokens]
    positions = [feed.start + number for feed in feeds for number in range(len(feed.tokens))]
    return Layout(
        torch.tensor(slots, device=device),
        torch.tensor(positions, device=device),
        tuple(_spans(feeds, device)),
    )


def _spans(feeds: Sequence[Feed[Answer]], device: torch.device) -> Iterator[Span]:
    """Rows of one token each in neighbouring slots attend together, if about as many tokens came before; others alone."""
    first = 0
    for (single, *_), group in groupby(enumerate(feeds), _kind):
        together = [feed for _, feed in group]
        for part in [together] if single else [[feed] for feed in together]:
            count = len(part[0].tokens)
            yield Span(first, part[0].job.slot, len(part), count, *_seen(part, device))
            first += len(part) * count


def _kind(numbered: tuple[int, Feed[Answer]]) -> tuple[bool, int, int]:
    """Equal for rows that attend together. Rows of other lengths do not: all would be padded to the longest."""
    number, feed = numbered
    return len(feed.tokens) == 1, feed.job.slot - number, max(feed.start, _SHORT).bit_length()


def _seen(part: Sequence[Feed[Answer]], device: torch.device) -> tuple[int, Tensor | None]:
    """Keys that the longest row sees, and which of them each token sees; no mask where that is all before it."""
    count, starts = len(part[0].tokens), [feed.start for feed in part]
    length = max(starts) + count
    if min(starts) == max(starts) and (count == 1 or starts[0] == 0):
        return length, None
    last = torch.tensor(starts, device=device)[:, None] + torch.arange(count, device=device)
    return length, (torch.arange(length, device=device) <= last[..., None])[:, None]
