"""The stacked factors of K adapters, and the coefficients of people over their rank columns."""

from collections.abc import Sequence
from dataclasses import InitVar, dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from soupmix_kernels import cpu
from soupmix_kernels import ops as _ops  # noqa: F401  # registers torch.ops.soupmix
from soupmix_kernels.checks import check_pool, check_pool_dtype
from soupmix_kernels.rows_apart import WIDE, has_tiles, inner_step

__all__ = ["Coefficients", "Part", "Pool", "coefficients"]

_SEAL: Final = object()
MANY_ROWS = 64
_MULTIPLE = 16  # of the columns of a slice, so that every row of B starts on 16 bytes

Method = Literal["delta", "factor"]


@dataclass(frozen=True, slots=True, eq=False)
class Coefficients:
    """One number per person and rank column: clamped weight times scaling. Made by `coefficients` only.

    Attributes:
        values: [people, columns] fp32. rejected: weights of each person that were NaN or infinite, [people] int32.
    """

    values: Tensor
    rejected: Tensor
    seal: InitVar[object] = None

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("Coefficients come from soupmix_kernels.coefficients, which clamps the weights")


def coefficients(weights: Tensor, lo: Tensor, hi: Tensor, columns: Tensor, scale: Tensor) -> Coefficients:
    """`scale[j] * clamp(weights[p, k], lo[k], hi[k])` with k = columns[j]: the only reader of raw weights.

    Whatever the table says, no coefficient leaves its bounds: a weight that is NaN or infinite excludes the adapter and is
    counted, bounds of (0, 0) exclude it, as do bounds that are NaN or the wrong way round, and columns of no adapter.

    Args:
        weights: [people, K] fp32. lo, hi: bounds per adapter [K] fp32; 0, 0 means not approved.
        columns: adapter of every rank column [columns] int32, -1 for padding. scale: scaling of every column, fp32.
    """
    values, rejected = torch.ops.soupmix.coefficients(weights, lo, hi, columns, scale)
    return Coefficients(values, rejected, seal=_SEAL)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One adapter's factors in one slice: A [rank, in], B [out, rank], its number among the K adapters, its scaling."""

    adapter: int
    A: Tensor
    B: Tensor
    scaling: float


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """K adapters' factors for linear layers that read the same input (slices), held once for everybody. Made by `stack`.

    Ranks may differ: columns are stacked, not padded to the largest rank; only their sum is padded to a multiple of 16.

    Attributes:
        A: [slices R, in]. B: [sum of widths, R]. columns: adapter of every column (-1: padding) [slices R] int32.
        scale: scaling of every column [slices R] fp32. root: its square root, which `factor` needs.
        widths: out-features of every slice, one to three.
        rank: the common rank of all parts; 0 where there is no method `factor`, as ranks differ or a scaling is negative.
        factors: what the CPU multiplies by: A and B, in fp32 whatever the dtype.
        tiled: A and B in half precision, for `MANY_ROWS` on tile units, which are faster then; None where there are none, or
            the inputs are not whole tiles.
    """

    A: Tensor
    B: Tensor
    columns: Tensor
    scale: Tensor
    root: Tensor
    widths: tuple[int, ...]
    rank: int
    factors: cpu.Factors
    tiled: cpu.Factors | None = None

    def __post_init__(self) -> None:
        check_pool(self.A, self.B, (self.columns, self.scale, self.root), self.widths, self.rank)

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

        Raises:
            ValueError: not one to three slices, shapes that do not fit, a rank of zero, or a factor that is not finite
                in `dtype`, which would reach rows that do not use it.
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
        thin = cpu.factors(A.float(), B.float(), widths) if device.type == "cpu" else cpu.factors(A, B, widths)
        tiled = cpu.factors(A, B, widths) if tiles and inputs % inner_step(dtype, device) == 0 else None
        rank = ranks.pop() if len(ranks) == 1 else 0
        return cls(A, B, columns, scale, root, tuple(widths), rank, thin, tiled)

    def factors_for(self, rows: int) -> cpu.Factors:
        """What the CPU multiplies so many rows by.

        Thin products of half precision take 1.4 to 6.7 times as long as those of fp32 for up to 8 rows, with tile units and
        without; for 64 rows and more tile units win.
        """
        return self.tiled if self.tiled is not None and rows >= MANY_ROWS else self.factors

    def coefficients(self, weights: Tensor, lo: Tensor, hi: Tensor, method: Method = "delta") -> Coefficients:
        """Coefficients of people over the columns of this pool; for `factor` a column counts sqrt(scaling).

        Raises:
            ValueError: `factor`, and this pool has no common rank or a negative scaling.
        """
        if method == "delta":
            return coefficients(weights, lo, hi, self.columns, self.scale)
        self.check_factor()
        return coefficients(weights, lo, hi, self.columns, self.root)

    def check_factor(self) -> None:
        """Raise ValueError where method `factor` is not defined."""
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
