"""Weights in 8 or 4 bits for the compiled step: blocks of 16 outputs by 32 inputs, a scale for every 32 inputs of an output.

The scales and numbers of 8 bits are those of GGUF's Q8_0, those of 4 bits those of its Q4_0, in another order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["BITS", "Blocks"]

BITS = (8, 4)
"""What weights may be held in; their places, from 1, are known to the library."""

_OUTS, _GROUP = 16, 32


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """A weight [out, in] in blocks.

    Attributes:
        data: as the library reads it, uint8 [out / 16, in / 32, bytes of a block], filled up with zeros.
        shape: out-features and in-features. bits: one of `BITS`.
    """

    data: Tensor
    shape: tuple[int, int]
    bits: int

    @classmethod
    def of(cls, weight: Tensor, bits: int) -> "Blocks":
        """The nearest blocks to a weight [out, in], symmetric: its largest number of 32 becomes 127 (8 bits) or -8 (4 bits).

        Raises:
            ValueError: a number is not finite, or too large for a scale in fp16.
        """
        if bits not in BITS:
            raise ValueError(f"weights are held in {BITS[0]} or {BITS[1]} bits, not in {bits}")
        (out, inputs), made = weight.shape, list[Tensor]()
        for part in weight.split(4096):  # what is computed on the way is four times a part
            made.append(_blocks(part.float(), bits))
        data = torch.cat(made)
        return cls(data, (out, inputs), bits)

    @classmethod
    def exactly(cls, weight: Tensor) -> "Blocks | None":
        """The fewest blocks that decode to just this weight [out, in] fp32, whoever chose their scales; None if none do.

        A weight that was decoded from Q4_0 or Q8_0 in fp32 gets scales and numbers back that stand for the same weight.
        """
        for bits in sorted(BITS):
            if all(
                _exact(part, bits) is not None for part in weight[:_OUTS].split(1)
            ):  # most weights are told apart here
                parts = [_exact(part, bits) for part in weight.split(4096)]
                if all(part is not None for part in parts):
                    made = [_packed(*part, bits) for part in parts if part is not None]
                    return cls(torch.cat(made), (len(weight), weight.shape[1]), bits)
        return None

    @classmethod
    def of_data(cls, data: Tensor, shape: tuple[int, int]) -> "Blocks":
        """Blocks from their `data` and shape.

        Raises:
            ValueError: they do not fit each other.
        """
        places = -(-shape[0] // _OUTS), -(-shape[1] // _GROUP)
        for bits in BITS:
            if data.shape == (*places, 2 * _OUTS + _OUTS * _GROUP * bits // 8) and data.dtype == torch.uint8:
                return cls(data, shape, bits)
        raise ValueError(f"blocks of {tuple(data.shape)} {data.dtype} are none of a weight {shape}")

    @classmethod
    def stack(cls, parts: Sequence["Blocks"]) -> "Blocks":
        """The blocks of weights [out, in] one below the other; all of 8 bits where one of them is. Nothing is rounded."""
        bits, inputs = max(part.bits for part in parts), parts[0].shape[1]
        shape = sum(len(part) for part in parts), inputs
        if all(part.bits == bits and not len(part) % _OUTS for part in parts):
            return cls(torch.cat([part.data for part in parts]), shape, bits)
        scales, numbers = zip(*(part._parts() for part in parts), strict=True)
        return cls(_packed(torch.cat(scales), torch.cat(numbers), bits), shape, bits)

    def __len__(self) -> int:
        """Out-features."""
        return self.shape[0]

    def decoded(self, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        """The weight [out, in]: scale times number, rounded once."""
        scale, numbers = self._parts()
        wide = numbers.float().view(len(self), -1, _GROUP) * scale.float()[..., None]
        return wide.to(dtype).view(len(self), -1)[:, : self.shape[1]].contiguous()

    def _parts(self) -> tuple[Tensor, Tensor]:
        """Scales [out, groups] fp16 and numbers [out, 32 groups] int8, row by row."""
        outs, groups, _ = self.data.shape
        scale = self.data[..., : 2 * _OUTS].contiguous().view(torch.float16)
        held = self.data[..., 2 * _OUTS :].reshape(outs, groups, _OUTS, -1)
        if self.bits == 4:
            numbers = torch.cat([held & 15, held >> 4], -1).to(torch.int8) - 8
        else:
            numbers = held.contiguous().view(torch.int8)
        rows = numbers.transpose(1, 2).reshape(outs * _OUTS, groups * _GROUP)
        return scale.transpose(1, 2).reshape(-1, groups)[: len(self)], rows[: len(self)]


def _blocks(weight: Tensor, bits: int) -> Tensor:
    groups = _groups(weight)
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))[..., 0]
    scale = (largest / -8 if bits == 4 else largest.abs() / 127).half()
    if not bool(scale.isfinite().all()):
        raise ValueError("a weight is not finite, or too large to be held in so few bits")
    wide = scale.float()[..., None]
    numbers = torch.where(wide == 0, 0.0, groups / wide).round()
    low, high = (-8, 7) if bits == 4 else (-127, 127)
    return _packed(scale, numbers.clamp(low, high).to(torch.int8).flatten(1), bits)


def _groups(weight: Tensor) -> Tensor:
    """[out, groups, 32], filled up with zeros."""
    return pad(weight, (0, -weight.shape[1] % _GROUP)).view(len(weight), -1, _GROUP)


def _exact(weight: Tensor, bits: int) -> tuple[Tensor, Tensor] | None:
    """Scales and numbers whose products are the weight fp32; None if there are none."""
    groups = _groups(weight)
    flat = groups.reshape(-1, _GROUP)
    largest = flat.gather(1, flat.abs().argmax(1, keepdim=True))[:, 0]
    scale, left = torch.zeros_like(largest), largest.nonzero()[:, 0]
    low, high = (-8, 7) if bits == 4 else (-127, 127)
    for number in sorted((each for each in range(low, high + 1) if each), key=abs, reverse=True):
        tried = (largest[left] / number).half().float()
        rest = flat[left]
        whole = (rest / tried[:, None]).round().clamp(low, high)
        fits = (whole * tried[:, None] == rest).all(1) & tried.isfinite()
        scale[left[fits]] = tried[fits]
        left = left[~fits]
        if not len(left):
            wide = scale.view(*groups.shape[:-1], 1)
            numbers = torch.where(wide == 0, 0.0, groups / wide).round()
            return wide[..., 0].half(), numbers.to(torch.int8).flatten(1)
    return None


def _packed(scale: Tensor, numbers: Tensor, bits: int) -> Tensor:
    """`Blocks.data` of scales [out, groups] fp16 and numbers [out, 32 groups] int8."""
    more = (0, 0, 0, -len(scale) % _OUTS)
    scale, numbers = pad(scale, more).view(-1, _OUTS, scale.shape[1]), pad(numbers, more)
    held = numbers.view(len(scale), _OUTS, -1, _GROUP).transpose(1, 2)
    if bits == 4:
        whole = held.to(torch.int16) + 8
        packed = (whole[..., :16] | (whole[..., 16:] << 4)).to(torch.uint8)
    else:
        packed = held.contiguous().view(torch.uint8)
    head = scale.transpose(1, 2).contiguous().view(torch.uint8).reshape(*packed.shape[:2], -1)
    return torch.cat([head, packed.reshape(*packed.shape[:2], -1)], -1).contiguous()
