"""Weights in 8 or 4 bits for the compiled step: blocks of 16 outputs by 32 inputs, a scale for every 32 inputs of an output.

Kinds of blocks are those of GGUF, in another order, and named as there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["BITS", "KINDS", "Blocks"]


class _Kind(NamedTuple):
    """How 32 numbers are held: bits of each, the least and the most, and whether a shift is added to scale times number."""

    bits: int
    low: int
    high: int
    shifted: bool


KINDS = {"Q8_0": _Kind(8, -127, 127, False), "Q4_0": _Kind(4, -8, 7, False), "Q4_1": _Kind(4, 0, 15, True)}
"""The kinds of blocks by name; their places, from 1, are known to the library."""

BITS = {8: "Q8_0", 4: "Q4_0"}
"""What weights may be put into -> the kind of block."""

_OUTS, _GROUP = 16, 32


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """A weight [out, in] in blocks.

    Attributes:
        data: as the library reads it, uint8 [out / 16, in / 32, bytes of a block], filled up with zeros.
        shape: out-features and in-features. kind: one of `KINDS`.
    """

    data: Tensor
    shape: tuple[int, int]
    kind: str

    @classmethod
    def of(cls, weight: Tensor, bits: int) -> "Blocks":
        """The nearest blocks to a weight [out, in], symmetric: its largest number of 32 becomes 127 (8 bits) or -8 (4 bits).

        Raises:
            ValueError: a number is not finite, or too large for a scale in fp16.
        """
        if bits not in BITS:
            raise ValueError(f"weights are held in {' or '.join(map(str, BITS))} bits, not in {bits}")
        kind = BITS[bits]
        made = [
            _packed(*_nearest(part.float(), kind), kind) for part in weight.split(4096)
        ]  # on the way it is four times a part
        return cls(torch.cat(made), (len(weight), weight.shape[1]), kind)

    @classmethod
    def exactly(cls, weight: Tensor) -> "Blocks | None":
        """The fewest blocks that decode to just this weight [out, in] fp32, whoever chose their scales; None if none do.

        A weight that was decoded in fp32 from blocks of these kinds gets some back that stand for the same weight.
        """
        some = weight[:: max(1, len(weight) // _OUTS)]  # from all over it: the first rows may be all zeros
        for kind in sorted(KINDS, key=lambda each: KINDS[each].bits):
            if _exact(some, kind) is None:  # most weights are told apart here
                continue
            made = list[Tensor]()
            for part in weight.split(4096):
                found = _exact(part, kind)
                if found is None:
                    break
                made.append(_packed(*found, kind))
            else:
                return cls(torch.cat(made), (len(weight), weight.shape[1]), kind)
        return None

    @classmethod
    def of_data(cls, data: Tensor, shape: tuple[int, int]) -> "Blocks":
        """Blocks from their `data` and shape.

        Raises:
            ValueError: they do not fit each other.
        """
        places = -(-shape[0] // _OUTS), -(-shape[1] // _GROUP)
        for name, kind in KINDS.items():
            if data.dtype == torch.uint8 and data.shape == (*places, _OUTS * (_head(kind) + _GROUP * kind.bits // 8)):
                return cls(data, shape, name)
        raise ValueError(f"blocks of {tuple(data.shape)} {data.dtype} are none of a weight {shape}")

    @classmethod
    def stack(cls, parts: Sequence["Blocks"]) -> "Blocks":
        """The blocks of weights [out, in] one below the other, of the kind with most bits among theirs. Nothing is rounded.

        Raises:
            ValueError: some have shifts, and are not of one kind with the others.
        """
        kinds = {part.kind for part in parts}
        if len(kinds) > 1 and any(KINDS[each].shifted for each in kinds):
            raise ValueError(f"blocks of {' and '.join(sorted(kinds))} are not of one kind")
        kind, inputs = max(kinds, key=lambda each: KINDS[each].bits), parts[0].shape[1]
        shape = sum(len(part) for part in parts), inputs
        if len(kinds) == 1 and not any(len(part) % _OUTS for part in parts):
            return cls(torch.cat([part.data for part in parts]), shape, kind)
        heads, numbers = zip(*(part._parts() for part in parts), strict=True)
        return cls(_packed(torch.cat(heads), torch.cat(numbers), kind), shape, kind)

    def __len__(self) -> int:
        """Out-features."""
        return self.shape[0]

    @property
    def bits(self) -> int:
        """Of a number."""
        return KINDS[self.kind].bits

    def decoded(self, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        """The weight [out, in]: scale times number, and the shift, rounded once."""
        head, numbers = self._parts()
        wide = _decoded(head.float(), numbers.float().view(len(self), -1, _GROUP))
        return wide.to(dtype).reshape(len(self), -1)[:, : self.shape[1]].contiguous()

    def _parts(self) -> tuple[Tensor, Tensor]:
        """Scales and shifts [out, groups, 1 or 2] fp16 and numbers [out, 32 groups] int8, row by row."""
        kind, (outs, groups, _) = KINDS[self.kind], self.data.shape
        start = _head(kind) * _OUTS
        head = self.data[..., :start].contiguous().view(torch.float16).view(outs, groups, -1, _OUTS)
        held = self.data[..., start:].reshape(outs, groups, _OUTS, -1)
        if kind.bits == 4:
            numbers = torch.cat([held & 15, held >> 4], -1).to(torch.int8) - (0 if kind.shifted else 8)
        else:
            numbers = held.contiguous().view(torch.int8)
        rows = numbers.transpose(1, 2).reshape(outs * _OUTS, groups * _GROUP)
        return head.permute(0, 3, 1, 2).reshape(outs * _OUTS, groups, -1)[: len(self)], rows[: len(self)]


def _head(kind: _Kind) -> int:
    """Bytes of scale and shift."""
    return 4 if kind.shifted else 2


def _decoded(head: Tensor, numbers: Tensor) -> Tensor:
    """[..., 32] fp32 of scales and shifts [..., 1 or 2] and numbers [..., 32]; the products are exact."""
    products = head[..., :1] * numbers
    return products + head[..., 1:] if head.shape[-1] == 2 else products


def _groups(weight: Tensor) -> Tensor:
    """[out, groups, 32], filled up with zeros."""
    return pad(weight, (0, -weight.shape[1] % _GROUP)).view(len(weight), -1, _GROUP)


def _largest(groups: Tensor) -> Tensor:
    """The number of each group that is furthest from 0."""
    return groups.gather(-1, groups.abs().argmax(-1, keepdim=True))[..., 0]


def _nearest(weight: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """`Blocks._parts` of the symmetric blocks that are nearest to a weight fp32."""
    groups, (_, low, high, _) = _groups(weight), KINDS[kind]
    largest = _largest(groups)
    scale = (largest / low if low + high else largest.abs() / high).half()
    if not bool(scale.isfinite().all()):
        raise ValueError("a weight is not finite, or too large to be held in so few bits")
    return scale[..., None], _numbers(groups, scale[..., None].float()).clamp(low, high).to(torch.int8).flatten(1)


def _numbers(groups: Tensor, head: Tensor) -> Tensor:
    """The whole numbers nearest to (groups [..., 32] - shift) / scale; 0 where the scale is 0."""
    shifted = groups - head[..., 1:] if head.shape[-1] == 2 else groups
    return torch.where(head[..., :1] == 0, 0.0, shifted / head[..., :1]).round()


def _exact(weight: Tensor, kind: str) -> tuple[Tensor, Tensor] | None:
    """`Blocks._parts` of the blocks that stand for a weight fp32; None if there are none."""
    groups, (_, low, high, shifted) = _groups(weight), KINDS[kind]
    flat = groups.reshape(-1, _GROUP)
    head = torch.zeros(len(flat), 2 if shifted else 1)
    if shifted:
        head[:, 1] = flat.amin(1).half()
    span = flat.amax(1) - flat.amin(1) if shifted else _largest(flat)
    left = torch.arange(len(flat))
    for number in sorted(range(low, high + 1), key=abs, reverse=True):  # which number the span may be; 0 comes last
        head[left, 0] = (span[left] / number).half().float() if number else 0.0
        numbers = _numbers(flat[left], head[left]).clamp(low, high)
        left = left[~(_decoded(head[left], numbers) == flat[left]).all(1)]
        if not len(left):
            made = _numbers(flat, head).to(torch.int8)
            return head.half().view(*groups.shape[:-1], -1), made.view(len(weight), -1)
    return None


def _packed(head: Tensor, numbers: Tensor, kind: str) -> Tensor:
    """`Blocks.data` of `Blocks._parts`."""
    rows = -len(head) % _OUTS
    head, numbers = pad(head, (0, 0, 0, 0, 0, rows)), pad(numbers, (0, 0, 0, rows))
    outs, groups = len(head) // _OUTS, head.shape[1]
    held = numbers.view(outs, _OUTS, groups, _GROUP).transpose(1, 2)
    if KINDS[kind].bits == 4:
        whole = held.to(torch.int16) + (0 if KINDS[kind].shifted else 8)
        held = (whole[..., :16] | (whole[..., 16:] << 4)).to(torch.uint8)
    first = head.view(outs, _OUTS, groups, -1).permute(0, 2, 3, 1).contiguous().view(torch.uint8)
    return torch.cat([each.contiguous().view(torch.uint8).reshape(outs, groups, -1) for each in (first, held)], -1)
