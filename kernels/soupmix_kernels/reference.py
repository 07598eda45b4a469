"""The truth in plain torch, in float64: every kernel is judged against these functions. Slow, and meant to be read.

    y_b = x_b W^T + ((x_b A_cat^T) * c_b) B_cat^T

A coefficient of zero excludes its rank column (0 * inf would be NaN), so an adapter that was not granted cannot leak.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["coefficients", "merge", "soup_linear", "soup_linear_factor"]


def coefficients(weights: Tensor, lo: Tensor, hi: Tensor, columns: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """`c[p, j] = scale[j] * clamp(weights[p, k], lo[k], hi[k])` with k = columns[j]; see `soupmix_kernels.coefficients`.

    Returns:
        c [people, columns] fp32, and how many weights of each person were not finite, [people] int32.
    """
    finite = weights.isfinite()
    kept = finite & (lo <= hi)
    clamped = torch.where(kept, weights.double().nan_to_num().maximum(lo).minimum(hi), 0)
    held = pad(clamped, (0, 1))  # the last column is the adapter of nobody
    known = (columns >= 0) & (columns < weights.shape[1])
    c = (held[:, torch.where(known, columns, -1).long()] * scale.double()).float()
    return torch.where(c.isfinite(), c, 0), (~finite).sum(1, dtype=torch.int32)


def merge(W: Tensor, A: Tensor, B: Tensor, c: Tensor) -> Tensor:
    """`W + (B * c) A` for every person: c [people, R] -> [people, out, in], rounded once to the dtype of W."""
    merged = []
    for row in c:
        live = row != 0
        merged.append(W.double() + (B[:, live].double() * row[live]) @ A[live].double())
    return torch.stack(merged).to(W.dtype) if merged else W.new_empty(0, *W.shape)


def soup_linear(y: Tensor, x: Tensor, A: Tensor, B: Tensor, c: Tensor, rows: Tensor, widths: Sequence[int]) -> Tensor:
    """`y + ((x A_s^T) * c_s) B_s^T` for every row and slice s; rows of nobody are y. See `soupmix_kernels.soup_linear_`."""
    known = (rows >= 0) & (rows < c.shape[0])
    out, R = y.clone(), B.shape[1]
    for s, (part, weight) in enumerate(zip(out.split(list(widths), 1), B.split(list(widths)), strict=True)):
        mine = c[rows[known].long(), s * R : (s + 1) * R].double()
        h = torch.where(mine != 0, (x[known].double() @ A[s * R : (s + 1) * R].double().T) * mine, 0)
        part[known] = (part[known].double() + h @ weight.double().T).to(y.dtype)
    return out


def soup_linear_factor(
    y: Tensor, x: Tensor, A: Tensor, B: Tensor, c: Tensor, rows: Tensor, widths: Sequence[int], rank: int
) -> Tensor:
    """`y + (x A_bar^T) B_bar^T`, A_bar = sum_k c_k A_k and B_bar = sum_k c_k B_k over blocks of `rank` columns."""
    out, R = y.clone(), B.shape[1]
    for row in ((rows >= 0) & (rows < c.shape[0])).nonzero()[:, 0].tolist():
        parts = zip(out[row].split(list(widths)), A.split(R), B.split(list(widths)), c[rows[row]].split(R), strict=True)
        for part, a, b, mine in parts:
            A_bar, B_bar = a.new_zeros(rank, a.shape[1]).double(), b.new_zeros(b.shape[0], rank).double()
            for at in (slice(k, k + rank) for k in range(0, R - rank + 1, rank)):
                if mine[at.start] != 0:
                    A_bar += mine[at, None].double() * a[at].double()
                    B_bar += mine[at].double() * b[:, at].double()
            part.copy_(part.double() + B_bar @ (A_bar @ x[row].double()))
    return out
