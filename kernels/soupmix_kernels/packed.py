"""Base projections on the CPU with weights in oneDNN's own blocked layout, where that is available and right.

The ops are private to torch (its compiler emits them), so each dtype is tried once against `torch.nn.functional.linear`.
"""

import functools
import os

import torch
from torch import Tensor
from torch.nn.functional import linear

__all__ = ["pack", "packed_linear", "prefers_fp32"]


def pack(weight: Tensor) -> Tensor | None:
    """A weight [out, in] reordered for `packed_linear`, or None where that does not work; the original can then be dropped."""
    if weight.device.type != "cpu" or os.environ.get("SOUPMIX_KERNELS") == "reference" or not _right(weight.dtype):
        return None
    return _reorder(weight)


def packed_linear(x: Tensor, packed: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x W^T + bias` for x [..., in] of the weight's dtype."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return y


def prefers_fp32(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether thin products are better done in fp32: on a CPU without tile units (AMX), bf16 and fp16 are slower there.

    Measured: [16, 576] x [576, 288] takes four times as long in bf16 (docs/log.md).
    """
    half = dtype in (torch.bfloat16, torch.float16)
    return half and device.type == "cpu" and not torch.cpu._is_amx_tile_supported()


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
