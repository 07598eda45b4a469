"""What Python code calls: the ops with pools and coefficients instead of loose tensors."""

import torch
from torch import Tensor

from soupmix_kernels import cpu
from soupmix_kernels.checks import check_rows
from soupmix_kernels.pool import Coefficients, Pool
from soupmix_kernels.seats import Seats

__all__ = ["merge", "merge_", "soup_linear_", "soup_linear_factor_"]


def merge(W: Tensor, A: Tensor, B: Tensor, c: Coefficients, out: Tensor | None = None) -> Tensor:
    """`W + (B * c) A` for every person in one pass over W: accumulated in fp32, rounded once.

    Args:
        W: base weight [out, in], fp32, fp16 or bf16. A: [R, in] and B: [out, R] of the same dtype.
        c: coefficients of the people over the R columns. A column of coefficient zero is left out, whatever it holds.
        out: where to write [people, out, in]; allocated when None.

    Returns:
        The merged weights [people, out, in].

    Raises:
        TypeError: `c` is no `Coefficients`.
    """
    values = _values(c)
    if out is None:
        merged: Tensor = torch.ops.soupmix.merge(W, A, B, values)
        return merged
    torch.ops.soupmix.merge_out(out, W, A, B, values)
    return out


def merge_(W: Tensor, A: Tensor, B: Tensor, c: Coefficients) -> Tensor:
    """`merge` for one person, into W itself. Raises ValueError for more than one."""
    torch.ops.soupmix.merge_(W, A, B, _values(c))
    return W


def soup_linear_(y: Tensor, x: Tensor, pool: Pool, seats: Seats) -> Tensor:
    """`y += ((x A_s^T) * c_s) B_s^T` for every slice s: the soup of every row's own person on top of the base projection.

    Args:
        y: base projections of x [rows, sum of widths], one slice beside the other; modified. Rows may lie apart in memory.
        x: [rows, in]. y, x and the pool have one dtype: fp32, fp16 or bf16.
        seats: the person of every row, with coefficients over this pool's columns; `factor` needs those of "factor".

    Returns:
        y. A row depends on its own x, y and person only. Finite rows stay finite whatever other rows hold.

    Raises:
        TypeError, ValueError: dtypes or shapes do not fit.
    """
    if seats.own is None or torch.compiler.is_compiling():
        torch.ops.soupmix.soup_linear_(y, x, pool.A, pool.B, seats.values, seats.rows, pool.widths)
    else:
        _add(y, x, pool, seats, 0)
    return y


def soup_linear_factor_(y: Tensor, x: Tensor, pool: Pool, seats: Seats) -> Tensor:
    """`y += (x A_bar^T) B_bar^T` with A_bar = sum_k c_k A_k and B_bar = sum_k c_k B_k, per row (arXiv 2310.11564).

    Arguments and errors as in `soup_linear_`; also ValueError where the pool has no common rank.
    """
    pool.check_factor()
    if seats.own is None or torch.compiler.is_compiling():
        torch.ops.soupmix.soup_linear_factor_(y, x, pool.A, pool.B, seats.values, seats.rows, pool.widths, pool.rank)
    else:
        _add(y, x, pool, seats, pool.rank)
    return y


def _add(y: Tensor, x: Tensor, pool: Pool, seats: Seats, rank: int) -> None:
    """The CPU's own path, past the dispatcher, whose work would cost as much as a small layer's products."""
    check_rows(y, x, pool.A, pool.B, seats.values, seats.rows, pool.widths, rank)
    cpu.add_soup(y, x, pool.factors_for(x.shape[0]), seats.own, rank)


def _values(c: Coefficients) -> Tensor:
    if not isinstance(c, Coefficients):
        raise TypeError(
            f"the kernels take Coefficients, not {type(c).__name__}: weights become coefficients by clamping"
        )
    return c.values
