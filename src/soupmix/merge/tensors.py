"""Tensors in and out of safetensors files by byte range, so that no more than a few blocks of one are in memory.

The header of a safetensors file precedes the tensors and only needs their dtypes and shapes, which are known before the
first tensor is made; so a model of any size is written front to back.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import torch
from torch import Tensor

from soupmix.base import TensorInfo
from soupmix.dtypes import WORDS, torch_dtype
from soupmix.errors import BaseModelError

__all__ = ["DTYPES", "Spec", "TensorReader", "header", "raw"]

DTYPES: Mapping[str, torch.dtype] = {code: torch_dtype(code) for code in WORDS}
_BLOCK = 2 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Spec:
    """A tensor about to be written: its name, dtype as safetensors spells it, shape, and size in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


def header(specs: Sequence[Spec]) -> bytes:
    """The first bytes of a safetensors file that holds these tensors in this order."""
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for spec in specs:
        table[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [at, at + spec.size]}
        at += spec.size
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, without a copy."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


class TensorReader:
    """Reads tensors of a base model by byte range. A context manager; files stay open until it ends.

    Nothing is memory-mapped: a mapped file that is cut short kills the process, and its pages count as memory.
    """

    def __init__(self) -> None:
        self._files: dict[Path, BinaryIO] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "TensorReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(self, info: TensorInfo) -> Tensor:
        """The whole tensor, in a buffer of its own. Raises as `open` and `read_into`."""
        held = torch.empty(info.end - info.start, dtype=torch.uint8)
        self.open(info)
        self.read_into(held, info, info.start)
        return held.view(DTYPES[info.dtype]).view(info.shape)

    def blocks(self, info: TensorInfo) -> Iterator[Tensor]:
        """The tensor's bytes in blocks of `_BLOCK`, each a flat uint8 tensor of its own. Raises as `open` and `read_into`."""
        self.open(info)
        for start in range(info.start, info.end, _BLOCK):
            block = torch.empty(min(_BLOCK, info.end - start), dtype=torch.uint8)
            self.read_into(block, info, start)
            yield block

    def read_into(self, held: Tensor, info: TensorInfo, start: int) -> None:
        """Fill a flat uint8 tensor with the bytes of the tensor's file from `start` on; in any thread, once it is open.

        Raises:
            BaseModelError: the file cannot be read ("unreadable"), or ends there ("truncated").
        """
        view, file, end = raw(held), self._files[info.file], start + len(held)
        while view:
            try:
                count = os.preadv(file.fileno(), [view], end - len(view))
            except OSError as error:
                raise _unreadable(info.file, error) from error
            if not count:
                raise BaseModelError(f"base model file {info.file} was cut short while it was read", reason="truncated")
            view = view[count:]

    def same(self, one: TensorInfo, other: TensorInfo) -> bool:
        """Whether two tensors are equal bit for bit."""
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            return False
        return all(torch.equal(a, b) for a, b in zip(self.blocks(one), self.blocks(other), strict=True))

    def open(self, info: TensorInfo) -> None:
        """Open the file of a tensor, unless it is. Raises BaseModelError ("unreadable")."""
        if info.file not in self._files:
            try:
                self._files[info.file] = self._stack.enter_context(info.file.open("rb"))
            except OSError as error:
                raise _unreadable(info.file, error) from error


def _unreadable(path: Path, error: OSError) -> BaseModelError:
    return BaseModelError(f"base model file {path} cannot be read: {error.strerror}", reason="unreadable")


def spec_of(name: str, info: TensorInfo, dtype: str | None) -> Spec:
    """How a base tensor will be written: float tensors in `dtype` if that is given, everything else as it is."""
    if dtype is None or info.dtype not in DTYPES:
        return Spec(name, info.dtype, info.shape, info.end - info.start)
    return Spec(name, dtype, info.shape, math.prod(info.shape) * DTYPES[dtype].itemsize)


def shards(specs: Iterable[Spec], limit: int) -> list[list[Spec]]:
    """Split in order so that no shard exceeds `limit` bytes, except one of a single larger tensor."""
    found: list[list[Spec]] = [[]]
    size = 0
    for spec in specs:
        if found[-1] and size + spec.size > limit:
            found.append([])
            size = 0
        found[-1].append(spec)
        size += spec.size
    return found
