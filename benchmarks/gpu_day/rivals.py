"""What a soup is timed against: a gather of an adapter per row, as Punica's BGMV does, and the base's own GEMM over [W | B].

gather_   y_t += (x_t A_p^T) B_p^T, p the person of row t, adapters of people in one table (arXiv 2310.18547)
wide      y = [x | c (x A^T)] [W | B]^T: one product over in + S R columns, where `tail` computes the last S R of the input
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

import soupmix_kernels.jit.launch  # noqa: F401  # teaches the interpreter bf16


@triton.jit
def gather_shrink_kernel(
    x_ptr,
    a_ptr,
    h_ptr,
    rows_ptr,
    I,
    s_xt,
    s_ap,
    s_ar,
    s_hs,
    s_ht,
    RANK: tl.constexpr,
    BLOCK_I: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """`h[s, t] = sum over the s-th share of i of A_p[:, i] x[t, i]`. Program (row, share)."""
    t, share = tl.program_id(0), tl.program_id(1)
    person = tl.load(rows_ptr + t).to(tl.int64)
    t = t.to(tl.int64)
    r = tl.arange(0, RANK)
    acc = tl.zeros((RANK,), tl.float32)
    for first in range(share * BLOCK_I, I, SPLIT * BLOCK_I):
        i = first + tl.arange(0, BLOCK_I)
        in_i = i < I
        x = tl.load(x_ptr + t * s_xt + i, mask=in_i, other=0.0).to(tl.float32)
        a = tl.load(a_ptr + person * s_ap + r[:, None] * s_ar + i[None, :], mask=in_i[None, :], other=0.0).to(
            tl.float32
        )
        acc += tl.sum(a * x[None, :], 1)
    tl.store(h_ptr + share * s_hs + t * s_ht + r, acc)


@triton.jit
def gather_expand_kernel(
    h_ptr,
    b_ptr,
    y_ptr,
    rows_ptr,
    O,
    s_hs,
    s_ht,
    s_bp,
    s_bo,
    s_yt,
    RANK: tl.constexpr,
    BLOCK_O: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """`y[t, o] += B_p[o] (sum over shares of h[s, t])`. Program (row, block of outputs)."""
    t = tl.program_id(0)
    person = tl.load(rows_ptr + t).to(tl.int64)
    t = t.to(tl.int64)
    o = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    in_o = o < O
    r = tl.arange(0, RANK)
    h = tl.zeros((RANK,), tl.float32)
    for s in tl.static_range(SPLIT):
        h += tl.load(h_ptr + s * s_hs + t * s_ht + r)
    b = tl.load(b_ptr + person * s_bp + o[:, None].to(tl.int64) * s_bo + r[None, :], mask=in_o[:, None], other=0.0).to(
        tl.float32
    )
    y_ptrs = y_ptr + t * s_yt + o
    y = tl.load(y_ptrs, mask=in_o, other=0.0).to(tl.float32) + tl.sum(b * h[None, :], 1)
    tl.store(y_ptrs, y.to(y_ptr.dtype.element_ty), mask=in_o)


def gather_(y: Tensor, x: Tensor, A: Tensor, B: Tensor, rows: Tensor, split: int = 16) -> Tensor:
    """y [rows, out], x [rows, in], A [people, rank, in], B [people, out, rank]; the rank is a power of two, everybody is somebody."""
    count, inputs = x.shape
    rank, out = A.shape[1], B.shape[1]
    h = torch.empty(split, count, rank, dtype=torch.float32, device=x.device)
    numbers = inputs, x.stride(0), A.stride(0), A.stride(1), h.stride(0), h.stride(1)
    gather_shrink_kernel[(count, split)](x, A, h, rows, *numbers, RANK=rank, BLOCK_I=256, SPLIT=split, num_warps=4)
    numbers = out, h.stride(0), h.stride(1), B.stride(0), B.stride(1), y.stride(0)
    grid = (count, triton.cdiv(out, 128))
    gather_expand_kernel[grid](h, B, y, rows, *numbers, RANK=rank, BLOCK_O=128, SPLIT=split, num_warps=4)
    return y


@triton.jit
def tail_kernel(
    x_ptr, a_ptr, z_ptr, rows_ptr, c_ptr, T, I, C, P, s_xt, s_ac, s_zt, s_cp,
    BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_I: tl.constexpr,
):  # fmt: skip
    """`z[t, j] = c[rows[t], j] (x A^T)[t, j]`, 0 for nobody. Program (block of columns, block of rows)."""
    j = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    t = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    in_t, in_c = t < T, j < C
    acc = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    row = t.to(tl.int64)[:, None]
    for first in range(0, I, BLOCK_I):
        i = first + tl.arange(0, BLOCK_I)
        in_i = i < I
        x = tl.load(x_ptr + row * s_xt + i[None, :], mask=in_t[:, None] & in_i[None, :], other=0.0)
        a = tl.load(a_ptr + j[:, None].to(tl.int64) * s_ac + i[None, :], mask=in_c[:, None] & in_i[None, :], other=0.0)
        acc = tl.dot(x, tl.trans(a), acc)
    person = tl.load(rows_ptr + t, mask=in_t, other=-1)
    known = (person >= 0) & (person < P)
    c = tl.load(
        c_ptr + person.to(tl.int64)[:, None] * s_cp + j[None, :], mask=known[:, None] & in_c[None, :], other=0.0
    )
    z = tl.where(c != 0.0, acc * c, 0.0)
    tl.store(z_ptr + row * s_zt + j[None, :], z.to(z_ptr.dtype.element_ty), mask=in_t[:, None] & in_c[None, :])


def wide_weight(W: Tensor, B: Tensor, widths: Sequence[int]) -> Tensor:
    """[W | B], B [out, R] of S slices block-diagonal: [out, in + S R]."""
    return torch.cat([W, torch.block_diag(*B.split(list(widths)))], 1)


def tail(wide: Tensor, inputs: int, A: Tensor, rows: Tensor, c: Tensor) -> Tensor:
    """Fill wide[:, inputs:] from x = wide[:, :inputs], A [S R, in] and the coefficients c [people, S R]."""
    count, columns = len(wide), len(A)
    x, z = wide[:, :inputs], wide[:, inputs:]
    numbers = count, inputs, columns, len(c), x.stride(0), A.stride(0), z.stride(0), c.stride(0)
    grid = (triton.cdiv(columns, 16), triton.cdiv(count, 16))
    tail_kernel[grid](x, A, z, rows, c, *numbers, BLOCK_T=16, BLOCK_C=16, BLOCK_I=256, num_warps=4, num_stages=3)
    return wide
