"""Base projections on the CPU: by weights in oneDNN's own blocked layout, where that is available and right, or as they are.

The ops are private to torch (its compiler emits them), so each dtype is tried once against `torch.nn.functional.linear`.

Where oneDNN has no products of half precision (processors with AVX2 alone; in fp16 many more), torch multiplies number by number,
six to eight times slower than in fp32 from eight rows on. There weights are widened to fp32 block by block, and the sums are
rounded once: for one row too, which gains nothing by it, so that alone it is summed as in company.
"""

import functools
import os
from itertools import repeat

import torch
from torch import Tensor
from torch.nn.functional import linear

from soupmix_kernels.rows_apart import whole, widen

__all__ = ["pack", "packed_linear", "wide_linear", "wide_weight"]

_HALF = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}  # torch's questions
_BLOCK = 1 << 20  # numbers of a weight that are widened at once: 4 MB


def pack(weight: Tensor) -> Tensor | None:
    """A copy of a weight [out, in] in oneDNN's layout, for `packed_linear`.

    Returns:
        The copy, with which the original is not needed any more; None where this processor or torch cannot do it right.
    """
    if weight.device.type != "cpu" or os.environ.get("SOUPMIX_KERNELS") == "reference" or not _right(weight.dtype):
        return None
    return _reorder(wide_weight(weight))


def packed_linear(x: Tensor, packed: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x W^T + bias` by a weight from `pack`: x [..., in] -> [..., out], in the dtype of the weight. Rows are kept apart."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(widen(x, packed.shape[1]), packed, bias, "none", [], "")
    return y


def wide_weight(weight: Tensor) -> Tensor:
    """A weight [out, in] for `wide_linear`: itself, or a copy with more columns, of zeros, where that keeps rows apart."""
    return widen(weight, whole(weight.shape[1], weight.dtype, weight.device))


def wide_linear(x: Tensor, wide: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x W^T + bias` by a weight from `wide_weight`: x [..., in] -> [..., out], in its dtype. Rows are kept apart."""
    x = widen(x, wide.shape[1])
    return linear(x, wide, bias) if has_products(x.dtype, x.device) else _by_fp32(x, wide, bias)


def has_products(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether products of this dtype are as fast there as they can be; False: those of fp32 are faster."""
    return device.type != "cpu" or dtype not in _HALF or _has(_HALF[dtype])


@functools.cache
def _has(question: str) -> bool:
    try:
        return bool(getattr(torch.ops.mkldnn, question)())
    except AttributeError:  # a torch without oneDNN
        return False


def _by_fp32(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`linear` of half precision by products in fp32, every sum rounded once."""
    y, wide = x.new_empty(*x.shape[:-1], len(weight)), x.float()
    size = max(1, _BLOCK // max(1, weight.shape[1]))
    biases = repeat(None) if bias is None else bias.split(size)
    for part, block, shift in zip(y.split(size, -1), weight.split(size), biases, strict=False):
        part.copy_(linear(wide, block.float(), None if shift is None else shift.float()))
    return y


def _reorder(weight: Tensor) -> Tensor:
    with torch.inference_mode():
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
    return packed


@functools.cache
def _right(dtype: torch.dtype) -> bool:
    draw = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=draw).to(dtype) for shape in ((5, 72), (40, 72), (40,)))
    try:
        with torch.inference_mode():
            y = packed_linear(x, _reorder(weight), bias)
    except (AttributeError, RuntimeError):  # an op that is not there, a dtype or a processor that it does not know
        return False
    return torch.allclose(
        y, linear(x, weight, bias), rtol=2 * torch.finfo(dtype).eps, atol=0.05 if dtype != torch.float32 else 1e-5
    )
