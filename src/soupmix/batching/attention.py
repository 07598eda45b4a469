"""Attention over slots: what a model of transformers calls instead of its own attention, while a step is computed.

transformers asks two tables by the name of an attention: one for the mask of the layers of a kind, one for the attention
itself. Under our name the first hands out transformers' own rule of which keys a query sees (`Sight`), and no tensor; the
second asks that rule for the positions in the slots. So windows and chunks are those of transformers, per layer.

Attention itself is what the model was loaded with: torch's `scaled_dot_product_attention`, or where a model has no such, its
own `eager_attention_forward`, which knows its soft caps and sinks. What is handed over and cannot be passed on is refused.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import causal_mask_function

from soupmix.batching.slots import Layout, Slots, Span
from soupmix.errors import BaseModelError
from soupmix_kernels.rows_apart import whole, widen

__all__ = ["attending"]

_NAME = "soupmix_slots"
_SAID_ELSEWHERE = (
    frozenset(  # what attention is told and need not know: masks and keys say it already, or nobody asks for it
        {"sliding_window", "position_ids", "position_embeddings", "cache_position", "use_cache", "output_attentions"}
    )
)


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """Which keys a query sees in the layers of one kind, as transformers says it.

    Attributes:
        sees: (batch, head, position of the query, position of the key) -> bool, index tensors that broadcast.
        reach: as long as a row has at most so many tokens, a query sees all before it; 0: never.
    """

    sees: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    reach: int


@dataclass(slots=True)
class _Step:
    """A step while it is computed.

    Attributes:
        named: whether the model's own attention is called, instead of torch's. asked: attentions so far.
        masks: of a sight, a span (by its first token) and a number of keys: [rows, 1, tokens, keys] bool. added: the same as
            what is added to scores, per dtype.
    """

    slots: Slots
    layout: Layout
    named: bool
    asked: int = 0
    masks: dict[tuple[Sight | None, int, int], Tensor] = field(default_factory=dict)
    added: dict[tuple[Sight | None, int, int, torch.dtype], Tensor] = field(default_factory=dict)


class _Running(threading.local):
    step: _Step | None = None


_running = _Running()


@contextmanager
def attending(model: Any, slots: Slots, layout: Layout) -> Iterator[None]:
    """While this lasts, attention of the model in this thread reads and writes these slots.

    What the model calls inside may raise BaseModelError (reason "unsupported-attention").
    """
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = _NAME
    step = _running.step = _Step(slots, layout, named=before == "eager")
    try:
        yield
        if not step.asked:
            raise _unsupported(model, "does not attend through transformers' attention interface")
        if step.asked != slots.attentions:
            raise _unsupported(model, f"attends {step.asked} times in one step and {slots.attentions} times in another")
    finally:
        _running.step = None
        config._attn_implementation = before


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Sight | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """For transformers: query [1, heads, tokens, size] -> [1, tokens, heads, value size]."""
    step = _running.step
    if step is None:
        raise RuntimeError("attention over slots outside of a step")
    if attention_mask is not None and not isinstance(attention_mask, Sight):
        raise _unsupported(module, "masks keys in a way of its own")
    if attention_mask is None and not (getattr(module, "is_causal", True) if is_causal is None else is_causal):
        raise _unsupported(module, "lets tokens see what comes after them")
    passed = _passed_on(module, more, step.named)
    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))
    keys, values = step.slots.hold(step.asked, k, v, step.layout)
    step.asked += 1
    parts = [
        _by_name(step, module, q, keys, values, span, attention_mask, scaling, passed)
        if step.named
        else _by_torch(q, keys, values, span, _mask(step, span, attention_mask), scaling)
        for span in step.layout.spans
    ]
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[None], None


def _by_torch(
    query: Tensor, keys: Tensor, values: Tensor, span: Span, mask: Tensor | None, scale: float | None
) -> Tensor:
    """Attention of one span. Heads that share a key head become further queries of it, so that no key is copied."""
    asked = query[span.first : span.first + span.rows * span.tokens]
    held = slice(span.slot, span.slot + span.rows)
    k, v = keys[held, :, : span.length], values[held, :, : span.length]
    heads, shared, size = k.shape[1], query.shape[1] // k.shape[1], query.shape[2]
    if span.tokens == 1:
        q = asked.reshape(span.rows, heads, shared, size)
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
        return out.reshape(span.rows, heads * shared, v.shape[-1])
    q = asked.view(1, span.tokens, heads * shared, size).transpose(1, 2)
    out = scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=shared > 1
    )
    return out[0].transpose(0, 1)


def _by_name(
    step: _Step,
    module: nn.Module,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    span: Span,
    sight: Sight | None,
    scale: float | None,
    passed: dict[str, Any],
) -> Tensor:
    """Attention of one span by the function beside the model's own layers.

    Its products are torch's, so their inner dimensions (head size, keys) are filled up; what is filled in is masked or zero.
    """
    own = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if own is None:
        raise _unsupported(module, "names no attention function")
    length, size = whole(span.length, values.dtype, values.device), whole(query.shape[2], query.dtype, query.device)
    held = slice(span.slot, span.slot + span.rows)
    asked = query[span.first : span.first + span.rows * span.tokens]
    q = asked.reshape(span.rows, span.tokens, *query.shape[1:]).transpose(1, 2)
    mask = _added(step, span, sight, length, query.dtype)
    k, v = keys[held, :, :length], values[held, :, :length]
    scale = query.shape[2] ** -0.5 if scale is None else scale
    out: Tensor = own(module, widen(q, size), widen(k, size), v, mask, scaling=scale, dropout=0.0, **passed)[0]
    return out.reshape(span.rows * span.tokens, *out.shape[2:])


def _mask(step: _Step, span: Span, sight: Sight | None) -> Tensor | None:
    """As `Span.mask`, for layers of any kind."""
    if sight is None or span.length <= sight.reach:
        return span.mask
    return _visible(step, span, sight, span.length)


def _visible(step: _Step, span: Span, sight: Sight | None, length: int) -> Tensor:
    """Which of so many keys each token sees, [rows, 1, tokens, keys] bool; never one behind it, whatever the model says."""
    held = step.masks.get((sight, span.first, length))
    if held is None:
        count = span.rows * span.tokens
        queries = step.layout.positions[span.first : span.first + count].view(span.rows, span.tokens, 1)
        keys = torch.arange(length, device=queries.device)
        held = keys <= queries
        if sight is not None:
            nought = queries.new_zeros(1, 1, 1)
            held = held & sight.sees(nought, nought, queries, keys)
        held = step.masks[sight, span.first, length] = held[:, None]
    return held


def _added(step: _Step, span: Span, sight: Sight | None, length: int, dtype: torch.dtype) -> Tensor:
    """As `_visible`: 0 for a key that is seen, and the least number of the dtype for one that is not."""
    held = step.added.get((sight, span.first, length, dtype))
    if held is None:
        seen = _visible(step, span, sight, length)
        held = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
        step.added[sight, span.first, length, dtype] = held
    return held


def _passed_on(module: nn.Module, more: dict[str, Any], named: bool) -> dict[str, Any]:
    """What is handed over beside queries, keys and values: numbers and weights, for the model's own attention alone."""
    off = (None, False)
    said = {
        name: each for name, each in more.items() if name not in _SAID_ELSEWHERE and not any(each is no for no in off)
    }
    for name, value in said.items():
        own = isinstance(value, int | float) or any(value is each for each in module.parameters(recurse=False))
        if not named or not own:
            raise _unsupported(module, f"hands its attention '{name}'")
    return said


def _unsupported(module: nn.Module, oddity: str) -> BaseModelError:
    return BaseModelError(
        f"attention over slots cannot do what {type(module).__name__} asks for: it {oddity}",
        reason="unsupported-attention",
    )


def _sight(
    *,
    mask_function: Callable[..., Tensor],
    local_size: int | None = None,
    allow_is_causal_skip: bool = False,
    use_vmap: bool = False,
    **_: Any,  # of the tokens of this step, which lie side by side, and say nothing of slots
) -> Sight | None:
    """For transformers: instead of a mask what it would be made from; None for plain causal attention."""
    if mask_function is causal_mask_function:
        return None
    plain_so_far = local_size is not None and allow_is_causal_skip and not use_vmap
    return Sight(mask_function, local_size if local_size is not None and plain_so_far else 0)


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, _sight)
