"""Load time: fold everybody's coefficients into a base weight that is read once."""

import triton
import triton.language as tl

__all__ = ["merge_kernel"]


@triton.jit
def _add_deltas(
    acc, a_ptr, b_ptr, c_ptr, o, i, in_o, in_i, R, s_ar, s_bo, PRECISION: tl.constexpr, BLOCK_R: tl.constexpr
):
    """acc [o, i] += (B * c) A over all rank columns; a column of coefficient zero is not even read from A."""
    for first in range(0, R, BLOCK_R):
        r = first + tl.arange(0, BLOCK_R)
        in_r = r < R
        c = tl.load(c_ptr + r, mask=in_r, other=0.0)
        live = c != 0.0
        b = tl.load(b_ptr + o[:, None] * s_bo + r[None, :], mask=in_o[:, None] & in_r[None, :], other=0.0)
        a = tl.load(a_ptr + r[:, None].to(tl.int64) * s_ar + i[None, :], mask=live[:, None] & in_i[None, :], other=0.0)
        # `where`, not a mask per column: that would turn the 16-byte loads of B into 2-byte ones
        scaled = tl.where(live[None, :], b.to(tl.float32) * c[None, :], 0.0).to(a.dtype)
        acc = tl.dot(scaled, a, acc, input_precision=PRECISION)
    return acc


@triton.jit(do_not_specialize=["P"])
def merge_kernel(
    w_ptr,
    a_ptr,
    b_ptr,
    c_ptr,
    out_ptr,
    O,
    I,
    R,
    P,
    s_wo,
    s_ar,
    s_bo,
    s_cp,
    s_op,
    s_oo,
    ONE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_R: tl.constexpr,
    GROUP: tl.constexpr,
):
    """`out[p] = W + (B * c[p]) A` in one pass over W [O, I]: fp32 accumulation, one rounding. Inner strides are 1.

    Program: one tile of W, in groups of GROUP tile rows so that tiles of A and B are found in L2. For many people the tile
    stays in registers. With ONE, `out` may be W itself.
    """
    pid = tl.program_id(0)
    tiles_i = tl.cdiv(I, BLOCK_I)
    first_o = pid // (GROUP * tiles_i) * GROUP
    height = min(tl.cdiv(O, BLOCK_O) - first_o, GROUP)
    inside = pid % (GROUP * tiles_i)
    o = (first_o + inside % height) * BLOCK_O + tl.arange(0, BLOCK_O)
    i = inside // height * BLOCK_I + tl.arange(0, BLOCK_I)
    in_o = o < O
    in_i = i < I
    o = o.to(tl.int64)
    tile = in_o[:, None] & in_i[None, :]
    w = tl.load(w_ptr + o[:, None] * s_wo + i[None, :], mask=tile, other=0.0)
    out_ptrs = out_ptr + o[:, None] * s_oo + i[None, :]
    if ONE:
        acc = _add_deltas(w.to(tl.float32), a_ptr, b_ptr, c_ptr, o, i, in_o, in_i, R, s_ar, s_bo, PRECISION, BLOCK_R)
        tl.store(out_ptrs, acc.to(out_ptr.dtype.element_ty), mask=tile)
    else:
        for _ in range(0, P):
            acc = _add_deltas(
                w.to(tl.float32), a_ptr, b_ptr, c_ptr, o, i, in_o, in_i, R, s_ar, s_bo, PRECISION, BLOCK_R
            )
            tl.store(out_ptrs, acc.to(out_ptr.dtype.element_ty), mask=tile)
            c_ptr += s_cp
            out_ptrs += s_op
