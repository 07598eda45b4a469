"""The merged update of one linear layer whose entries were chosen one by one, so that no factors give it exactly."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from soupmix.merge.stack import Stack
from soupmix.public import public
from soupmix.store.adapter import LayerForm

__all__ = ["Entries", "Merged"]


@public
@dataclass(frozen=True, slots=True, repr=False)
class Entries:
    """A whole matrix, which is made when it is asked for and not kept: one layer is in memory at a time.

    Attributes:
        shape: (out, in) of the layer.
        rank: sum of the ranks of the adapters; an adapter of it has as many columns where nothing else is asked for.
        make: the matrix [out, in] fp32, the same whenever it is called.
        scale: what it is multiplied by.
    """

    shape: tuple[int, int]
    rank: int
    make: Callable[[], Tensor]
    scale: float = 1.0

    @property
    def gain(self) -> None:
        """As `Stack.gain`: nothing."""
        return None

    @property
    def kind(self) -> LayerForm:
        """As `Stack.kind`."""
        return "linear"

    def matrix(self) -> Tensor:
        """The update [out, in] fp32."""
        made = self.make()
        return made if self.scale == 1.0 else made.mul_(self.scale)

    def transposed(self) -> "Entries":
        """The update the other way round."""
        return Entries((self.shape[1], self.shape[0]), self.rank, lambda: self.matrix().T.contiguous())

    def rows(self, first: int, count: int) -> "Entries":
        """Some rows of the update."""
        return Entries((count, self.shape[1]), self.rank, lambda: self.matrix()[first : first + count].clone())

    def scaled_by(self, factor: float) -> "Entries":
        """The update times a factor."""
        return replace(self, scale=self.scale * factor)

    @property
    def norm(self) -> float:
        """Frobenius norm; makes the matrix."""
        return float(torch.linalg.vector_norm(self.matrix(), dtype=torch.float64))

    def __repr__(self) -> str:
        return f"<Entries of {self.shape[1]} -> {self.shape[0]}>"


Merged = Stack | Entries
"""The merged update of one layer: in factors, or as entries of a matrix."""
