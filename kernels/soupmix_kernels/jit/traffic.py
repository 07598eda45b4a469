"""What every launch moves and computes, counted from shapes and tiles without running anything; needs no triton.

Two counts of bytes for every tensor argument. *Requested*: what all active lanes load and store over the whole launch, which
caches see. *Compulsory*: every distinct element once, which memory has to see at least. Their quotient is what another tile could
save. FLOPs are those of the dots, two per multiply-add: *useful* inside the masks, *issued* with the padding of the tiles.

Assumed, as it depends on the data: every row is somebody's, every person has a row, no coefficient is zero, every adapter has a
column. Rows of nobody and adapters that are left out move less. Copies of tensors whose inner stride is not 1 are not counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from soupmix_kernels.jit import tiles
from soupmix_kernels.jit.tiles import Tile

__all__ = [
    "Moved",
    "Traffic",
    "coefficients_traffic",
    "expand_factor_traffic",
    "expand_traffic",
    "merge_traffic",
    "shrink_traffic",
    "soup_traffic",
]

_WORD = 4  # bytes of an fp32 or int32


@dataclass(frozen=True, slots=True)
class Moved:
    """Bytes of one tensor argument.

    Attributes:
        loaded, stored: requested by active lanes. read, written: every distinct element once.
    """

    loaded: int = 0
    stored: int = 0
    read: int = 0
    written: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """One launch.

    Attributes:
        kernel: its name without `_kernel`. programs: size of the grid.
        arguments: by the name of the kernel's parameter, without `_ptr`, in the order of the parameters.
        useful, issued: FLOPs of the dots inside the masks, and with padding.
    """

    kernel: str
    programs: int
    arguments: Mapping[str, Moved]
    useful: int
    issued: int

    @property
    def requested(self) -> int:
        """Bytes that active lanes load and store."""
        return sum(moved.loaded + moved.stored for moved in self.arguments.values())

    @property
    def compulsory(self) -> int:
        """Bytes that must come from memory or go to it at least once."""
        return sum(moved.read + moved.written for moved in self.arguments.values())


def coefficients_traffic(people: int, adapters: int, columns: int, padding: int = 0) -> Traffic:
    """One launch of `coefficients_kernel`; `padding` of the columns belong to no adapter."""
    tile = tiles.coefficients_tile()
    known = columns - padding
    return Traffic(
        "coefficients",
        people * _cdiv(columns, tile["BLOCK_C"]),
        {
            "w": Moved(loaded=people * (known + adapters) * _WORD, read=people * adapters * _WORD),
            "lo": Moved(loaded=people * known * _WORD, read=adapters * _WORD),
            "hi": Moved(loaded=people * known * _WORD, read=adapters * _WORD),
            "columns": _loaded(columns * _WORD, people),
            "scale": _loaded(columns * _WORD, people),
            "c": _stored(people * columns * _WORD),
            "rejected": _stored(people * _WORD),
        },
        useful=0,
        issued=0,
    )


def merge_traffic(
    out: int, inputs: int, R: int, people: int, dtype: torch.dtype, *, tile: Tile | None = None
) -> Traffic:
    """One launch of `merge_kernel`: W [out, inputs] and R rank columns, `out[p]` for all people.

    `tile` replaces, here and below, the tile that `tiles` chooses: to count what another would do.
    """
    tile = tile or tiles.merge_tile(dtype, people)
    size = dtype.itemsize
    high, wide = _cdiv(out, tile["BLOCK_O"]), _cdiv(inputs, tile["BLOCK_I"])
    padded = high * tile["BLOCK_O"] * wide * tile["BLOCK_I"] * _up(R, tile["BLOCK_R"])
    return Traffic(
        "merge",
        high * wide,
        {
            "w": _loaded(out * inputs * size),
            "a": _loaded(R * inputs * size, high * people),
            "b": _loaded(out * R * size, wide * people),
            "c": _loaded(people * R * _WORD, high * wide),
            "out": _stored(people * out * inputs * size),
        },
        useful=2 * people * out * inputs * R,
        issued=2 * people * padded,
    )


def shrink_traffic(rows: int, inputs: int, columns: int, dtype: torch.dtype, *, tile: Tile | None = None) -> Traffic:
    """One launch of `shrink_kernel`: x [rows, inputs], A [columns, inputs], h [shares, rows, columns]."""
    tile = tile or tiles.shrink_tile(dtype, rows)
    size = dtype.itemsize
    high, wide = _cdiv(rows, tile["BLOCK_T"]), _cdiv(columns, tile["BLOCK_C"])
    return Traffic(
        "shrink",
        wide * high * tile["SPLIT"],
        {
            "x": _loaded(rows * inputs * size, wide),
            "a": _loaded(columns * inputs * size, high),
            "h": _stored(tile["SPLIT"] * rows * columns * _WORD),
        },
        useful=2 * rows * inputs * columns,
        issued=2 * high * tile["BLOCK_T"] * wide * tile["BLOCK_C"] * _up(inputs, tile["BLOCK_I"]),
    )


def expand_traffic(
    rows: int, people: int, widths: Sequence[int], R: int, dtype: torch.dtype, *, tile: Tile | None = None
) -> Traffic:
    """One launch of `expand_kernel`: h [shares, rows, slices R], B [sum of widths, R], y [rows, sum of widths]."""
    tile = tile or tiles.expand_tile(dtype, rows)
    return _expand("expand", rows, people, widths, R, dtype, tile, reads_of_c=1, padded=_up(R, tile["BLOCK_R"]))


def expand_factor_traffic(
    rows: int, people: int, widths: Sequence[int], R: int, rank: int, dtype: torch.dtype, *, tile: Tile | None = None
) -> Traffic:
    """One launch of `expand_factor_kernel`, which passes twice over a row's coefficients and leaves padding columns alone."""
    tile = tile or tiles.expand_factor_tile(dtype, rows, rank)
    blocks = R // rank
    return _expand(
        *("expand_factor", rows, people, widths, blocks * rank, dtype, tile),
        reads_of_c=2,
        padded=blocks * _up(rank, tile["BLOCK_R"]),
    )


def soup_traffic(
    rows: int, people: int, inputs: int, widths: Sequence[int], R: int, dtype: torch.dtype, rank: int = 0
) -> tuple[Traffic, ...]:
    """The launches of `soup_linear_`, or with a `rank` of `soup_linear_factor_`: shrink and expand; none if nothing is to do.

    h counts as stored by the one and loaded by the other; it usually stays in L2 between them. Tensors are contiguous.
    """
    if not (rows and people and inputs and R and sum(widths)):
        return ()
    first = shrink_traffic(rows, inputs, len(widths) * R, dtype)
    aligned = not any(size % 16 for size in (*widths, R))
    if rank:
        tile = tiles.expand_factor_tile(dtype, rows, rank, aligned)
        return first, expand_factor_traffic(rows, people, widths, R, rank, dtype, tile=tile)
    return first, expand_traffic(rows, people, widths, R, dtype, tile=tiles.expand_tile(dtype, rows, aligned))


def _expand(
    kernel: str,
    rows: int,
    people: int,
    widths: Sequence[int],
    columns: int,
    dtype: torch.dtype,
    tile: Tile,
    *,
    reads_of_c: int,
    padded: int,
) -> Traffic:
    size, out = dtype.itemsize, sum(widths)
    high = _cdiv(rows, tile["BLOCK_T"])
    across = sum(_cdiv(width, tile["BLOCK_O"]) for width in widths)
    slices = sum(width > 0 for width in widths)
    line = columns * _WORD  # of one row in one slice; every output tile asks for that of its own slice
    shares = tile["SPLIT"]
    y = rows * out * size
    return Traffic(
        kernel,
        across * high,
        {
            "h": Moved(loaded=across * shares * rows * line, read=slices * shares * rows * line),
            "b": _loaded(out * columns * size, high),
            "y": Moved(loaded=y, stored=y, read=y, written=y),
            "rows": _loaded(rows * _WORD, across),
            "c": Moved(loaded=reads_of_c * across * rows * line, read=slices * people * line),
        },
        useful=2 * rows * out * columns,
        issued=2 * high * tile["BLOCK_T"] * across * tile["BLOCK_O"] * padded,
    )


def _loaded(size: int, times: int = 1) -> Moved:
    return Moved(loaded=size * times, read=size)


def _stored(size: int) -> Moved:
    return Moved(stored=size, written=size)


def _cdiv(size: int, block: int) -> int:
    return -(-size // block)


def _up(size: int, block: int) -> int:
    return _cdiv(size, block) * block
