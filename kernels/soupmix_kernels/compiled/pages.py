"""Tensors in large pages: a step reads all weights once, and looks up an address every 2 MB instead of every 4 KB."""

import mmap
from collections.abc import Iterable
from contextlib import suppress

import torch
from torch import Tensor

__all__ = ["LargePages"]

_PAGE = 2 << 20
_LINE = 64


class LargePages:
    """Memory for copies of tensors, one behind the other, in pages of 2 MB where the system has them; else it copies nothing.

    It lives as long as one of the copies.

    Args:
        tensors: what will be copied, in the order in which it is read.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        size = sum(_length(each) for each in tensors)
        self._left: Tensor | None = None
        self._at = 0
        if size and hasattr(mmap, "MADV_HUGEPAGE"):
            memory = mmap.mmap(-1, size + 2 * _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            with suppress(OSError):  # a system that has none
                memory.madvise(mmap.MADV_HUGEPAGE)
                self._left = torch.frombuffer(memory, dtype=torch.uint8)
                self._at = -self._left.data_ptr() % _PAGE

    def copy(self, tensor: Tensor) -> Tensor:
        """The tensor in this memory, row by row, or the tensor itself where there is no such memory.

        Raises:
            ValueError: there is no room left.
        """
        if self._left is None or not tensor.numel():
            return tensor
        size = tensor.numel() * tensor.element_size()
        if self._at + size > len(self._left):
            raise ValueError(f"{size} bytes do not fit into {len(self._left) - self._at}")
        made = self._left[self._at : self._at + size].view(tensor.dtype).view(tensor.shape).copy_(tensor)
        self._at += _length(tensor)
        return made


def _length(tensor: Tensor) -> int:
    return -(-tensor.numel() * tensor.element_size() // _LINE) * _LINE
