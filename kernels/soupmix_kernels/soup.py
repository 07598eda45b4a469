"""What Python code calls: the ops with pools and coefficients instead of loose tensors."""

from dataclasses import InitVar, dataclass, field
from typing import final

import torch
from torch import Tensor

from soupmix_kernels import cpu
from soupmix_kernels.checks import check_merge, check_no_gradient, check_rows, check_update
from soupmix_kernels.ops import backend_for
from soupmix_kernels.pool import Coefficients, Pool
from soupmix_kernels.sealing import sealed

__all__ = ["RowCoefficients", "Update", "merge", "merge_", "merge_rows_", "soup_linear_", "soup_linear_factor_"]


@sealed
@final
@dataclass(frozen=True, slots=True, eq=False)
class RowCoefficients:
    """The coefficients of every row of a step, made once for all layers whose pools have the same columns.

    On the CPU they are gathered row by row here: a later change of the tensors is not seen. On a GPU nothing is read before
    the kernels run.

    Args:
        coefficients: [people, columns]. rows: the person of every row [rows] int32. A row outside of 0..people-1, -1 by
            convention, is nobody's: it stays the bare base, bit for bit.

    Attributes:
        values: the coefficients as a tensor [people, columns] fp32.
        gathered: those of every row as the CPU reads them, or None where another backend computes.

    Raises:
        TypeError: `coefficients` is no `Coefficients`, or the rows are not int32.
        ValueError: the rows are not one-dimensional.
    """

    coefficients: InitVar[Coefficients]
    rows: Tensor
    values: Tensor = field(init=False)
    gathered: cpu.CpuRows | None = field(init=False)

    def __post_init__(self, coefficients: Coefficients) -> None:
        if type(coefficients) is not Coefficients:
            raise TypeError(
                f"row coefficients take Coefficients, not {type(coefficients).__name__}: weights become coefficients by "
                "clamping"
            )
        if self.rows.dtype != torch.int32:
            raise TypeError(f"row coefficients need rows in int32; got rows {self.rows.dtype}")
        if self.rows.dim() != 1:
            raise ValueError(f"row coefficients need the person of every row [rows]; got rows {list(self.rows.shape)}")
        values = coefficients.values
        object.__setattr__(self, "values", values)
        here = values.device.type == "cpu" and not torch.compiler.is_compiling()
        gathered = cpu.gather(values, self.rows) if here and backend_for(values.device) == "torch" else None
        object.__setattr__(self, "gathered", gathered)

    def __repr__(self) -> str:
        """Such as "RowCoefficients(4 rows of 3 people, 32 columns, on cpu)"."""
        people, columns = self.values.shape
        return f"RowCoefficients({len(self.rows)} rows of {people} people, {columns} columns, on {self.values.device})"


@sealed
@final
@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """`(B * c) A` of one person, for `merge_rows_`: what does not depend on the rows is done once.

    Args:
        A: [R, in] and B: [out, R] of one dtype: fp32, fp16 or bf16. They must not change as long as this is used.
        coefficients: of one person over the R columns. A column of coefficient zero is left out, whatever it holds.

    Attributes:
        values: the coefficients as a tensor [1, R] fp32.
        factors: B * c and A as the CPU multiplies them, or None where another backend computes.
        is_left: whether that A is the identity, as of a weight that changed as a whole: then B * c is the product, bit for bit.

    Raises:
        TypeError: `coefficients` is no `Coefficients`, or a dtype is another. ValueError: shapes do not fit; several people.
        RuntimeError: a gradient would have to pass through.
    """

    A: Tensor
    B: Tensor
    coefficients: InitVar[Coefficients]
    values: Tensor = field(init=False)
    factors: tuple[Tensor, Tensor] | None = field(init=False)
    is_left: bool = field(init=False)

    def __post_init__(self, coefficients: Coefficients) -> None:
        values = _values(coefficients)
        check_update(self.A, self.B, values)
        here = values.device.type == "cpu" and backend_for(values.device) == "torch"
        factors = cpu.factors_of(self.A, self.B, values[0]) if here else None
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "factors", factors)
        object.__setattr__(self, "is_left", factors is not None and cpu.is_identity(factors[1]))

    def __repr__(self) -> str:
        """Such as "Update(rank 4, 13 -> 17, on cpu)"."""
        return f"Update(rank {len(self.A)}, {self.A.shape[1]} -> {len(self.B)}, on {self.A.device})"


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


def merge_rows_(W: Tensor, update: Update, first: int = 0) -> Tensor:
    """`merge_` for some rows of a weight: W [rows, in] += rows `first` to `first + rows` of the update, rounded once.

    Args:
        W: of the dtype of the factors; modified.

    Returns:
        W. Its bits are those of `merge_`, as long as BLAS sums few rows as it sums many.

    Raises:
        TypeError: `update` is no `Update`, or W has another dtype.
        ValueError: the update has no such rows, W has another shape, or lies over the factors.
        RuntimeError: a gradient would have to pass through.
    """
    if type(update) is not Update:
        raise TypeError(f"rows are merged with an Update, not with {type(update).__name__}: it is made of Coefficients")
    rows = slice(first, first + len(W))
    if not 0 <= first <= rows.stop <= len(update.B):
        raise ValueError(f"rows {first} to {rows.stop} were asked of an update of {len(update.B)} rows")
    if update.factors is None:
        torch.ops.soupmix.merge_(W, update.A, update.B[rows], update.values)
    else:
        check_no_gradient("merge_rows_", {"W": W})
        check_merge(W[None], W, update.A, update.B[rows], update.values)
        left, right = update.factors
        if update.is_left:
            W.add_(left[rows] + 0.0)  # a product has no -0
        else:
            W.addmm_(left[rows], right)
    return W


def soup_linear_(y: Tensor, x: Tensor, pool: Pool, c: RowCoefficients) -> Tensor:
    """`y += ((x A_s^T) * c_s) B_s^T` for every slice s: the soup of every row's own person on top of the base projection.

    Args:
        y: base projections of x [rows, sum of widths], one slice beside the other; modified. Rows may lie apart in memory.
        x: [rows, in]. y, x and the pool have one dtype: fp32, fp16 or bf16.
        c: coefficients of every row over this pool's columns; `soup_linear_factor_` needs those that the pool made for "factor".

    Returns:
        y. A row depends on its own x, y and person only. Finite rows stay finite whatever other rows hold.

    Raises:
        TypeError: `c` is no `RowCoefficients`. TypeError, ValueError: dtypes or shapes do not fit.
    """
    _check_rows_of(c)
    if c.gathered is None or torch.compiler.is_compiling():
        torch.ops.soupmix.soup_linear_(y, x, pool.A, pool.B, c.values, c.rows, pool.widths)
    else:
        _add(y, x, pool, c, 0)
    return y


def soup_linear_factor_(y: Tensor, x: Tensor, pool: Pool, c: RowCoefficients) -> Tensor:
    """`y += (x A_bar^T) B_bar^T` with A_bar = sum_k c_k A_k and B_bar = sum_k c_k B_k, per row (arXiv 2310.11564).

    Arguments and errors as in `soup_linear_`; also ValueError where the pool has no common rank.
    """
    pool.check_factor()
    _check_rows_of(c)
    if c.gathered is None or torch.compiler.is_compiling():
        torch.ops.soupmix.soup_linear_factor_(y, x, pool.A, pool.B, c.values, c.rows, pool.widths, pool.rank)
    else:
        _add(y, x, pool, c, pool.rank)
    return y


def _add(y: Tensor, x: Tensor, pool: Pool, c: RowCoefficients, rank: int) -> None:
    """The CPU's own path, past the dispatcher, whose work would cost as much as a small layer's products."""
    check_rows(y, x, pool.A, pool.B, c.values, c.rows, pool.widths, rank)
    cpu.add_soup(y, x, pool.factors_for(x.shape[0]), c.gathered, rank)


def _check_rows_of(c: RowCoefficients) -> None:
    if type(c) is not RowCoefficients:
        raise TypeError(f"the kernels take RowCoefficients, not {type(c).__name__}: they are made of Coefficients")


def _values(c: Coefficients) -> Tensor:
    if type(c) is not Coefficients:
        raise TypeError(
            f"the kernels take Coefficients, not {type(c).__name__}: weights become coefficients by clamping"
        )
    return c.values
