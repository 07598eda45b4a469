"""The stacked factors of K adapters, and the coefficients of people over their rank columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

import torch
from torch import Tensor

from soupmix_kernels import cpu
from soupmix_kernels import ops as _ops  # noqa: F401  # registers torch.ops.soupmix
from soupmix_kernels.checks import check_pool, check_pool_dtype
from soupmix_kernels.rows_apart import WIDE, has_tiles, inner_step
from soupmix_kernels.sealing import sealed

__all__ = ["Coefficients", "Part", "Pool", "coefficients"]

_SEAL: Final = object()
MANY_ROWS = 64
_MULTIPLE = 16  # of the columns of a slice, so that every row of B starts on 16 bytes

Method = Literal["delta", "factor"]


@sealed
@final
@dataclass(frozen=True, slots=True, eq=False, init=False)
class Coefficients:
    """One number per person and rank column: clamped weight times scaling. Made by `coefficients` only.

    Attributes:
        values: [people, columns] fp32.
        rejected: how many weights of each person were NaN or infinite, [people] int32.

    Raises:
        TypeError: something else than `coefficients` makes one.
    """

    values: Tensor
    rejected: Tensor

    def __init__(self, values: Tensor, rejected: Tensor, seal: object = None) -> None:
        if seal is not _SEAL:  # before anything is set: who catches the error has changed nothing
            raise TypeError("Coefficients come from soupmix_kernels.coefficients, which clamps the weights")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "rejected", rejected)

    def __repr__(self) -> str:
        """Such as "Coefficients(3 people, 32 columns, on cpu)"; values are not read, which on a GPU would wait for it."""
        people, columns = self.values.shape
        return f"Coefficients({people} people, {columns} columns, on {self.values.device})"


def coefficients(weights: Tensor, lo: Tensor, hi: Tensor, columns: Tensor, scale: Tensor) -> Coefficients:
    """`scale[j] * clamp(weights[p, k], lo[k], hi[k])` with k = columns[j]: the only reader of raw weights.

    Whatever the weights are, no coefficient leaves its bounds. A coefficient is 0, which excludes its column, where the weight is
    NaN or infinite (these are counted), where the bounds are (0, 0), NaN or the wrong way round, and for a column of no adapter.

    Args:
        weights: [people, K] fp32. lo, hi: bounds of every adapter [K] fp32; 0, 0: not approved.
        columns: adapter of every rank column [columns] int32, -1 for padding.
        scale: scaling of every rank column [columns] fp32.

    Raises:
        ValueError: shapes do not fit each other, or tensors lie on several devices. TypeError: a dtype is another.
        RuntimeError: a gradient would have to pass through.
    """
    values, rejected = torch.ops.soupmix.coefficients(weights, lo, hi, columns, scale)
    return Coefficients(values, rejected, seal=_SEAL)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The factors of one adapter for one linear layer.

    Attributes:
        adapter: its number among the K adapters, 0 to K-1. A: [rank, in]. B: [out, rank].
        scaling: what B A is multiplied by: alpha / rank, or as the adapter has it.
    """

    adapter: int
    A: Tensor
    B: Tensor
    scaling: float

    def __repr__(self) -> str:
        """Such as "Part(adapter 0, rank 4, 13 -> 17, scaling 0.5)"."""
        (rank, inputs), out = self.A.shape, self.B.shape[0]
        return f"Part(adapter {self.adapter}, rank {rank}, {inputs} -> {out}, scaling {self.scaling:g})"


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The factors of K adapters for one to three linear layers with the same input ("slices"), held once. Made by `stack`.

    Ranks may differ: rank columns are stacked side by side, and only their sum is padded, to R, a multiple of 16 (32 with tile
    units).

    Attributes:
        A: [slices R, in]. B: [sum of widths, R]. Both in the dtype of the pool: fp32, fp16 or bf16.
        columns: adapter of every rank column [slices R] int32, -1 for padding.
        scale: scaling of every rank column [slices R] fp32. root: its square root, for method `factor`.
        widths: out-features of every slice.
        rank: the rank that all parts have; 0 where method `factor` is not defined, as ranks differ or a scaling is negative.
        factors: A and B as the CPU multiplies by them: in fp32 whatever the dtype.
        tiled: A and B in half precision for tile units (AMX), which are faster for `MANY_ROWS` and more; None without tile
            units, or where `in` is no multiple of 32.

    Raises:
        ValueError, TypeError: shapes or dtypes do not fit each other.
    """

    A: Tensor
    B: Tensor
    columns: Tensor
    scale: Tensor
    root: Tensor
    widths: tuple[int, ...]
    rank: int
    factors: cpu.FactorViews
    tiled: cpu.FactorViews | None = None

    def __post_init__(self) -> None:
        check_pool(self.A, self.B, (self.columns, self.scale, self.root), self.widths, self.rank)

    def __repr__(self) -> str:
        """Such as "Pool(13 -> 17 + 5, 16 rank columns, bfloat16 on cpu)"."""
        widths = " + ".join(map(str, self.widths))
        dtype = str(self.A.dtype).removeprefix("torch.")
        return f"Pool({self.A.shape[1]} -> {widths}, {self.B.shape[1]} rank columns, {dtype} on {self.A.device})"

    @classmethod
    def stack(
        cls,
        slices: Sequence[Sequence[Part]],
        widths: Sequence[int],
        *,
        inputs: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> "Pool":
        """Stack the parts of every slice side by side, in the order given.

        Args:
            slices: the parts of each slice, possibly none. widths: out-features of each slice. inputs: in-features.
            dtype: fp32, fp16 or bf16; factors are rounded to it once. device: where the pool is held.

        Raises:
            ValueError: not one to three slices, shapes that do not fit, a rank of zero, or a factor that is not finite in
                `dtype`: it would reach rows whose coefficient for it is zero.
            TypeError: `dtype` is none that kernels multiply in.
        """
        check_pool_dtype(dtype)
        if not 1 <= len(slices) == len(widths) <= 3:
            raise ValueError(f"a pool has one to three slices with a width each, not {len(slices)} and {len(widths)}")
        ranks = {part.A.shape[0] if part.scaling >= 0 else 0 for parts in slices for part in parts}
        total = max(sum(part.A.shape[0] for part in parts) for parts in slices)
        tiles = has_tiles(dtype, device)
        multiple = WIDE if tiles else _MULTIPLE
        R = -(-total // multiple) * multiple
        A, B = torch.zeros(len(slices) * R, inputs, dtype=dtype), torch.zeros(sum(widths), R, dtype=dtype)
        columns, scale = torch.full((len(slices) * R,), -1, dtype=torch.int32), torch.zeros(len(slices) * R)
        for s, (parts, rows_B) in enumerate(zip(slices, B.split(list(widths)), strict=True)):
            at = 0
            for part in parts:
                _check(part, inputs, widths[s], dtype)
                end = at + part.A.shape[0]
                A[s * R + at : s * R + end], rows_B[:, at:end] = part.A, part.B
                columns[s * R + at : s * R + end], scale[s * R + at : s * R + end] = part.adapter, part.scaling
                at = end
        if device.type == "cpu":
            A, B = _by_columns(A), _by_columns(B)  # BLAS reads both faster so: A up to twice in fp32
        A, B, columns, scale, root = (t.to(device) for t in (A, B, columns, scale, scale.clamp(min=0).sqrt()))
        thin = (
            cpu.factor_views(A.float(), B.float(), widths) if device.type == "cpu" else cpu.factor_views(A, B, widths)
        )
        tiled = cpu.factor_views(A, B, widths) if tiles and inputs % inner_step(dtype, device) == 0 else None
        rank = ranks.pop() if len(ranks) == 1 else 0
        return cls(A, B, columns, scale, root, tuple(widths), rank, thin, tiled)

    def factors_for(self, rows: int) -> cpu.FactorViews:
        """The factors that the CPU multiplies so many rows by.

        Products of half precision with up to 8 rows take 1.4 to 6.7 times as long as those of fp32, with tile units and without;
        from 64 rows on tile units win.
        """
        return self.tiled if self.tiled is not None and rows >= MANY_ROWS else self.factors

    def coefficients(self, weights: Tensor, lo: Tensor, hi: Tensor, method: Method = "delta") -> Coefficients:
        """Coefficients of people over the rank columns of this pool; for `factor` the scale is sqrt(scaling).

        Args:
            weights: [people, K] fp32. lo, hi: bounds of every adapter [K] fp32.

        Raises:
            ValueError: `factor`, and this pool has no common rank or a negative scaling.
        """
        if method == "delta":
            return coefficients(weights, lo, hi, self.columns, self.scale)
        self.check_factor()
        return coefficients(weights, lo, hi, self.columns, self.root)

    def check_factor(self) -> None:
        """Raise ValueError where method `factor` is not defined for this pool."""
        if not self.rank:
            raise ValueError(
                "method factor averages A and B themselves, so all adapters need one rank, and scalings that are not negative"
            )


def _by_columns(factor: Tensor) -> Tensor:
    return factor.t().contiguous().t()


def _check(part: Part, inputs: int, width: int, dtype: torch.dtype) -> None:
    rank = part.A.shape[0]
    if rank < 1 or part.A.shape != (rank, inputs) or part.B.shape != (width, rank):
        raise ValueError(
            f"adapter {part.adapter} has A {list(part.A.shape)} and B {list(part.B.shape)}, but the layer needs "
            f"A [rank, {inputs}] and B [{width}, rank]"
        )
    if not (part.A.to(dtype).isfinite().all() and part.B.to(dtype).isfinite().all()):
        raise ValueError(
            f"a factor of adapter {part.adapter} is not finite in {dtype}, so no row could be kept from it"
        )
