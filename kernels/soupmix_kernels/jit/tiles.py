"""Which tile sizes are launched: a table instead of autotuning, so that every configuration is known and compiled in tests.

Decode (at most DECODE_ROWS rows) splits the input dimension, as one row of tiles would leave most of a GPU idle; prefill has
enough rows. The number of shares is a constant, so a row's bits do not depend on how many rows there are, within a phase.
No dot is narrower than 16, which Triton refuses on CUDA and runs without matrix units on gfx942.

Where addresses, strides and sizes are not all *aligned*, multiples of 16, loads are narrow and many, and as many registers hold
their addresses: more threads then share a tile, and fewer loads are under way. Sums are taken in the same order all the same.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["DECODE_ROWS", "Tile", "coefficients_tile", "expand_factor_tile", "expand_tile", "merge_tile", "shrink_tile"]

DECODE_ROWS = 64
_SHARES = 8
_LOOSE = (8, 1)  # warps and stages of most loose tiles


@dataclass(frozen=True, slots=True)
class Tile:
    """One configuration: block sizes and other compile-time constants, and what the compiler is told."""

    constants: tuple[tuple[str, int], ...]
    num_warps: int
    num_stages: int

    def __getitem__(self, name: str) -> int:
        return dict(self.constants)[name]

    def options(self) -> dict[str, Any]:
        """Keyword arguments of a launch. Fusing multiply and add is asked for, as its default differs by version."""
        return {
            **dict(self.constants),
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
            "enable_fp_fusion": True,
        }


def _tile(num_warps: int, num_stages: int, **constants: int) -> Tile:
    return Tile(tuple(constants.items()), num_warps, num_stages)


def coefficients_tile(aligned: bool = True) -> Tile:
    """For `coefficients_kernel`."""
    return _tile(*((4, 1) if aligned else _LOOSE), BLOCK_C=128, BLOCK_K=16)


def merge_tile(dtype: torch.dtype, people: int, aligned: bool = True) -> Tile:
    """For `merge_kernel`: with many people the tile of W stays in registers, which a larger tile would spill."""
    deep = 16 if dtype == torch.float32 else 32
    shape = {"ONE": int(people == 1), "BLOCK_O": 64, "BLOCK_I": 64, "BLOCK_R": deep, "GROUP": 8}
    return _tile(*((4, 2) if aligned else _LOOSE), **shape)


def shrink_tile(dtype: torch.dtype, rows: int, aligned: bool = True) -> Tile:
    """For `shrink_kernel`."""
    wide = 2 if dtype == torch.float32 else 1
    if rows <= DECODE_ROWS:
        return _tile(*((4, 3) if aligned else _LOOSE), SPLIT=_SHARES, BLOCK_T=16, BLOCK_C=32, BLOCK_I=128 // wide)
    return _tile(*((8, 3) if aligned else _LOOSE), SPLIT=1, BLOCK_T=64, BLOCK_C=64, BLOCK_I=64 // wide)


def expand_tile(dtype: torch.dtype, rows: int, aligned: bool = True) -> Tile:
    """For `expand_kernel`; a loose tile is smaller, which leaves the order of sums as it is."""
    decode, full = rows <= DECODE_ROWS, dtype == torch.float32
    split, high = (_SHARES, 16) if decode else (1, 64)
    wide = 64 if decode or full else 128
    deep = 16 if full and not decode else 32
    threads = (8, 2) if wide == 128 else (4, 2)
    if not aligned:
        high, wide, threads = min(high, 32), 32, threads if decode else _LOOSE
    return _tile(*threads, SPLIT=split, BLOCK_T=high, BLOCK_O=wide, BLOCK_R=deep)


def expand_factor_tile(dtype: torch.dtype, rows: int, rank: int, aligned: bool = True) -> Tile:
    """For `expand_factor_kernel`: as for `expand_kernel`, and UNIT says what the rank is a multiple of.

    Columns that are loaded one by one need more registers, and so the smaller tile of fp32.
    """
    unit = math.gcd(rank, 8) if rank % 4 == 0 else 1
    tile = expand_tile(dtype if unit > 1 else torch.float32, rows, aligned)
    return Tile((*tile.constants, ("UNIT", unit)), tile.num_warps, tile.num_stages)
