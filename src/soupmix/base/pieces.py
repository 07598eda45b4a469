"""Where the rows of every expert of a weight of experts lie on disk.

transformers makes one parameter of three dimensions of them, and files hold it whole, or a tensor for each expert and projection.
Its own conversion says which: it is run on thin tensors that hold the numbers of their rows, and on such of their columns.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from soupmix.base.layers import Layer, LayerTable
from soupmix.base.safetensors import TensorInfo
from soupmix.errors import BaseModelError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Piece", "pieces_of"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of a tensor on disk, seen as a matrix, that are rows of one expert.

    Attributes:
        path: of the weight. expert: its number. tensor: name on disk. at: the first of these rows in the tensor.
        first: the first of them in the expert's matrix as the parameter has it, [outputs, inputs] or transposed.
        count: how many there are.
    """

    path: str
    expert: int
    tensor: str
    at: int
    first: int
    count: int


def pieces_of(table: LayerTable, layer: Layer, tensors: Mapping[str, TensorInfo]) -> Sequence[Piece]:
    """The pieces of a weight of experts, expert by expert and row by row; together they are every number of it.

    Args:
        layer: of kind "experts". tensors: what is on disk, by name.

    Raises:
        BaseModelError: it lies in no whole rows, or with other weights in one tensor (reason "in-pieces").
    """
    rows, columns = layer.stored_shape[1:]
    infos = [tensors[name] for name in layer.tensors]
    if layer.lies == "whole" and infos[0].shape == layer.stored_shape:
        return [Piece(layer.path, number, layer.tensors[0], number * rows, 0, rows) for number in range(layer.experts)]
    if layer.lies == "stacked" and all(len(info.shape) == 2 and info.shape[1] == columns for info in infos):
        found = list(_found(table, layer, [info.shape[0] for info in infos], rows, columns))
        if sum(piece.count for piece in found) == sum(info.shape[0] for info in infos) == rows * layer.experts:
            return found
    raise BaseModelError(
        f"the base holds the experts {layer.path} in pieces that are no rows ({', '.join(layer.tensors[:1])}), and soupmix "
        "folds into rows: fold the adapter in with PEFT's merge_and_unload, and use the result as a base",
        reason="in-pieces",
    )


def _found(table: LayerTable, layer: Layer, heights: Sequence[int], rows: int, columns: int) -> Iterator[Piece]:
    """Runs of rows that follow one another on disk and in the parameter; none if the conversion does anything else."""
    import torch

    starts = [sum(heights[:number]) for number in range(len(heights))]
    by_row = {
        name: torch.arange(start, start + height)[:, None]
        for name, start, height in zip(layer.tensors, starts, heights, strict=True)
    }
    by_column = {name: torch.arange(columns)[None] for name in layer.tensors}
    numbers = _converted(table, layer, by_row)
    held = _converted(table, layer, by_column)
    plain = numbers.shape == (layer.experts, rows, 1) and held.dim() == 3 and held.shape[2] == columns
    if not plain or not bool((held == torch.arange(columns)).all()):
        return
    at = numbers[:, :, 0]  # [experts, rows]
    owner = torch.bucketize(at, torch.tensor(starts[1:], dtype=at.dtype), right=True)
    begins = torch.ones(at.shape, dtype=torch.bool)
    begins[:, 1:] = (at.diff() != 1) | (owner.diff() != 0)
    runs = zip(begins.nonzero().tolist(), at[begins].tolist(), owner[begins].tolist(), strict=True)
    for ((expert, row), number, held_by), ((other, end), *_) in pairwise([*runs, ((-1, 0), 0, 0)]):
        count = (end if other == expert else rows) - row
        yield Piece(layer.path, expert, layer.tensors[held_by], number - starts[held_by], row, count)


def _converted(table: LayerTable, layer: Layer, tensors: "Mapping[str, Tensor]") -> "Tensor":
    return table.parameters(layer, tensors)[layer.parameter]
