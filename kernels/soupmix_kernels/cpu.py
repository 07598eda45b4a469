"""The ops in torch: what runs on the CPU, and on a GPU without Triton. A few dense products, no loop over rows."""

import math
import threading
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from soupmix_kernels.rows_apart import inner_step, whole, widen

__all__ = [
    "CpuRows",
    "FactorViews",
    "add_soup",
    "coefficients",
    "factor_views",
    "factors_of",
    "gather",
    "is_identity",
    "merge_into",
    "soup_into",
]


class _Scratch(threading.local):
    """Buffers that are kept and grow, one per thread, purpose, dtype and device, so that a step allocates nothing."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}
        self._views: dict[tuple[str, int, int, torch.dtype, torch.device], Tensor] = {}

    def matrix(self, purpose: str, rows: int, columns: int, like: Tensor) -> Tensor:
        """A matrix [rows, columns] of any content, as `like` in dtype and device; valid until the next call for this purpose."""
        key = (purpose, rows, columns, like.dtype, like.device)
        if key not in self._views:
            if len(self._views) == 256:
                self._views.clear()
            self._views[key] = self._buffer(purpose, rows * columns, like)[: rows * columns].view(rows, columns)
        return self._views[key]

    def _buffer(self, purpose: str, size: int, like: Tensor) -> Tensor:
        key = (purpose, like.dtype, like.device)
        held = self._held.get(key)
        if held is None or held.numel() < size:
            self._views.clear()
            with torch.inference_mode(False):
                held = self._held[key] = torch.empty(size, dtype=like.dtype, device=like.device)
        return held


_scratch = _Scratch()


def coefficients(weights: Tensor, lo: Tensor, hi: Tensor, columns: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """See `soupmix_kernels.coefficients`; returns values [people, columns] fp32 and rejected [people] int32."""
    finite = weights.isfinite()
    clamped = torch.where(finite & (lo <= hi), weights.nan_to_num().maximum(lo).minimum(hi), 0)
    known = (columns >= 0) & (columns < weights.shape[1])
    taken = clamped.new_zeros(weights.shape[0], columns.numel())
    if weights.shape[1]:
        taken = clamped.index_select(1, torch.where(known, columns, 0))
    c = torch.where(known, taken, 0) * scale
    return torch.where(c.isfinite(), c, 0), (~finite).sum(1, dtype=torch.int32)


def merge_into(out: Tensor, W: Tensor, A: Tensor, B: Tensor, c: Tensor) -> None:
    """out [people, out, in] = W + (B * c) A: one product per person, accumulated in fp32 and rounded once by BLAS."""
    for row, mine in zip(c, out, strict=True):
        left, right = factors_of(A, B, row)
        torch.addmm(W, left, right, out=mine)


def factors_of(A: Tensor, B: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """B * c [out, columns] and A [columns, in] of one person, c [R] fp32: without columns of coefficient 0, filled with zeros."""
    live = c != 0
    if not bool(live.all()):
        A, B, c = A[live], B[:, live], c[live]
    inner = whole(B.shape[1], A.dtype, A.device)
    return widen((B * c).to(A.dtype), inner), widen(A.t(), inner).t()


def is_identity(matrix: Tensor) -> bool:
    """Whether a matrix is the identity, bit for bit but for the signs of zeros."""
    rows, columns = matrix.shape
    return rows == columns and torch.equal(matrix, torch.eye(rows, dtype=matrix.dtype, device=matrix.device))


class CpuRows(NamedTuple):
    """The coefficients of every row as the CPU's products read them, gathered once for all layers that share them.

    Attributes:
        c: coefficients of the person of every row [rows, columns] fp32. Rows of nobody have those of some person: what is
            computed for them is thrown away.
        bare: indices of the rows of nobody [bare] int64; None where there are none.
        excludes: whether any coefficient is zero, so that its column must be left out.
    """

    c: Tensor
    bare: Tensor | None
    excludes: bool


def gather(c: Tensor, rows: Tensor) -> CpuRows | None:
    """Coefficients c [people, columns] fp32 for `rows`, the person of every row [rows] int32; None where there are no people."""
    if not c.shape[0]:
        return None
    nobody = (rows < 0) | (rows >= c.shape[0])
    bare = nobody.nonzero()[:, 0] if bool(nobody.any()) else None
    mine = c.index_select(0, rows if bare is None else rows.clamp(0, c.shape[0] - 1))
    return CpuRows(mine, bare, not bool(mine.all()))


class FactorViews(NamedTuple):
    """A pool's factors as the CPU's products read them: views that are made once.

    Attributes:
        A: A^T [in, slices R]. B: B^T [R, width] of every slice. widths: out-features of every slice.
    """

    A: Tensor
    B: tuple[Tensor, ...]
    widths: tuple[int, ...]


def factor_views(A: Tensor, B: Tensor, widths: Sequence[int]) -> FactorViews:
    """Views of A [slices R, in] and B [sum of widths, R]."""
    return FactorViews(A.t(), tuple(part.t() for part in B.split(list(widths))), tuple(widths))


def soup_into(
    y: Tensor, x: Tensor, A: Tensor, B: Tensor, c: Tensor, rows: Tensor, widths: Sequence[int], rank: int
) -> None:
    """y [rows, out] += the soup of every row, multiplied in the dtype of x. `rank` 0 means `delta`, else `factor`."""
    step = inner_step(x.dtype, x.device)
    if x.shape[1] % step or B.shape[1] % step:
        x, A, B, c = _whole(x, A, B, c, len(widths), rank)
    add_soup(y, x, factor_views(A, B, widths), gather(c, rows), rank)


def _whole(x: Tensor, A: Tensor, B: Tensor, c: Tensor, slices: int, rank: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same soup with zeros up to inner dimensions that keep rows apart.

    Columns after the last whole block of `rank` go first: zeros behind them would make them a block.
    """
    columns = B.shape[1] // rank * rank if rank else B.shape[1]
    inputs, R = (whole(size, x.dtype, x.device) for size in (x.shape[1], columns))
    apart = widen(A, inputs).unflatten(0, (slices, B.shape[1]))[:, :columns]
    A = widen(apart.transpose(1, 2), R).transpose(1, 2).flatten(0, 1)
    c = widen(c.unflatten(1, (slices, B.shape[1]))[..., :columns], R).flatten(1)
    return widen(x, inputs), A, widen(B[:, :columns], R), c


def add_soup(y: Tensor, x: Tensor, held: FactorViews, rows: CpuRows | None, rank: int) -> None:
    """`soup_into` for coefficients that are gathered already. Factors may be fp32 where x and y are not: rounded once, into y."""
    if rows is None or y.numel() == 0 or held.A.numel() == 0:
        return
    bare = rows.bare
    kept = None if bare is None else y.index_select(0, bare)
    if x.dtype != held.A.dtype:
        x = _scratch.matrix("x", x.shape[0], x.shape[1], held.A).copy_(x)
    h = torch.mm(x, held.A, out=_scratch.matrix("h", x.shape[0], held.A.shape[1], x))
    if rank:
        _mix(h, rows.c, h.shape[1] // len(held.B), rank)
    else:
        _scale(h, rows)
    _expand(y, h, held)
    if bare is not None and kept is not None:  # adding a zero would turn -0 into 0
        y.index_copy_(0, bare, kept)


def _finite(h: Tensor) -> bool:
    """Whether the sum of h is finite, and so all of h. A sum that overflows is a false alarm, which costs the slower path."""
    return math.isfinite(h.sum(dtype=torch.float32).item())


def _scale(h: Tensor, rows: CpuRows) -> None:
    """h *= c, in place, in fp32; a coefficient of zero excludes."""
    if rows.excludes and not _finite(h):
        h.copy_(torch.where(rows.c != 0, h * rows.c, 0))
    elif h.dtype == torch.float32:
        torch.mul(h, rows.c, out=h)
    else:
        h.copy_(h.float().mul_(rows.c))  # a third faster than a product of two dtypes


def _mix(h: Tensor, mine: Tensor, R: int, rank: int) -> None:
    """h_k <- c_k sum_l c_l h_l over the blocks of `rank` columns of every slice, in place; padding becomes zero."""
    end = R // rank * rank
    blocks, own = (t.view(h.shape[0], -1, R)[..., :end].unflatten(-1, (-1, rank)) for t in (h, mine))
    shared = torch.where(own != 0, blocks * own, 0).sum(-2, keepdim=True)
    blocks.copy_(torch.where(own != 0, shared * own, 0))
    h.view(h.shape[0], -1, R)[..., end:] = 0


def _expand(y: Tensor, h: Tensor, held: FactorViews) -> None:
    """y += h_s B_s^T for every slice s."""
    total = y if y.dtype == h.dtype else _scratch.matrix("y", y.shape[0], y.shape[1], h).copy_(y)
    if len(held.B) == 1:
        total.addmm_(h, held.B[0])
    else:
        parts = zip(total.split_with_sizes(held.widths, 1), h.chunk(len(held.B), 1), held.B, strict=True)
        for part, mine, B in parts:
            part.addmm_(mine, B)
    if total is not y:
        y.copy_(total)
