"""The loop over slots: the new tokens of all rows in one forward pass without padding, whenever rows come and go."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain, groupby
from typing import Any

import torch
from torch import Tensor

from soupmix.backends.protocol import Limits
from soupmix.batching.answer import W
from soupmix.batching.attention import attending
from soupmix.batching.schedule import Feed, Plan
from soupmix.batching.slots import Layout, Slots, Span
from soupmix.engine import Engine
from soupmix.engine.compiled import Steps
from soupmix.engine.rows import BatchWeights

__all__ = ["SlottedLoop"]

_SHORT = 255  # tokens; rows up to here attend together whatever their lengths


class SlottedLoop:
    """The tensors of a running batch over slots.

    Args:
        engine: whose model and soup layers compute. limits: the size of the KV cache, `rows` x `length` tokens.
        method: how adapters are merged, one of `soupmix.methods.served`. weighted: what makes batches of weights.
    """

    def __init__(
        self, engine: Engine, limits: Limits, method: str, weighted: Callable[..., BatchWeights] = BatchWeights
    ) -> None:
        self._engine, self._method, self._weighted = engine, method, weighted
        self._slots = Slots(limits.rows, limits.length)
        self._compiled = None if engine.step.library is None else _compiled(engine, self._slots)
        self._last: tuple[list[Any], BatchWeights] = [], BatchWeights(torch.zeros(0, 0))

    @torch.inference_mode()
    def forget(self, slot: int) -> None:
        """Overwrite the keys and values of a slot with zeros, for a slot that may hold NaN."""
        self._slots.clear(slot)

    @torch.inference_mode()
    def logits(self, plan: Plan[W]) -> Tensor:
        """Compute a step: the logits of the last token of every complete feed [complete, vocabulary], in order.

        Raises:
            BaseModelError: the model's attention cannot run over slots (reason "unsupported-attention").
        """
        for source, target, length in plan.copies:
            self._slots.copy(source, target, length)
        device, feeds = self._engine.model.device, tuple(chain.from_iterable(map(_parts, plan.feeds)))
        ids = torch.tensor([list(chain.from_iterable(feed.tokens for feed in feeds))], device=device)
        slots, positions = _places(feeds, device)
        ends = list(accumulate(len(feed.tokens) for feed in feeds))
        asked = [number for number, feed in enumerate(feeds) if feed.complete]
        kept = torch.tensor(
            [ends[number] - 1 for number in asked or [-1]], device=device
        )  # of nothing no logits can be made
        batch = self._batch(feeds, kept)
        if self._compiled is not None:
            with self._engine.batch.serving(batch):
                return self._compiled.logits(ids[0], positions, slots, kept)[: len(asked)]
        layout = Layout(slots, positions, tuple(_spans(feeds, device)))
        with self._engine.batch.serving(batch), attending(self._engine.model, self._slots, layout):
            out = self._engine.model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),  # without one, transformers would look for packed sequences
                position_ids=layout.positions[None],
                use_cache=False,
                logits_to_keep=kept,
            )
        logits: Tensor = out.logits[0]
        return logits[: len(asked)]

    def _batch(self, feeds: Sequence[Feed[W]], kept: Tensor) -> BatchWeights:
        """The weights of every row: the same object as in the last step if it had the same parts of the same answers."""
        fed = [(feed.job, len(feed.tokens), feed.complete, _is_bare(feed)) for feed in feeds]
        if fed != self._last[0]:
            soups = [torch.zeros_like(feed.job.weights) if _is_bare(feed) else feed.job.weights for feed in feeds]
            weights = torch.stack(soups)
            people = torch.tensor(
                [person for person, feed in enumerate(feeds) for _ in feed.tokens], device=weights.device
            )
            self._last = fed, self._weighted(weights, people, kept=kept, method=self._method)
        return self._last[1]


def _is_bare(feed: Feed[W]) -> bool:
    """Whether the bare base computes this part."""
    return feed.start < feed.job.bare


def _parts(feed: Feed[W]) -> Iterator[Feed[W]]:
    """What the bare base computes of a feed, and what the soup does: attention comes after all keys and values of a step."""
    count = feed.job.bare - feed.start
    if 0 < count < len(feed.tokens):
        yield Feed(feed.job, feed.tokens[:count], feed.start, complete=False)
        yield Feed(feed.job, feed.tokens[count:], feed.job.bare, feed.complete)
    else:
        yield feed


def _compiled(engine: Engine, slots: Slots) -> Steps:
    """Compiled steps over these slots."""
    config, model = engine.model.config, engine.model
    size = model.model.layers[0].self_attn.head_dim
    like = torch.zeros(1, config.num_key_value_heads, size, dtype=model.dtype)
    return engine.step.over(*slots.make(config.num_hidden_layers, like))


def _places(feeds: Sequence[Feed[W]], device: torch.device) -> tuple[Tensor, Tensor]:
    """The slot and position of every token of a step, [tokens] int64 each."""
    slots = [feed.job.slot for feed in feeds for _ in feed.tokens]
    positions = [feed.start + number for feed in feeds for number in range(len(feed.tokens))]
    return torch.tensor(slots, device=device), torch.tensor(positions, device=device)


def _spans(feeds: Sequence[Feed[W]], device: torch.device) -> Iterator[Span]:
    """Rows of one token each in neighbouring slots attend together, if about as many tokens came before; others alone."""
    first = 0
    for (single, *_), group in groupby(enumerate(feeds), _kind):
        together = [feed for _, feed in group]
        for part in [together] if single else [[feed] for feed in together]:
            count = len(part[0].tokens)
            yield Span(first, part[0].job.slot, len(part), count, *_seen(part, device))
            first += len(part) * count


def _kind(numbered: tuple[int, Feed[W]]) -> tuple[bool, int, int]:
    """Equal for rows that attend together. Rows of other lengths do not: all would be padded to the longest."""
    number, feed = numbered
    return len(feed.tokens) == 1, feed.job.slot - number, max(feed.start, _SHORT).bit_length()


def _seen(part: Sequence[Feed[W]], device: torch.device) -> tuple[int, Tensor | None]:
    """Keys that the longest row sees, and which of them each token sees; no mask where that is all before it."""
    count, starts = len(part[0].tokens), [feed.start for feed in part]
    length = max(starts) + count
    if min(starts) == max(starts) and (count == 1 or starts[0] == 0):
        return length, None
    last = torch.tensor(starts, device=device)[:, None] + torch.arange(count, device=device)
    return length, (torch.arange(length, device=device) <= last[..., None])[:, None]
