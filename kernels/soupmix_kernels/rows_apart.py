"""How wide the inner dimension of a product on the CPU must be, so that a row depends on itself alone.

On tile units (AMX) oneDNN's products of half precision read beyond the end of a row where the inner dimension is no multiple
of 32, and multiply what lies there by zero. That does not help against NaN: the next row's becomes this row's, and the last
row takes what lies behind the tensor (github.com/uxlfoundation/oneDNN/issues/5717; torch 2.13 has an older oneDNN than its
remedy). So inner dimensions are filled up with zeros of our own. docs/row_leaks.md has the sweep.
"""

import functools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

__all__ = ["PRODUCTS", "WIDE", "has_tiles", "inner_step", "leaks", "whole", "widen"]

Product = Callable[[Tensor, Tensor], Tensor]

WIDE = 32
"""Elements of half precision in one row of a tile (64 bytes): a multiple leaves nothing to read beyond."""

_RAGGED = (7, 31, 33, 65, 80, 100, 176)  # all of these leak on AMX, but 48, 72 and 112 do not: a sample, no rule
_HALF = (torch.bfloat16, torch.float16)


def has_tiles(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether products of this dtype may run on tile units."""
    if device.type != "cpu" or dtype not in _HALF:
        return False
    return torch.cpu._is_amx_tile_supported() if dtype == torch.bfloat16 else torch.cpu._is_amx_fp16_supported()


def inner_step(dtype: torch.dtype, device: torch.device) -> int:
    """The number of which an inner dimension must be a multiple to keep rows apart on this device: 1 (any will do) or `WIDE`.

    Every dtype is tried on this processor once, when it is first asked for. With tile units the answer is `WIDE` without a
    trial, which could not cover all shapes.

    Raises:
        RuntimeError: products of this dtype mix rows here even where the inner dimension is a multiple of `WIDE`.
    """
    return _step(dtype) if device.type == "cpu" else 1


def whole(size: int, dtype: torch.dtype, device: torch.device) -> int:
    """The least inner dimension of at least `size` that keeps rows apart."""
    step = inner_step(dtype, device)
    return -(-size // step) * step


def widen(tensor: Tensor, size: int) -> Tensor:
    """`tensor` [..., n] followed by zeros [..., size]; itself where n is `size`."""
    extra = size - tensor.shape[-1]
    return pad(tensor, (0, extra)) if extra else tensor


@functools.cache
def _step(dtype: torch.dtype) -> int:
    if not has_tiles(dtype, torch.device("cpu")) and not any(leaks(dtype, inner) for inner in _RAGGED):
        return 1
    if any(leaks(dtype, inner) for inner in (WIDE, 5 * WIDE)):
        raise RuntimeError(
            f"products of {dtype} on this processor mix neighbouring rows, so one person's answer could reach another's; "
            "use float32"
        )
    return WIDE


def _packed(x: Tensor, weight: Tensor) -> Tensor:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    made: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    return made


PRODUCTS: dict[str, Product] = {
    "mm": lambda x, weight: torch.mm(x, weight.t()),
    "addmm": lambda x, weight: torch.addmm(x.new_zeros(len(x), len(weight)), x, weight.t()),
    "linear": linear,
    "packed": _packed,
}
"""The ways in which x W^T is computed for x [rows, inner] and W [columns, inner], by base projections, soups and merges."""


def leaks(
    dtype: torch.dtype, inner: int, *, rows: Sequence[int] = (33,), columns: Sequence[int] = (40,)
) -> frozenset[str]:
    """Try every product, and find those in which NaN behind or between rows reaches a row of finite numbers.

    Args:
        inner: inner dimension. rows, columns: every pair of these sizes is tried.

    Returns:
        Names in `PRODUCTS`. A product that this processor cannot do in `dtype` is none of them.
    """
    draw = torch.Generator().manual_seed(0)
    found = set()
    with torch.inference_mode():
        for x in (poisoned for count in rows for poisoned in _poisoned(count, inner, dtype, draw)):
            alive = x.isfinite().all(1)
            for count in columns:
                weight = torch.randn(count, inner, generator=draw).to(dtype)
                found |= {name for name, product in PRODUCTS.items() if _mixes(product, x, weight, alive)}
    return frozenset(found)


def _poisoned(rows: int, inner: int, dtype: torch.dtype, draw: torch.Generator) -> Iterator[Tensor]:
    """Two ways of rows [rows, inner] beside NaN: every other row is NaN; or a window in NaN. NaN follows the last row."""
    values = torch.randn(rows, inner, generator=draw)
    dense, strided = (torch.full((rows + 1, inner + 3), torch.nan, dtype=dtype) for _ in range(2))
    between = dense.flatten()[: rows * inner].view(rows, inner).copy_(values)
    between[1::2] = torch.nan
    yield from (between, strided[:rows, :inner].copy_(values))


def _mixes(product: Product, x: Tensor, weight: Tensor, alive: Tensor) -> bool:
    try:
        return not bool(product(x, weight)[alive].isfinite().all())
    except (AttributeError, RuntimeError):  # an op that is not there, a dtype or a processor that it does not know
        return False
