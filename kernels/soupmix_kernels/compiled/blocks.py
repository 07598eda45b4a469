"""Weights in 8 or 4 bits for the compiled step: blocks of 16 outputs by 32 inputs, a scale for every 32 inputs of an output.

The scales and numbers of 8 bits are those of GGUF's Q8_0, those of 4 bits those of its Q4_0, in another order: a weight that
comes from such a file gets its own scales and numbers back, if the file was made as llama.cpp makes it.
"""

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

    def __len__(self) -> int:
        """Out-features."""
        return self.shape[0]

    def decoded(self) -> Tensor:
        """The weight [out, in] bf16: scale times number, rounded once."""
        outs, groups, _ = self.data.shape
        scale = self.data[..., : 2 * _OUTS].contiguous().view(torch.float16).float()
        held = self.data[..., 2 * _OUTS :].reshape(outs, groups, _OUTS, -1)
        if self.bits == 4:
            numbers = torch.cat([held & 15, held >> 4], -1).to(torch.int8) - 8
        else:
            numbers = held.contiguous().view(torch.int8)
        weight = (numbers.float() * scale[..., None]).bfloat16()
        return (
            weight.transpose(1, 2).reshape(outs * _OUTS, groups * _GROUP)[: self.shape[0], : self.shape[1]].contiguous()
        )


def _blocks(weight: Tensor, bits: int) -> Tensor:
    filled = pad(weight, (0, -weight.shape[1] % _GROUP, 0, -len(weight) % _OUTS))
    groups = filled.view(-1, _OUTS, filled.shape[1] // _GROUP, _GROUP).transpose(1, 2)
    most = groups.abs().amax(-1)
    if bits == 4:
        place = groups.abs().argmax(-1, keepdim=True)
        scale = (groups.gather(-1, place)[..., 0] / -8).half()
    else:
        scale = (most / 127).half()
    if not bool(scale.isfinite().all()):
        raise ValueError("a weight is not finite, or too large to be held in so few bits")
    wide = scale.float()[..., None]
    numbers = torch.where(wide == 0, 0.0, groups / wide).round()
    if bits == 4:
        whole = numbers.clamp(-8, 7).to(torch.int16) + 8
        packed = (whole[..., :16] | (whole[..., 16:] << 4)).to(torch.uint8)
    else:
        packed = numbers.clamp(-127, 127).to(torch.int8).view(torch.uint8)
    head = scale.contiguous().view(torch.uint8).reshape(*scale.shape[:2], -1)
    return torch.cat([head, packed.reshape(*packed.shape[:2], -1)], -1).contiguous()
