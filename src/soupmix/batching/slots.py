"""The KV cache of a running batch: a fixed number of slots, shaped by what the layers of a model hand over."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from soupmix_kernels.rows_apart import whole

__all__ = ["Layout", "Slots", "Span"]


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of a step that attend in one call: several rows of one token each, or one row of several tokens.

    Attributes:
        first: place of the first of them among the tokens of the step.
        slot, rows: the slots slot..slot+rows-1. tokens: how many per row.
        length: keys that the longest row sees.
        mask: which keys each token sees under plain causal attention, [rows, 1, tokens, length] bool; None: all before it in
            its row, and itself.
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
    """Keys and values of every attention of a model, [slots, heads, length, size] each, made when it first hands some over.

    An attention is known by its place among those that one forward pass asks for. Keys and values may have other heads, sizes
    and dtypes than each other, and than those of the next attention. On the CPU a page of memory is taken when a token is first
    written to it.

    Args:
        rows, length: how many slots, and tokens in each.
    """

    def __init__(self, rows: int, length: int) -> None:
        self._rows, self._length = rows, length
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    @property
    def attentions(self) -> int:
        """How many attentions have keys and values here."""
        return len(self._keys)

    def make(self, attentions: int, like: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values of so many attentions at once, for tokens [tokens, key heads, size] like these; and give them out."""
        self._keys, self._values = ([self._made(like) for _ in range(attentions)] for _ in range(2))
        return self._keys, self._values

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy keys and values of the first `length` tokens of one slot into another."""
        for each in (*self._keys, *self._values):
            each[target, :, :length] = each[source, :, :length]

    def clear(self, slot: int) -> None:
        """Overwrite a slot with zeros. Masked values count zero times, and zero times NaN would still be NaN."""
        for each in (*self._keys, *self._values):
            each[slot].zero_()

    def hold(self, attention: int, key: Tensor, value: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Write the keys and values of a step into their slots.

        Args:
            attention: its place. key: [tokens, key heads, size]. value: [tokens, key heads, value size].

        Returns:
            All keys and all values, [slots, key heads, length or more, size].
        """
        if attention == len(self._keys):
            self._keys.append(self._made(key))
            self._values.append(self._made(value))
        keys, values = self._keys[attention], self._values[attention]
        keys[layout.slots, :, layout.positions] = key
        values[layout.slots, :, layout.positions] = value
        return keys, values

    def _made(self, like: Tensor) -> Tensor:
        """Zeros for tokens like these, filled up so that a product over all keys keeps rows apart."""
        length = whole(self._length, like.dtype, like.device)
        return _zeros((self._rows, like.shape[1], length, like.shape[2]), like.dtype, like.device)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on the CPU the operating system gives out their pages when they are first written."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)
