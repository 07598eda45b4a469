"""Tensors of a base become tensors of the result block by block: read, folded or cast, and measured while they are at hand.

A block of two megabytes goes from the bytes of one file to those of the other in a core's cache, in one thread, in
buffers that stay. How blocks are cut follows from the shapes alone, and torch is held to one thread within a block, so that no
byte and no measure depends on how many threads there are.
"""

import contextlib
import math
import mmap
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor

import soupmix_kernels
from soupmix.base import TensorInfo
from soupmix.errors import OutputError
from soupmix.merge.entries import Entries, Merged
from soupmix.merge.gguf_layout import reordered
from soupmix.merge.parts import Norms
from soupmix.merge.sink import PENDING, Stream
from soupmix.merge.stack import Stack
from soupmix.merge.tensors import DTYPES, Spec, TensorReader, raw

__all__ = ["Folding", "Patch", "Work"]

_AT_ONCE = 2 << 20  # bytes of a block
_PAGE = 2 << 20
_IN_CACHE = (
    512 << 10
)  # bytes of a base that are folded at a time: with their sum in fp32 they stay in a core's own cache
_FEWEST_ROWS = 32
_MOST_THREADS = 8  # with more, hashing takes longest


@dataclass(frozen=True, slots=True)
class Work:
    """How a model is worked, of which none of its bytes depends.

    Attributes:
        workers: how many blocks are made at a time, in threads; None: as many as torch has. Eight at most.
        tell: is told how many bytes of tensors are made, and of how many.
    """

    workers: int | None = None
    tell: Callable[[int, int], None] = lambda done, total: None

    @property
    def threads(self) -> int:
        """See `workers`."""
        return min(self.workers or torch.get_num_threads(), _MOST_THREADS)


@dataclass(frozen=True, slots=True)
class Patch:
    """What is added to some rows of a tensor, seen as a matrix [rows, columns].

    Attributes:
        module: path of the layer whose delta it is.
        first: the first of these rows.
        stack: the delta as it lies in the tensor, [its rows, columns].
    """

    module: str
    first: int
    stack: Merged


@dataclass(frozen=True, slots=True)
class _Block:
    """Bytes [start, end) of a tensor's file; with a patch, whole rows, of which the first is row `first` of its update; with
    `per_head` whole heads of so many rows, which change places."""

    spec: Spec
    info: TensorInfo
    start: int
    end: int
    patch: Patch | None = None
    delta: "_Delta | None" = None
    first: int = 0
    per_head: int | None = None


@dataclass(frozen=True, slots=True)
class _Delta:
    """What a patch adds: its update, and the norm of every row [rows] fp32; None where only the sum tells (gains of a DoRA)."""

    update: soupmix_kernels.Update | Tensor
    sizes: Tensor | None


@dataclass(frozen=True, slots=True)
class _Made:
    """A block of the result: its bytes, and the norms of its rows, lost and delta; None where nothing was folded."""

    piece: memoryview
    norms: Tensor | None


class _Buffer:
    """Memory that grows and stays."""

    def __init__(self) -> None:
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def take(self, count: int, dtype: torch.dtype = torch.uint8) -> Tensor:
        """`count` values of any content, one-dimensional; what was taken before is overwritten."""
        size = count * dtype.itemsize
        if len(self._bytes) < size:
            self._bytes = _memory(size)
        return self._bytes[:size].view(dtype)


class _Scratch(threading.local):
    """The buffers of one thread: what was read, its sum with the delta in fp32, and how far the two are apart."""

    def __init__(self) -> None:
        self.read, self.merged, self.apart = _Buffer(), _Buffer(), _Buffer()


class Folding:
    """Makes the tensors of a model and hands them to streams in order. A context manager, in which torch must have one thread.

    Args:
        reader: of the base. threads: how many blocks are made at a time.
    """

    def __init__(self, reader: TensorReader, threads: int) -> None:
        self._reader, self._ahead = reader, threads + 1
        self._threads = ThreadPoolExecutor(threads)
        self._scratch = _Scratch()
        self._free = [_Buffer() for _ in range(self._ahead + PENDING)]
        self._making: deque[tuple[Future[_Made], _Block, _Buffer]] = deque()
        self._norms: dict[str, list[Tensor]] = {}

    def __enter__(self) -> "Folding":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    def write(
        self,
        stream: Stream,
        spec: Spec,
        info: TensorInfo,
        patches: Sequence[Patch] = (),
        per_head: int | None = None,
    ) -> None:
        """Have a tensor made and appended; `finish` waits for it.

        Args:
            spec: how it is written. info: where it is. patches: what is added to it, by first row, no two to one row.
            per_head: rows of a head, if their order is llama.cpp's; see `soupmix.merge.gguf_layout.reordered`.

        Raises:
            BaseModelError: its file cannot be read. OutputError: a value does not fit the written dtype ("overflow").
            OSError: the disk refused an earlier piece.
        """
        self._reader.open(info)
        for block in _blocks(spec, info, patches, per_head):
            if len(self._making) == self._ahead:
                self._hand_over(stream)
            buffer = self._free.pop()
            self._making.append((self._threads.submit(self._make, block, buffer), block, buffer))

    def finish(self, stream: Stream) -> None:
        """Append all that is still being made. Raises as `write` does."""
        while self._making:
            self._hand_over(stream)

    def norms(self) -> Norms:
        """What was folded since this was last asked. Rows in fp32, their sum in float64."""
        found: dict[str, tuple[float, float]] = {}
        for module, parts in self._norms.items():
            lost, delta = torch.cat(parts, dim=1).double()
            found[module] = torch.linalg.vector_norm(lost).item(), torch.linalg.vector_norm(delta).item()
        self._norms.clear()
        return found

    def _hand_over(self, stream: Stream) -> None:
        future, block, buffer = self._making.popleft()
        made = future.result()
        if block.patch is not None and made.norms is not None:
            self._norms.setdefault(block.patch.module, []).append(made.norms)
        stream.write(made.piece, lambda: self._free.append(buffer))

    def _make(self, block: _Block, buffer: _Buffer) -> _Made:
        if block.patch is not None and block.delta is not None:
            return self._folded(block, block.patch, block.delta, buffer)
        size = block.end - block.start
        if block.spec.dtype == block.info.dtype:
            copied = buffer.take(size)
            self._reader.read_into(copied, block.info, block.start)
            return _Made(raw(_in_order(copied, block)), None)
        values = self._read(block)
        rounded = buffer.take(len(values), DTYPES[block.spec.dtype]).copy_(values)
        _check_finite(rounded, block.spec)
        return _Made(raw(_in_order(rounded, block)), None)

    def _read(self, block: _Block) -> Tensor:
        """The numbers of a block as they are stored."""
        held = self._scratch.read.take(block.end - block.start)
        self._reader.read_into(held, block.info, block.start)
        return held.view(DTYPES[block.info.dtype])

    def _folded(self, block: _Block, patch: Patch, delta: _Delta, buffer: _Buffer) -> _Made:
        """W + delta with fp32 accumulation, rounded once; and how much of the delta the rounding lost."""
        stored = self._read(block).view(-1, patch.stack.shape[1])
        rounded = buffer.take(stored.numel(), DTYPES[block.spec.dtype]).view(stored.shape)
        norms = torch.zeros(2, len(stored))
        row = stored.shape[1] * stored.element_size()
        for first, end in _row_blocks(len(stored), row, at_once=_IN_CACHE):
            part = slice(first, end)
            self._fold(stored[part], rounded[part], norms[:, part], patch, delta, block.first + first)
        if not math.isfinite(norms.sum().item()):
            _check_finite(rounded, block.spec)
        return _Made(raw(_in_order(rounded, block)), norms)

    def _fold(
        self,
        stored: Tensor,
        rounded: Tensor,
        norms: Tensor,
        patch: Patch,
        delta: _Delta,
        first: int,
    ) -> None:
        """Some rows of a block, the first of which is row `first` of the update."""
        shape, count, update = stored.shape, stored.numel(), delta.update
        merged = self._scratch.merged.take(count, torch.float32).view(shape).copy_(stored)
        if isinstance(update, Tensor):
            merged.add_(update[first : first + len(stored)])
        else:
            soupmix_kernels.merge_rows_(merged, update, first)
        if (gain := patch.stack.gain) is not None:
            weight = self._scratch.apart.take(count, torch.float32).view(shape).copy_(stored)
            merged.addcmul_(weight, gain if len(gain) == 1 else gain[first : first + len(weight)])
        rounded.copy_(merged)
        if delta.sizes is None:
            self._distances(merged, stored, norms[1])
        else:
            norms[1] = delta.sizes[first : first + len(stored)]
        if rounded.dtype is not merged.dtype:
            self._distances(merged, rounded, norms[0])

    def _distances(self, merged: Tensor, other: Tensor, found: Tensor) -> None:
        """Norm of the difference in every row, in fp32."""
        apart = self._scratch.apart.take(merged.numel(), torch.float32).view(merged.shape).copy_(other)
        torch.linalg.vector_norm(torch.sub(merged, apart, out=apart), dim=-1, out=found)


def _memory(size: int) -> Tensor:
    """Bytes in huge pages, where the system has some: finding small ones takes a tenth of the time of all that is done here."""
    held = mmap.mmap(-1, size + _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            held.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(held, dtype=torch.uint8)
    start = -whole.data_ptr() % _PAGE
    return whole[start : start + size]


def _blocks(spec: Spec, info: TensorInfo, patches: Sequence[Patch], per_head: int | None) -> Iterator[_Block]:
    """A tensor cut into blocks in order: at the ends of patches, and into whole rows of them, or whole heads."""
    at = info.start
    for patch in patches:
        rows, columns = patch.stack.shape
        delta = _delta(patch.stack)
        row = columns * DTYPES[info.dtype].itemsize
        start = info.start + patch.first * row
        yield from _plain(spec, info, at, start)
        for first, end in _row_blocks(rows, row, per_head or 1):
            yield _Block(spec, info, start + first * row, start + end * row, patch, delta, first, per_head)
        at = start + rows * row
    if per_head is None or patches:
        yield from _plain(spec, info, at, info.end)
        return
    row = (info.end - info.start) // info.shape[0]
    for first, end in _row_blocks(info.shape[0], row, per_head):
        yield _Block(spec, info, info.start + first * row, info.start + end * row, per_head=per_head)


def _row_blocks(rows: int, row: int, unit: int = 1, at_once: int | None = None) -> Iterator[tuple[int, int]]:
    """Rows of `row` bytes, [first, end) in turn, whole units of them. Blocks of a few rows would be summed in another order than
    a whole matrix is."""
    step, first = max(_FEWEST_ROWS, (at_once or _AT_ONCE) // row // _FEWEST_ROWS * _FEWEST_ROWS), 0
    step = -(-step // unit) * unit
    while first < rows:
        end = rows if rows - first - step < _FEWEST_ROWS else first + step
        yield first, end
        first = end


def _in_order(made: Tensor, block: _Block) -> Tensor:
    """A block with its rows in the order in which they are written."""
    if block.per_head is None:
        return made
    row = (block.info.end - block.info.start) // block.info.shape[0]
    rows = made.view((block.end - block.start) // row, -1)
    return made.copy_(reordered(rows, block.per_head).reshape(made.shape))


def _plain(spec: Spec, info: TensorInfo, start: int, end: int) -> Iterator[_Block]:
    for first in range(start, end, _AT_ONCE):
        yield _Block(spec, info, first, min(first + _AT_ONCE, end))


def _delta(stack: Merged) -> _Delta:
    """What is added; entries are made when the first block needs them, and forgotten with the last one."""
    if isinstance(stack, Entries):
        matrix = stack.matrix()
        return _Delta(matrix, torch.linalg.vector_norm(matrix, dim=-1))
    return _Delta(_update(stack), None if stack.gain is not None else _sizes(stack))


def _sizes(stack: Stack) -> Tensor:
    """Norms of the rows of (B * c) A, by products of factors alone: |b A|^2 = b (A A^T) b^T."""
    A, B = stack.A.double(), stack.scaled()
    return ((B @ (A @ A.T)) * B).sum(1).clamp_(min=0.0).sqrt_().float()


def _update(stack: Stack) -> soupmix_kernels.Update:
    """The update of one person; the kernel holds the weights to [0, 1] once more, which every grant obeys."""
    weights, scale = stack.weights.float(), stack.scale.float()
    columns = torch.arange(stack.rank, dtype=torch.int32)
    held = soupmix_kernels.coefficients(
        weights[None], torch.zeros_like(weights), torch.ones_like(weights), columns, scale
    )
    return soupmix_kernels.Update(stack.A, stack.B, held)


def _check_finite(tensor: Tensor, spec: Spec) -> None:
    if not torch.isfinite(tensor).all():
        raise OutputError(
            f"{spec.name} holds values that do not fit {spec.dtype}; write the model with --dtype fp32 or bf16",
            reason="overflow",
        )
