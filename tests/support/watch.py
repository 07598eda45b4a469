"""A compute-sanitizer for Triton's interpreter: every lane that is not masked off must hit an element of a tensor of its launch.

The interpreter reads and writes whatever an address points to, so a dropped mask usually goes unnoticed: the neighbour's value is
discarded later. Here the tensors that a launch was given, with their strides, are all that exists. The same hook counts traffic.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder

__all__ = ["OutOfBounds", "Traffic", "counting", "install"]


_Window = tuple[int, int, int, list[tuple[int, int]]]  # argument, address, item size, (byte stride, length) per axis


class OutOfBounds(Exception):
    """An address outside of every tensor of the launch."""


@dataclass(slots=True)
class Traffic:
    """What active lanes moved: (kernel, position of the tensor among its arguments) -> [loaded, stored].

    Attributes:
        lanes: bytes, as often as they were asked for. touched: distinct bytes, as [(address, size), ...].
    """

    lanes: dict[tuple[str, int], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    touched: dict[tuple[str, int], tuple[set[tuple[int, int]], set[tuple[int, int]]]] = field(
        default_factory=lambda: defaultdict(lambda: (set(), set()))
    )

    def distinct(self) -> dict[tuple[str, int], list[int]]:
        """Bytes, every element once."""
        return {key: [sum(size for _, size in places) for places in pair] for key, pair in self.touched.items()}


@dataclass(slots=True)
class _Launch:
    kernel: str
    windows: list[_Window]


_state: dict[str, Any] = {"launch": None, "traffic": None}


@contextmanager
def counting() -> Iterator[Traffic]:
    """Count the traffic of all launches inside."""
    _state["traffic"] = Traffic()
    try:
        yield _state["traffic"]
    finally:
        _state["traffic"] = None


def _windows(arguments: list[Any]) -> list[_Window]:
    found = []
    for number, tensor in enumerate(arguments):
        if isinstance(tensor, Tensor) and tensor.numel():
            size = tensor.element_size()
            axes = sorted(
                (
                    (stride * size, n)
                    for stride, n in zip(tensor.stride(), tensor.shape, strict=True)
                    if n > 1 and stride
                ),
                reverse=True,
            )
            found.append((number, tensor.data_ptr(), size, axes))
    return found


def _check(pointers: Any, mask: Any, stored: bool) -> None:
    launch = _state["launch"]
    addresses = np.asarray(pointers.data).astype(np.int64)
    if mask is not None:
        addresses = addresses[np.broadcast_to(np.asarray(mask.data, dtype=bool), addresses.shape)]
    flat = addresses.reshape(-1)
    inside = np.zeros(flat.shape, bool)
    for number, start, size, axes in launch.windows:
        offset = flat - start
        mine = offset >= 0
        for stride, length in axes:
            place = offset // stride
            mine &= (place >= 0) & (place < length)
            offset = offset - place * stride
        mine &= offset == 0
        inside |= mine
        if _state["traffic"] is not None and mine.any():
            _state["traffic"].lanes[launch.kernel, number][int(stored)] += int(mine.sum()) * size
            places = _state["traffic"].touched[launch.kernel, number][int(stored)]
            places.update((address, size) for address in np.unique(flat[mine]).tolist())
    if not inside.all():
        verb = "store" if stored else "load"
        raise OutOfBounds(
            f"{launch.kernel}: {verb} of {int((~inside).sum())} of {flat.size} lanes outside every tensor"
        )


def install() -> None:
    """Watch every launch of this process."""
    load, store, run = (
        InterpreterBuilder.create_masked_load,
        InterpreterBuilder.create_masked_store,
        GridExecutor.__call__,
    )

    def masked_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        _check(pointers, mask, stored=False)
        return load(self, pointers, mask, *rest)

    def masked_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        _check(pointers, mask, stored=True)
        return store(self, pointers, value, mask, *rest)

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        _state["launch"] = _Launch(self.fn.__name__, _windows([*arguments, *named.values()]))
        with np.errstate(all="ignore"):  # poisoned inputs are meant
            return run(self, *arguments, **named)

    InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store = masked_load, masked_store
    InterpreterBuilder.create_atomic_rmw = None  # no kernel of ours adds atomically: its sums would depend on the order
    GridExecutor.__call__ = call
