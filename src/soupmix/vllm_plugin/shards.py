"""Which part of an adapter a rank of tensor parallelism holds.

A layer that splits its outputs (column-parallel) holds its rows of B and all of A; one that splits its inputs (row-parallel)
holds its columns of A and all of B, and what it adds is summed over the ranks with the base's own part:

    y = sum_s x_s W_s^T + sum_s ((x_s A_s^T) * c) B^T        as (x A^T) = sum_s x_s A_s^T

so the soup is added before the sum, and c, the same on every rank, is applied on each. Where there are more ranks than key heads,
some ranks hold copies of one head ("replicas").
"""

from dataclasses import dataclass

from torch import Tensor

from soupmix.errors import BaseModelError

__all__ = ["Shard"]


@dataclass(frozen=True, slots=True)
class Shard:
    """A rank's part of one layer, which may be several layers of the base side by side.

    Attributes:
        inputs: in-features on this rank. widths: out-features of every slice on this rank.
        rank, ranks: which of how many. splits: what is split over them, "outputs", "inputs" or "nothing".
        replicas: of every slice, how many ranks hold the same outputs.
    """

    inputs: int
    widths: tuple[int, ...]
    rank: int = 0
    ranks: int = 1
    splits: str = "nothing"
    replicas: tuple[int, ...] = ()

    def down(self, A: Tensor) -> Tensor:
        """This rank's part of A [rank, in] -> [rank, inputs]."""
        if self.splits != "inputs":
            return self._whole(A, 1, self.inputs)
        return self._part(A, 1, self.inputs, self.rank, self.ranks)

    def up(self, B: Tensor, number: int) -> Tensor:
        """This rank's part of B [out, rank] of a slice -> [width, rank]."""
        width = self.widths[number]
        if self.splits != "outputs":
            return self._whole(B, 0, width)
        same = self.replicas[number] if self.replicas else 1
        return self._part(B, 0, width, self.rank // same, self.ranks // same)

    def _part(self, factor: Tensor, axis: int, size: int, number: int, parts: int) -> Tensor:
        self._whole(factor, axis, size * parts)
        return factor.narrow(axis, number * size, size)

    def _whole(self, factor: Tensor, axis: int, size: int) -> Tensor:
        if factor.shape[axis] != size:
            raise BaseModelError(
                f"a layer of the model that vLLM loaded has {size} {'inputs' if axis else 'outputs'}, and an adapter is for "
                f"{factor.shape[axis]}; serve the base of its adapters",
                reason="wrong-base",
            )
        return factor
