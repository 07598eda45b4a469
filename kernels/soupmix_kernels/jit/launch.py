"""From tensors to launches: grids, strides and tiles. On the CPU only Triton's interpreter can run them."""

import os
from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from soupmix_kernels.jit import tiles
from soupmix_kernels.jit.coefficients import coefficients_kernel
from soupmix_kernels.jit.merge import merge_kernel
from soupmix_kernels.jit.soup_linear import expand_kernel, shrink_kernel
from soupmix_kernels.jit.soup_linear_factor import expand_factor_kernel

__all__ = ["coefficients", "merge_into", "soup_into"]


if os.environ.get("TRITON_INTERPRET") == "1":
    from soupmix_kernels.jit.interpreter import teach_bf16

    teach_bf16()


def precision(hip: bool) -> str:
    """How fp32 products are taken: to full fp32 accuracy on matrix units, which CUDA spells tf32x3 and HIP ieee."""
    return "ieee" if hip else "tf32x3"


_PRECISION = precision(torch.version.hip is not None)


def coefficients(weights: Tensor, lo: Tensor, hi: Tensor, columns: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Launch `coefficients_kernel`; see `soupmix_kernels.coefficients`."""
    (people, adapters), count = weights.shape, columns.numel()
    c = torch.empty(people, count, dtype=torch.float32, device=weights.device)
    rejected = torch.empty(people, dtype=torch.int32, device=weights.device)
    if people and count:
        tile = tiles.coefficients_tile()
        coefficients_kernel[(people, triton.cdiv(count, tile["BLOCK_C"]))](
            *(_inner(weights), lo.contiguous(), hi.contiguous(), columns, scale, c, rejected, adapters, count),
            *(_inner(weights).stride(0), c.stride(0)),
            **tile.options(),
        )
    return c, rejected


def merge_into(out: Tensor, W: Tensor, A: Tensor, B: Tensor, c: Tensor) -> None:
    """Launch `merge_kernel`: out [people, out, in]; out[0] may be W itself when there is one person."""
    W, A, B, c = (_inner(tensor) for tensor in (W, A, B, c))
    if out.numel() == 0:
        return
    if out.stride(2) != 1:
        whole = torch.empty(out.shape, dtype=out.dtype, device=out.device)
        merge_into(whole, W, A, B, c)
        out.copy_(whole)
        return
    people, height, width = out.shape
    tile = tiles.merge_tile(W.dtype, people)
    merge_kernel[(triton.cdiv(height, tile["BLOCK_O"]) * triton.cdiv(width, tile["BLOCK_I"]),)](
        *(W, A, B, c, out, height, width, A.shape[0], people),
        *(W.stride(0), A.stride(0), B.stride(0), c.stride(0), out.stride(0), out.stride(1)),
        PRECISION=_PRECISION,
        **tile.options(),
    )


def soup_into(
    y: Tensor, x: Tensor, A: Tensor, B: Tensor, c: Tensor, rows: Tensor, widths: Sequence[int], rank: int
) -> None:
    """Launch shrink and expand: y [rows, out] += the soup of every row. `rank` 0 means `delta`, else `factor`."""
    if y.numel() == 0 or A.numel() == 0 or c.shape[0] == 0:
        return
    if y.stride(1) != 1:
        whole = y.contiguous()
        soup_into(whole, x, A, B, c, rows, widths, rank)
        y.copy_(whole)
        return
    x, A, B, c = (_inner(tensor) for tensor in (x, A, B, c))
    h = _shrink(x, A)
    count, R = x.shape[0], B.shape[1]
    padded = [*widths, 0, 0][:3]
    shape = (count, *padded, R, c.shape[0])
    strides = (h.stride(0), h.stride(1), B.stride(0), y.stride(0), c.stride(0))
    tile = tiles.expand_factor_tile(x.dtype, count, rank) if rank else tiles.expand_tile(x.dtype, count)
    grid = (sum(triton.cdiv(width, tile["BLOCK_O"]) for width in widths), triton.cdiv(count, tile["BLOCK_T"]))
    kernel, extra = (expand_factor_kernel, (rank // tile["UNIT"],)) if rank else (expand_kernel, ())
    kernel[grid](*(h, B, y, rows.contiguous(), c, *shape, *extra, *strides), PRECISION=_PRECISION, **tile.options())


def _shrink(x: Tensor, A: Tensor) -> Tensor:
    """x [rows, in] -> shares of x A^T, [shares, rows, columns] fp32."""
    tile = tiles.shrink_tile(x.dtype, x.shape[0])
    h = torch.empty(tile["SPLIT"], x.shape[0], A.shape[0], dtype=torch.float32, device=x.device)
    grid = (triton.cdiv(A.shape[0], tile["BLOCK_C"]), triton.cdiv(x.shape[0], tile["BLOCK_T"]), tile["SPLIT"])
    shrink_kernel[grid](
        *(x, A, h, *x.shape, A.shape[0], x.stride(0), A.stride(0), h.stride(0), h.stride(1)),
        PRECISION=_PRECISION,
        **tile.options(),
    )
    return h


def _inner(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
