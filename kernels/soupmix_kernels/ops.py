"""The ops as torch sees them: schemas, fake kernels for tracing, and dispatch to a backend.

Tracing, CUDA graphs and other servers call ops, not functions: these take tensors and plain numbers only, allocate by shapes
alone and, on a GPU, never wait for the device.
"""

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from soupmix_kernels import cpu, reference
from soupmix_kernels.backends import backend_for

__all__ = ["check"]

_LIBRARY = torch.library.Library("soupmix", "DEF")
_SOUP = "Tensor(a!) y, Tensor x, Tensor A, Tensor B, Tensor c, Tensor rows, int[] widths"
_MERGE = "Tensor A, Tensor B, Tensor c"


def _backend(device: torch.device) -> tuple[str, ModuleType]:
    name = backend_for(device)
    if name == "triton":
        from soupmix_kernels.jit import launch

        return name, launch
    return name, reference if name == "reference" else cpu


def _coefficients(weights: Tensor, lo: Tensor, hi: Tensor, columns: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    _, backend = _backend(weights.device)
    found: tuple[Tensor, Tensor] = backend.coefficients(weights, lo, hi, columns, scale)
    return found


def _merge_out(out: Tensor, W: Tensor, A: Tensor, B: Tensor, c: Tensor) -> None:
    name, backend = _backend(W.device)
    if name == "reference":
        out.copy_(reference.merge(W, A, B, c))
    else:
        backend.merge_into(out, W, A, B, c)


def _merge(W: Tensor, A: Tensor, B: Tensor, c: Tensor) -> Tensor:
    out = W.new_empty(c.shape[0], *W.shape)
    _merge_out(out, W, A, B, c)
    return out


def _merge_in_place(W: Tensor, A: Tensor, B: Tensor, c: Tensor) -> None:
    _merge_out(W[None], W, A, B, c)


def _soup(
    y: Tensor, x: Tensor, A: Tensor, B: Tensor, c: Tensor, rows: Tensor, widths: Sequence[int], rank: int = 0
) -> None:
    check(y, x, A, B, c, rows, widths, rank)
    name, backend = _backend(x.device)
    if name != "reference":
        backend.soup_into(y, x, A, B, c, rows, widths, rank)
    elif rank:
        y.copy_(reference.soup_linear_factor(y, x, A, B, c, rows, widths, rank))
    else:
        y.copy_(reference.soup_linear(y, x, A, B, c, rows, widths))


def check(
    y: Tensor, x: Tensor, A: Tensor, B: Tensor, c: Tensor, rows: Tensor, widths: Sequence[int], rank: int
) -> None:
    """Raise ValueError or TypeError where arguments of the soup ops do not fit each other."""
    count, slices, R = x.shape[0], len(widths), B.shape[1]
    right = (
        1 <= slices <= 3
        and x.shape[1] == A.shape[1]
        and y.shape == (count, B.shape[0])
        and B.shape[0] == sum(widths)
        and A.shape[0] == c.shape[1] == slices * R
        and rows.shape == (count,)
        and 0 <= rank <= max(R, 1)
    )
    if not right:
        raise ValueError(
            "soup_linear needs y [rows, out], x [rows, in], A [slices R, in], B [out, R], c [people, slices R], "
            "rows [rows], one to three widths that sum to out and a rank of at most R; got "
            f"y {list(y.shape)}, x {list(x.shape)}, A {list(A.shape)}, B {list(B.shape)}, c {list(c.shape)}, "
            f"rows {list(rows.shape)}, widths {list(widths)}, rank {rank}"
        )
    if not (x.dtype == A.dtype == B.dtype == y.dtype and c.dtype == torch.float32 and rows.dtype == torch.int32):
        raise TypeError(
            "soup_linear needs y, x, A and B of one dtype, c in float32 and rows in int32; got "
            f"y {y.dtype}, x {x.dtype}, A {A.dtype}, B {B.dtype}, c {c.dtype}, rows {rows.dtype}"
        )


def _fake_coefficients(
    weights: Tensor, lo: Tensor, hi: Tensor, columns: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    people = weights.shape[0]
    c = weights.new_empty(people, columns.shape[0], dtype=torch.float32)
    return c, weights.new_empty(people, dtype=torch.int32)


def _fake_merge(W: Tensor, A: Tensor, B: Tensor, c: Tensor) -> Tensor:
    return W.new_empty(c.shape[0], *W.shape)


def _fake_nothing(*_: object) -> None:
    return None


for _schema, _kernel, _fake in (
    (
        "coefficients(Tensor weights, Tensor lo, Tensor hi, Tensor columns, Tensor scale) -> (Tensor, Tensor)",
        _coefficients,
        _fake_coefficients,
    ),
    (f"merge(Tensor W, {_MERGE}) -> Tensor", _merge, _fake_merge),
    (f"merge_(Tensor(a!) W, {_MERGE}) -> ()", _merge_in_place, _fake_nothing),
    (f"merge_out(Tensor(a!) out, Tensor W, {_MERGE}) -> ()", _merge_out, _fake_nothing),
    (f"soup_linear_({_SOUP}) -> ()", _soup, _fake_nothing),
    (f"soup_linear_factor_({_SOUP}, int rank) -> ()", _soup, _fake_nothing),
):
    _name = _LIBRARY.define(_schema)
    for _key in ("CPU", "CUDA"):
        _LIBRARY.impl(_name, _kernel, _key)
    torch.library.register_fake(f"soupmix::{_name}", _fake, lib=_LIBRARY)
