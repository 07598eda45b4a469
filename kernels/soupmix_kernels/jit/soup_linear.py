"""Request time: shrink every row to rank columns, scale them by its person's coefficients, expand.

Both methods share the shrink. `delta` expands every column; `factor` first mixes the blocks of a row, then expands them.
"""

import triton
import triton.language as tl

__all__ = ["expand_factor_kernel", "expand_kernel", "shrink_kernel", "slice_of"]


@triton.jit(do_not_specialize=["T"])
def shrink_kernel(
    x_ptr,
    a_ptr,
    h_ptr,
    T,
    I,
    C,
    s_xt,
    s_ac,
    s_hs,
    s_ht,
    PRECISION: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """`h[s, t, j] = sum over the s-th share of i of x[t, i] A[j, i]`, fp32. Inner strides are 1.

    Program (block of columns, block of rows, share). Shares are stored and summed by the reader, not added atomically:
    deterministic, and as the shares depend on I alone, a row's bits do not depend on the other rows.
    """
    j = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    t = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    share = tl.program_id(2)
    in_c = j < C
    in_t = t < T
    t = t.to(tl.int64)
    acc = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    for first in range(share * BLOCK_I, I, SPLIT * BLOCK_I):
        i = first + tl.arange(0, BLOCK_I)
        in_i = i < I
        x = tl.load(x_ptr + t[:, None] * s_xt + i[None, :], mask=in_t[:, None] & in_i[None, :], other=0.0)
        a = tl.load(a_ptr + j[:, None].to(tl.int64) * s_ac + i[None, :], mask=in_c[:, None] & in_i[None, :], other=0.0)
        acc = tl.dot(x, tl.trans(a), acc, input_precision=PRECISION)
    tl.store(h_ptr + share * s_hs + t[:, None] * s_ht + j[None, :], acc, mask=in_t[:, None] & in_c[None, :])


@triton.jit
def slice_of(tile, O0, O1, O2, BLOCK_O: tl.constexpr):
    """Which slice an output tile lies in: its number, first output row, width, and the tile's place inside it."""
    end0 = tl.cdiv(O0, BLOCK_O)
    end1 = end0 + tl.cdiv(O1, BLOCK_O)
    if tile < end0:
        number, start, width, place = 0, 0, O0, tile
    elif tile < end1:
        number, start, width, place = 1, O0, O1, tile - end0
    else:
        number, start, width, place = 2, O0 + O1, O2, tile - end1
    return number, start, width, place


@triton.jit(do_not_specialize=["T", "P"])
def expand_kernel(
    h_ptr,
    b_ptr,
    y_ptr,
    rows_ptr,
    c_ptr,
    T,
    O0,
    O1,
    O2,
    R,
    P,
    s_hs,
    s_ht,
    s_bo,
    s_yt,
    s_cp,
    PRECISION: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """`y[t, o] += sum_r B[o, r] c[rows[t], slice R + r] (sum_s h[s, t, slice R + r])`. Inner strides are 1.

    Program (output tile, block of rows); a tile lies in one slice. Rows of nobody (outside 0..P-1) are left as they are.
    """
    number, start, width, place = slice_of(tl.program_id(0), O0, O1, O2, BLOCK_O)
    o = place * BLOCK_O + tl.arange(0, BLOCK_O)
    in_o = o < width
    o = start + o
    t = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    person = tl.load(rows_ptr + t, mask=t < T, other=-1)
    known = (person >= 0) & (person < P)
    t = t.to(tl.int64)
    c_rows = c_ptr + person.to(tl.int64) * s_cp + number * R
    h_rows = h_ptr + t * s_ht + number * R
    acc = tl.zeros((BLOCK_T, BLOCK_O), tl.float32)
    for first in range(0, R, BLOCK_R):
        r = first + tl.arange(0, BLOCK_R)
        in_r = r < R
        mine = known[:, None] & in_r[None, :]
        c = tl.load(c_rows[:, None] + r[None, :], mask=mine, other=0.0)
        h = tl.zeros((BLOCK_T, BLOCK_R), tl.float32)
        for s in tl.static_range(SPLIT):
            h += tl.load(h_rows[:, None] + s * s_hs + r[None, :], mask=mine, other=0.0)
        b = tl.load(b_ptr + o[:, None].to(tl.int64) * s_bo + r[None, :], mask=in_o[:, None] & in_r[None, :], other=0.0)
        own = tl.where(c != 0.0, h * c, 0.0)
        acc = tl.dot(own.to(b.dtype), tl.trans(b), acc, input_precision=PRECISION)
    y_ptrs = y_ptr + t[:, None] * s_yt + o[None, :]
    out = known[:, None] & in_o[None, :]
    acc += tl.load(y_ptrs, mask=out, other=0.0).to(tl.float32)
    tl.store(y_ptrs, acc.to(y_ptr.dtype.element_ty), mask=out)


@triton.jit(do_not_specialize=["T", "P", "UNITS"])
def expand_factor_kernel(
    h_ptr,
    b_ptr,
    y_ptr,
    rows_ptr,
    c_ptr,
    T,
    O0,
    O1,
    O2,
    R,
    P,
    UNITS,
    s_hs,
    s_ht,
    s_bo,
    s_yt,
    s_cp,
    PRECISION: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_R: tl.constexpr,
    UNIT: tl.constexpr,
):
    """`u[t] = sum_k c_k h_k`, then `y[t, o] += sum_k (c_k u) B_k[o]`, over blocks of rank = UNITS * UNIT columns.

    Program and conventions as in `expand_kernel`. A share of BLOCK_R columns of every block is done before the next share.
    Columns after the last whole block are padding.
    """
    rank = UNITS * UNIT  # a product, so that the compiler knows how wide the loads of B may be
    number, start, width, place = slice_of(tl.program_id(0), O0, O1, O2, BLOCK_O)
    o = place * BLOCK_O + tl.arange(0, BLOCK_O)
    in_o = o < width
    o = start + o
    t = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    person = tl.load(rows_ptr + t, mask=t < T, other=-1)
    known = (person >= 0) & (person < P)
    t = t.to(tl.int64)
    c_row = c_ptr + person.to(tl.int64)[:, None] * s_cp + number * R
    h_row = h_ptr + t[:, None] * s_ht + number * R
    b_row = b_ptr + o[:, None].to(tl.int64) * s_bo
    acc = tl.zeros((BLOCK_T, BLOCK_O), tl.float32)
    for first in range(0, rank, BLOCK_R):
        r = first + tl.arange(0, BLOCK_R)[None, :]
        in_r = r < rank
        mine = known[:, None] & in_r
        u = tl.zeros((BLOCK_T, BLOCK_R), tl.float32)
        for k in range(0, R // rank):
            c = tl.load(c_row + k * rank + r, mask=mine, other=0.0)
            h = tl.zeros((BLOCK_T, BLOCK_R), tl.float32)
            for s in tl.static_range(SPLIT):
                h += tl.load(h_row + s * s_hs + k * rank + r, mask=mine, other=0.0)
            u += tl.where(c != 0.0, h * c, 0.0)
        for k in range(0, R // rank):
            c = tl.load(c_row + k * rank + r, mask=mine, other=0.0)
            b = tl.load(b_row + k * rank + r, mask=in_o[:, None] & in_r, other=0.0)
            own = tl.where(c != 0.0, u * c, 0.0)
            acc = tl.dot(own.to(b.dtype), tl.trans(b), acc, input_precision=PRECISION)
    y_ptrs = y_ptr + t[:, None] * s_yt + o[None, :]
    out = known[:, None] & in_o[None, :]
    acc += tl.load(y_ptrs, mask=out, other=0.0).to(tl.float32)
    tl.store(y_ptrs, acc.to(y_ptr.dtype.element_ty), mask=out)
