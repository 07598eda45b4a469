"""Base projections on the CPU with weights in oneDNN's own blocked layout, where that is available and right.

The ops are private to torch (its compiler emits them), so each dtype is tried once against `torch.nn.functional.linear`.
"""

import functools
import os

import torch
from torch import Tensor
from torch.nn.functional import linear

from soupmix_kernels.rows_apart import whole, widen

__all__ = ["pack", "packed_linear", "wide_linear", "wide_weight"]


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
    return linear(widen(x, wide.shape[1]), wide, bias)


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
