"""The soups of a layer in bf16 on the CPU, in one call of a small C++ library: no copies in fp32, no gathered coefficients.

    y += ((x A_s^T) * c_s) B_s^T        for every slice s, each row with the coefficients of its own person

Products run on tile units (AMX) where there are any, else on vectors of pairs; sums and coefficients are fp32. torch's own path
(`soupmix_kernels.cpu`) stays beside it for everything else, and is the trial that a library must pass.
"""

import ctypes
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import pad

from soupmix_kernels.compiled.build import SOUP, CannotCompile, library
from soupmix_kernels.pool import Coefficients, Part, Pool
from soupmix_kernels.soup import RowCoefficients, soup_linear_

__all__ = ["CompiledSoup", "SoupLibrary"]

_BLOCK: Final = 32  # columns that are computed together, and numbers of a step
_TRIAL: Final = 0.02  # error of a library, as a share of the update: bf16 has 8 bits, and both round the same twice
_tried: set[str] = set()


class _Soup(ctypes.Structure):
    _fields_ = (
        ("A", ctypes.c_void_p), ("B", ctypes.c_void_p), ("inputs", ctypes.c_int32), ("R", ctypes.c_int32),
        ("slices", ctypes.c_int32), ("widths", ctypes.c_int32 * 3),
    )  # fmt: skip


class _Rows(ctypes.Structure):
    _fields_ = (
        ("y", ctypes.c_void_p), ("x", ctypes.c_void_p), ("c", ctypes.c_void_p), ("person", ctypes.c_void_p),
        ("h", ctypes.c_void_p), ("ldx", ctypes.c_int64), ("ldy", ctypes.c_int64), ("rows", ctypes.c_int32),
        ("people", ctypes.c_int32), ("threads", ctypes.c_int32),
    )  # fmt: skip


class SoupLibrary:
    """The library, found right on this processor, and the scratch that its calls share. For one thread at a time.

    Args:
        folder: where libraries are kept, see `library`. name: a variant of `SOUP`; None: the best that this processor has.

    Raises:
        CannotCompile: there is none, none can be made, or what it computes is not what torch computes.
    """

    def __init__(self, folder: Path, name: str | None = None) -> None:
        found = library(folder, name, SOUP)
        self.call, self._scratch = found.soupmix_soup, torch.empty(0, dtype=torch.bfloat16)
        if found._name not in _tried:
            _try(self)
            _tried.add(found._name)

    def scratch(self, size: int) -> int:
        """The address of so many numbers in bf16, valid until the next call."""
        if self._scratch.numel() < size:
            self._scratch = torch.empty(size, dtype=torch.bfloat16)
        return self._scratch.data_ptr()


class CompiledSoup:
    """The factors of a pool as the library reads them: copied once, in place of the pool's own.

    Args:
        pool: one that `fits`.

    Attributes:
        columns: of a table of coefficients, those of the pool filled up to whole blocks in every slice.
    """

    def __init__(self, pool: Pool, made: SoupLibrary) -> None:
        if not self.fits(pool):
            raise ValueError(f"{pool} is none that a compiled soup computes")
        slices, R = len(pool.widths), -(-pool.B.shape[1] // _BLOCK) * _BLOCK
        self.columns, self._R, self._slices, self._out = slices * R, pool.B.shape[1], slices, sum(pool.widths)
        apart = pad(pool.A.unflatten(0, (slices, self._R)), (0, 0, 0, R - self._R))
        self._A = packed(apart.flatten(0, 1))
        self._B = torch.cat([packed(pad(part, (0, R - self._R))).flatten() for part in pool.B.split(list(pool.widths))])
        widths = (ctypes.c_int32 * 3)(*pool.widths)
        self._soup = _Soup(self._A.data_ptr(), self._B.data_ptr(), pool.A.shape[1], R, slices, widths)
        self._made, self._rows, self._inputs = made, _Rows(), pool.A.shape[1]
        self._told = ctypes.byref(self._soup), ctypes.byref(self._rows)

    @staticmethod
    def fits(pool: Pool) -> bool:
        """Whether a pool is one that the library computes: bf16 on the CPU, and inputs that are whole steps."""
        return pool.A.dtype == torch.bfloat16 and pool.A.device.type == "cpu" and pool.A.shape[1] % _BLOCK == 0

    def table(self, coefficients: Coefficients) -> Tensor:
        """Coefficients of people over the pool's columns, as `add_` reads them [people, columns] fp32.

        Raises:
            TypeError: they are no `Coefficients`. ValueError: they are of another pool.
        """
        if type(coefficients) is not Coefficients:
            raise TypeError(f"a table is made of Coefficients, not of {type(coefficients).__name__}")
        values = coefficients.values
        if values.shape[1] != self._slices * self._R:
            raise ValueError(
                f"these coefficients have {values.shape[1]} columns, and the pool {self._slices * self._R}"
            )
        apart = values.unflatten(1, (self._slices, self._R))
        return pad(apart, (0, self.columns // self._slices - self._R)).flatten(1).contiguous()

    def add_(self, y: Tensor, x: Tensor, table: Tensor, person: Tensor, threads: int) -> None:
        """Add the soup of every row of x [rows, inputs] to y [rows, out], both bf16.

        Args:
            table: by `table`. person: of every row [rows] int32, outside of the table's: nobody, whose y is left as it was.
            threads: that compute it.

        Raises:
            ValueError: a tensor has another shape, dtype or order in memory than the library takes.
        """
        count = x.shape[0]
        if (
            x.shape[1] != self._inputs or y.shape != (count, self._out) or person.shape != (count,)
            or x.dtype != torch.bfloat16 or y.dtype != torch.bfloat16 or person.dtype != torch.int32
            or table.dtype != torch.float32 or table.shape[1] != self.columns or not table.is_contiguous()
            or x.stride(1) != 1 or y.stride(1) != 1 or person.stride(0) != 1
        ):  # fmt: skip
            raise ValueError(
                f"a compiled soup of {self._inputs} -> {self._out} and {self.columns} columns takes bf16 rows; got "
                f"x {list(x.shape)} {x.dtype}, y {list(y.shape)} {y.dtype}, a table {list(table.shape)} and "
                f"persons {list(person.shape)}"
            )
        rows = self._rows
        rows.y, rows.x, rows.c, rows.person = y.data_ptr(), x.data_ptr(), table.data_ptr(), person.data_ptr()
        rows.h = self._made.scratch(count * self.columns)
        rows.ldx, rows.ldy = x.stride(0), y.stride(0)
        rows.rows, rows.people, rows.threads = count, table.shape[0], threads
        self._made.call(*self._told)


def packed(weight: Tensor) -> Tensor:
    """A weight [columns, in] as tiles [columns / 32, in / 32, 2, 16, 16, 2]: pairs of numbers of 16 columns side by side."""
    columns, inputs = weight.shape
    full = pad(weight, (0, -inputs % _BLOCK, 0, -columns % _BLOCK))
    tiles = full.view(full.shape[0] // _BLOCK, 2, 16, full.shape[1] // _BLOCK, 16, 2)
    return tiles.permute(0, 3, 1, 4, 2, 5).contiguous()


def _try(made: SoupLibrary) -> None:
    """Raise CannotCompile unless a library computes what torch computes, and leaves rows of nobody alone."""
    draw = torch.Generator().manual_seed(0)
    widths, inputs, rows = (40, 24), 96, 45
    slices = [[_part(draw, k, inputs, width) for k in range(3)] for width in widths]
    with torch.inference_mode(False):
        pool = Pool.stack(slices, widths, inputs=inputs, dtype=torch.bfloat16, device=torch.device("cpu"))
        weights, ones = torch.rand(4, 3, generator=draw), torch.ones(3)
        coefficients = pool.coefficients(weights, 0 * ones, ones)
        person = torch.randint(-1, 4, (rows,), generator=draw, dtype=torch.int32)
        x, y = (torch.randn(rows, size, generator=draw).bfloat16() for size in (inputs, sum(widths)))
        expected = soup_linear_(y.clone(), x, pool, RowCoefficients(coefficients, person))
        found, soup = y.clone(), CompiledSoup(pool, made)
        soup.add_(found, x, soup.table(coefficients), person, 1)
    wrong = (found.float() - expected.float()).norm() / (expected.float() - y.float()).norm()
    if not wrong < _TRIAL or not torch.equal(found[person < 0], y[person < 0]):
        raise CannotCompile(f"the library was tried, and what it computes is wrong by {wrong:.2g} of the soup")


def _part(draw: torch.Generator, adapter: int, inputs: int, out: int) -> Part:
    A, B = torch.randn(5, inputs, generator=draw), torch.randn(out, 5, generator=draw)
    return Part(adapter, A * inputs**-0.5, B, 0.5 + adapter)
