"""Request time, method `factor`: the same shrink; the expansion mixes the blocks of a row before it spreads them."""

import triton
import triton.language as tl

from soupmix_kernels.jit.soup_linear import slice_of

__all__ = ["expand_factor_kernel"]


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
