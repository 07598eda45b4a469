"""The KV cache of a running batch: a fixed number of slots, and attention that reads and writes them in place."""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from soupmix.errors import BaseModelError

__all__ = ["Layout", "Slots", "Span"]

_NAME = "soupmix_slots"


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of a step that attend in one call: several rows of one token each, or one row of several tokens.

    Attributes:
        first: place of the first of them among the tokens of the step.
        slot, rows: the slots slot..slot+rows-1. tokens: how many per row.
        length: keys that the longest row sees.
        mask: which keys each token sees, [rows, 1, tokens, length] bool; None: all before it in its row, and itself.
    """

    first: int
    slot: int
    rows: int
    tokens: int
    length: int
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the tokens of a step lie: slot and position of every token [tokens] int64, and the spans that attend together."""

    slots: Tensor
    positions: Tensor
    spans: tuple[Span, ...]


class Slots:
    """Keys and values of every layer, [slots, key heads, length, head size] each in the model's dtype.

    On the CPU a page of memory is taken when a token is first written to it.

    Raises:
        BaseModelError: the model has attention that is not plain causal attention over everything.
    """

    def __init__(self, model: Any, rows: int, length: int) -> None:
        config = model.config
        _check_plain(config)
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = rows, config.num_key_value_heads, length, size
        self._model = model
        self._keys, self._values = (
            [_zeros(shape, model.dtype, model.device) for _ in range(config.num_hidden_layers)] for _ in range(2)
        )

    @contextmanager
    def attending(self, layout: Layout) -> Iterator[None]:
        """While this lasts, attention of the model in this thread reads and writes these slots."""
        config = self._model.config
        before = config._attn_implementation
        config._attn_implementation = _NAME
        _running.step = self, layout
        try:
            yield
        finally:
            _running.step = None
            config._attn_implementation = before

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy keys and values of the first `length` tokens of one slot into another."""
        for each in (*self._keys, *self._values):
            each[target, :, :length] = each[source, :, :length]

    def clear(self, slot: int) -> None:
        """Overwrite a slot with zeros. Masked values count zero times, and zero times NaN would still be NaN."""
        for each in (*self._keys, *self._values):
            each[slot].zero_()

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
        """Write the keys and values of a step into their slots, then attend.

        Args:
            query: [tokens, heads, size]. key, value: [tokens, key heads, size].

        Returns:
            [tokens, heads, size].
        """
        keys, values = self._keys[layer], self._values[layer]
        keys[layout.slots, :, layout.positions] = key
        values[layout.slots, :, layout.positions] = value
        parts = [_attend(query, keys, values, span, scale) for span in layout.spans]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _attend(query: Tensor, keys: Tensor, values: Tensor, span: Span, scale: float) -> Tensor:
    """Attention of one span. Heads that share a key head become further queries of it, so that no key is copied."""
    asked = query[span.first : span.first + span.rows * span.tokens]
    held = slice(span.slot, span.slot + span.rows)
    k, v = keys[held, :, : span.length], values[held, :, : span.length]
    heads, shared, size = k.shape[1], query.shape[1] // k.shape[1], query.shape[2]
    if span.tokens == 1:
        q = asked.reshape(span.rows, heads, shared, size)
        out = scaled_dot_product_attention(q, k, v, attn_mask=span.mask, scale=scale)
        return out.reshape(span.rows, heads * shared, size)
    q = asked.view(1, span.tokens, heads * shared, size).transpose(1, 2)
    out = scaled_dot_product_attention(
        q, k, v, attn_mask=span.mask, is_causal=span.mask is None, scale=scale, enable_gqa=shared > 1
    )
    return out[0].transpose(0, 1)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on the CPU the operating system gives out their pages when they are first written."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)


def _check_plain(config: Any) -> None:
    kinds: Sequence[str] = getattr(config, "layer_types", None) or ("full_attention",)
    odd = getattr(config, "attn_logit_softcapping", None) or any(kind != "full_attention" for kind in kinds)
    if odd or (getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)):
        raise BaseModelError(
            f"a running batch needs plain causal attention in every layer, and {config.model_type} has another kind; "
            "use Engine.complete, which leaves attention to transformers",
            reason="unsupported-attention",
        )


class _Running(threading.local):
    step: tuple[Slots, Layout] | None = None


_running = _Running()


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """For transformers: query [1, heads, tokens, size] -> [1, tokens, heads, size]."""
    if _running.step is None:
        raise RuntimeError("attention over slots outside of a step")
    slots, layout = _running.step
    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))
    return slots.attend(module.layer_idx, q, k, v, layout, scaling)[None], None


AttentionInterface.register(_NAME, _attention)
