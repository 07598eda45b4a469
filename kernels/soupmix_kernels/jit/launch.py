"""From tensors to launches: grids, strides and tiles. On the CPU only Triton's interpreter can run them.

Triton compiles a kernel anew for whatever it finds of its arguments: which addresses and strides are multiples of 16, which
numbers are 1. Two of these variants are launched, and both are in the table of `aot`: *aligned*, all of them are multiples,
and *loose*, nothing is known.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain
from typing import Any

import torch
import triton
from torch import Tensor

from soupmix_kernels.jit import tiles
from soupmix_kernels.jit.coefficients import coefficients_kernel
from soupmix_kernels.jit.merge import merge_kernel
from soupmix_kernels.jit.soup_linear import expand_factor_kernel, expand_kernel, shrink_kernel
from soupmix_kernels.jit.tiles import Tile

__all__ = ["coefficients", "expand_into", "merge_into", "shrink", "soup_into"]

_ALIGNMENT = 16  # bytes of an address, and whatever a stride or a size counts
_CALLS = frozenset({"K", "P", "T", "UNITS", "s_wp"})  # numbers that change from call to call: no variant knows them


if os.environ.get("TRITON_INTERPRET") == "1":
    from soupmix_kernels.jit.interpreter import teach_bf16

    teach_bf16()


def precision(hip: bool) -> str:
    """How fp32 products are taken: to full fp32 accuracy on matrix units, which CUDA spells tf32x3 and HIP ieee."""
    return "ieee" if hip else "tf32x3"


_PRECISION = precision(torch.version.hip is not None)


_LOOSE = {
    kernel.fn.__name__: triton.jit(
        kernel.fn, do_not_specialize=kernel.arg_names, do_not_specialize_on_alignment=kernel.arg_names
    )
    for kernel in (coefficients_kernel, expand_factor_kernel, expand_kernel, merge_kernel, shrink_kernel)
}


def coefficients(weights: Tensor, lo: Tensor, hi: Tensor, columns: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Launch `coefficients_kernel`; see `soupmix_kernels.coefficients`."""
    (people, adapters), count = weights.shape, columns.numel()
    c = torch.empty(people, count, dtype=torch.float32, device=weights.device)
    rejected = torch.empty(people, dtype=torch.int32, device=weights.device)
    if people:
        weights = _inner(weights)
        _launch(
            coefficients_kernel,
            lambda tile: (people, max(triton.cdiv(count, tile["BLOCK_C"]), 1)),  # one counts, even without columns
            (weights, *(each.contiguous() for each in (lo, hi, columns, scale)), c, rejected),
            (adapters, count, weights.stride(0), c.stride(0)),
            tiles.coefficients_tile,
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
    _launch(
        merge_kernel,
        lambda tile: (triton.cdiv(height, tile["BLOCK_O"]) * triton.cdiv(width, tile["BLOCK_I"]),),
        (W, A, B, c, out),
        (*(height, width, A.shape[0], people), *(each.stride(0) for each in (W, A, B, c, out)), out.stride(1)),
        partial(tiles.merge_tile, W.dtype, people),
        PRECISION=_PRECISION,
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
    expand_into(y, shrink(x, A), B, c, rows, widths, rank)


def expand_into(y: Tensor, h: Tensor, B: Tensor, c: Tensor, rows: Tensor, widths: Sequence[int], rank: int = 0) -> None:
    """Launch the second half of `soup_into`, with h as `shrink` made it. Inner strides are 1, and there is something to do."""
    count, R = y.shape[0], B.shape[1]
    given = (B.dtype, count, rank) if rank else (B.dtype, count)
    choose = partial(tiles.expand_factor_tile if rank else tiles.expand_tile, *given)
    extra = (rank // choose()["UNIT"],) if rank else ()
    _launch(
        expand_factor_kernel if rank else expand_kernel,
        lambda tile: (sum(triton.cdiv(w, tile["BLOCK_O"]) for w in widths), triton.cdiv(count, tile["BLOCK_T"])),
        (h, B, y, _packed(rows), c),
        (*(count, *[*widths, 0, 0][:3], R, c.shape[0], *extra, *h.stride()[:2]), *(t.stride(0) for t in (B, y, c))),
        choose,
        PRECISION=_PRECISION,
    )


def shrink(x: Tensor, A: Tensor) -> Tensor:
    """Launch the first half of `soup_into`: x [rows, in] -> shares of x A^T, [shares, rows, columns] fp32."""
    choose = partial(tiles.shrink_tile, x.dtype, x.shape[0])
    h = torch.empty(choose()["SPLIT"], x.shape[0], A.shape[0], dtype=torch.float32, device=x.device)
    _launch(
        shrink_kernel,
        lambda tile: (triton.cdiv(A.shape[0], tile["BLOCK_C"]), triton.cdiv(len(x), tile["BLOCK_T"]), tile["SPLIT"]),
        (x, A, h),
        (*x.shape, A.shape[0], x.stride(0), A.stride(0), *h.stride()[:2]),
        choose,
        PRECISION=_PRECISION,
    )
    return h


def _launch(
    kernel: Any,
    grid: Callable[[Tile], tuple[int, ...]],
    tensors: Sequence[Tensor],
    numbers: Sequence[int],
    choose: Callable[[bool], Tile],
    **constants: str,
) -> None:
    """One launch of the variant that these arguments allow, on the device where the tensors lie."""
    named = zip(kernel.arg_names[len(tensors) :], numbers, strict=False)
    known = chain((tensor.data_ptr() for tensor in tensors), (number for name, number in named if name not in _CALLS))
    aligned = not any(each % _ALIGNMENT for each in known)
    variant, tile = kernel if aligned else _LOOSE[kernel.fn.__name__], choose(aligned)
    with _on(tensors[0].device):
        variant[grid(tile)](*tensors, *numbers, **constants, **tile.options())


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device, wherever its arguments lie."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _inner(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _packed(rows: Tensor) -> Tensor:
    """The rows, copied if need be, so that they are aligned: a small copy for the faster variant of the kernel."""
    return rows.contiguous() if rows.data_ptr() % _ALIGNMENT == 0 else rows.clone(memory_format=torch.contiguous_format)
