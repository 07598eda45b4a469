"""The ops as torch sees them: schemas, fake kernels for tracing, and the backend that computes.

Tracing, CUDA graphs and other servers call ops, not functions: these take tensors and plain numbers only, allocate by shapes
alone and, on a GPU, never wait for the device. Triton computes on CUDA and HIP devices, torch on the CPU, or what SOUPMIX_KERNELS
names.
"""

import functools
import importlib.util
import os
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from soupmix_kernels import checks, cpu, reference

__all__ = ["BACKENDS", "backend_for"]

BACKENDS = ("auto", "reference", "torch", "triton")
_LIBRARY = torch.library.Library("soupmix", "DEF")
_SOUP = "Tensor(a!) y, Tensor x, Tensor A, Tensor B, Tensor c, Tensor rows, int[] widths"
_MERGE = "Tensor A, Tensor B, Tensor c"


def backend_for(device: torch.device) -> str:
    """ "reference", "torch" or "triton" for tensors on this device.

    SOUPMIX_KERNELS=auto (the default) takes Triton on CUDA and HIP devices where it is installed, torch elsewhere.
    `triton` on the CPU needs TRITON_INTERPRET=1, set before Python starts.

    Raises:
        ValueError: SOUPMIX_KERNELS names no backend.
        RuntimeError: `triton` was asked for and cannot run here.
    """
    asked = os.environ.get("SOUPMIX_KERNELS", "auto") or "auto"
    if asked not in BACKENDS:
        raise ValueError(f"SOUPMIX_KERNELS={asked} names no backend; choose one of {', '.join(BACKENDS)}")
    if asked == "auto":
        return "triton" if device.type == "cuda" and _installed() else "torch"
    if asked == "triton":
        _check_triton(device)
    return asked


@functools.cache
def _installed() -> bool:
    found = importlib.util.find_spec("triton") is not None
    if not found:
        warnings.warn(
            "triton is not installed, so the torch implementation runs on this GPU; pip install triton", stacklevel=4
        )
    return found


def _check_triton(device: torch.device) -> None:
    if importlib.util.find_spec("triton") is None:
        raise RuntimeError("SOUPMIX_KERNELS=triton was asked for, but triton is not installed; pip install triton")
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError(
            f"SOUPMIX_KERNELS=triton was asked for with tensors on {device.type}, where Triton only runs in its "
            "interpreter; set TRITON_INTERPRET=1 before Python starts, or SOUPMIX_KERNELS=torch"
        )


def _backend(device: torch.device) -> tuple[str, ModuleType]:
    name = backend_for(device)
    if name == "triton":
        from soupmix_kernels.jit import launch

        return name, launch
    return name, reference if name == "reference" else cpu


def _coefficients(weights: Tensor, lo: Tensor, hi: Tensor, columns: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    checks.check_coefficients(weights, lo, hi, columns, scale)
    _, backend = _backend(weights.device)
    found: tuple[Tensor, Tensor] = backend.coefficients(weights, lo, hi, columns, scale)
    return found


def _fold(out: Tensor, W: Tensor, A: Tensor, B: Tensor, c: Tensor) -> None:
    name, backend = _backend(W.device)
    if name == "reference":
        out.copy_(reference.merge(W, A, B, c))
    else:
        backend.merge_into(out, W, A, B, c)


def _merge(W: Tensor, A: Tensor, B: Tensor, c: Tensor) -> Tensor:
    checks.check_merge(None, W, A, B, c)
    out = W.new_empty(c.shape[0], *W.shape)
    _fold(out, W, A, B, c)
    return out


def _merge_out(out: Tensor, W: Tensor, A: Tensor, B: Tensor, c: Tensor) -> None:
    checks.check_merge(out, W, A, B, c)
    _fold(out, W, A, B, c)


def _merge_in_place(W: Tensor, A: Tensor, B: Tensor, c: Tensor) -> None:
    if c.dim() == 2 and c.shape[0] != 1:
        raise ValueError(f"one person can be merged in place, not {c.shape[0]}")
    _merge_out(W[None], W, A, B, c)


def _soup(
    y: Tensor, x: Tensor, A: Tensor, B: Tensor, c: Tensor, rows: Tensor, widths: Sequence[int], rank: int = 0
) -> None:
    checks.check_soup(y, x, A, B, c, rows, widths, rank)
    name, backend = _backend(x.device)
    if name != "reference":
        backend.soup_into(y, x, A, B, c, rows, widths, rank)
    elif rank:
        y.copy_(reference.soup_linear_factor(y, x, A, B, c, rows, widths, rank))
    else:
        y.copy_(reference.soup_linear(y, x, A, B, c, rows, widths))


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


def _named(op: OpOverload, given: Sequence[object]) -> dict[str, Tensor]:
    named = zip(op._schema.arguments, given, strict=True)
    return {argument.name: each for argument, each in named if isinstance(each, Tensor)}


def _traced(op: OpOverload, fake: Callable[..., object]) -> Callable[..., object]:
    """A tensor without memory among others that have some is a mistake, not a trace: nothing would be computed."""

    def trace(*given: object) -> object:
        checks.check_device(_named(op, given))
        return fake(*given)

    return trace


def _refuse_gradients(op: OpOverload) -> Callable[..., object]:
    """For the key Autograd: without it a gradient would silently be that of the base alone."""

    def refuse(keys: torch._C.DispatchKeySet, *given: Any) -> object:
        checks.check_no_gradient(op.__name__.partition(".")[0], _named(op, given))
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keys & torch._C._after_autograd_keyset, *given)

    return refuse


def _tell_writes(op: OpOverload) -> Callable[..., object]:
    """For the key ADInplaceOrView: whoever kept a tensor for a gradient of their own learns that it was written."""
    written = [number for number, argument in enumerate(op._schema.arguments) if argument.alias_info]

    def tell(keys: torch._C.DispatchKeySet, *given: Any) -> object:
        for number in written:
            torch.autograd.graph.increment_version(given[number])
        with torch._C._AutoDispatchBelowADInplaceOrView():
            return op.redispatch(keys & torch._C._after_ADInplaceOrView_keyset, *given)

    return tell


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
    _op = getattr(torch.ops.soupmix, _name).default
    torch.library.register_fake(f"soupmix::{_name}", _traced(_op, _fake), lib=_LIBRARY)
    _LIBRARY.impl(_name, _refuse_gradients(_op), "Autograd", with_keyset=True)
    _LIBRARY.impl(_name, _tell_writes(_op), "ADInplaceOrView", with_keyset=True)
