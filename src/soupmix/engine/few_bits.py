"""The weights of a base in 8 or 4 bits: those of a GGUF file as it holds them, all others in the nearest blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from soupmix.base import Base
from soupmix.dtypes import HELD
from soupmix_kernels.compiled import Blocks

__all__ = ["FewBits"]


@dataclass(frozen=True, slots=True, eq=False)
class FewBits:
    """Into which blocks the linear layers of a model go.

    Attributes:
        bits: what is asked for. own: module path -> the blocks of its GGUF file, of no more bits. taken: whose were used.
    """

    bits: int
    own: Mapping[str, Blocks]
    taken: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, base: Base, held: str) -> "FewBits":
        """For one of the names in `soupmix.dtypes.HELD`."""
        bits = HELD[held]
        return cls(bits, {path: blocks for path, blocks in base.held().items() if blocks.bits <= bits})

    def blocks(self, paths: Sequence[str], weights: Sequence[Tensor]) -> Blocks:
        """The blocks of weights [out, in] one below the other, of the layers at these paths."""
        own = {path: self.own[path] for path, weight in zip(paths, weights, strict=True) if self._is_of(path, weight)}
        self.taken.update(own)
        return Blocks.stack(
            [own.get(path) or Blocks.of(weight, self.bits) for path, weight in zip(paths, weights, strict=True)]
        )

    def _is_of(self, path: str, weight: Tensor) -> bool:
        found = self.own.get(path)
        return found is not None and found.shape == tuple(weight.shape)
