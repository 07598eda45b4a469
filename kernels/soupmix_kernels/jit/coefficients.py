"""The only reader of raw weights: [people, adapters] -> one coefficient per person and rank column."""

import triton
import triton.language as tl

__all__ = ["coefficients_kernel"]


@triton.jit(do_not_specialize=["K", "s_wp"])
def coefficients_kernel(
    w_ptr,
    lo_ptr,
    hi_ptr,
    columns_ptr,
    scale_ptr,
    c_ptr,
    rejected_ptr,
    K,
    C,
    s_wp,
    s_cp,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """`c[p, j] = scale[j] * clamp(w[p, k], lo[k], hi[k])`, k = columns[j]; rejected[p] = weights that are not finite.

    Program (p, block of columns); the first block of a person counts.
    """
    p = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    j = block * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = j < C
    k = tl.load(columns_ptr + j, mask=inside, other=-1)
    known = (k >= 0) & (k < K)
    raw = tl.load(w_ptr + p * s_wp + k, mask=known, other=0.0)
    lo = tl.load(lo_ptr + k, mask=known, other=0.0)
    hi = tl.load(hi_ptr + k, mask=known, other=0.0)
    scale = tl.load(scale_ptr + j, mask=inside, other=0.0)
    # what minimum and maximum make of NaN differs by device and version, so it is asked for first
    allowed = known & (tl.abs(raw) < float("inf")) & (lo <= hi)
    c = tl.where(allowed, tl.minimum(tl.maximum(raw, lo), hi), 0.0) * scale
    tl.store(c_ptr + p * s_cp + j, tl.where(tl.abs(c) < float("inf"), c, 0.0), mask=inside)
    if block == 0:
        bad = tl.zeros((BLOCK_K,), tl.int32)
        for first in range(0, K, BLOCK_K):
            adapter = first + tl.arange(0, BLOCK_K)
            every = tl.load(w_ptr + p * s_wp + adapter, mask=adapter < K, other=0.0)
            bad += tl.where(tl.abs(every) < float("inf"), 0, 1)
        tl.store(rejected_ptr + p, tl.sum(bad))
