"""The weights of a base in 8 or 4 bits: those of a GGUF file as it holds them, all others in the nearest blocks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from soupmix.base import Base, read_held
from soupmix.dtypes import HELD
from soupmix_kernels.compiled import KINDS, Blocks

__all__ = ["FewBits"]


@dataclass(frozen=True, slots=True, eq=False)
class FewBits:
    """Into which blocks the linear layers of a model go.

    Attributes:
        bits: what is asked for. own: module path -> the blocks of its GGUF file. taken: whose were used.
    """

    bits: int
    own: Mapping[str, Blocks]
    taken: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, base: Base, held: str) -> "FewBits":
        """For one of the names in `soupmix.dtypes.HELD`: a file's own blocks, unless most of its numbers have more bits."""
        own, bits, numbers = read_held(base), HELD[held], Counter[int]()
        for each in own.values():
            numbers[each.bits] += each.shape[0] * each.shape[1]
        wider = bool(own) and numbers.most_common(1)[0][0] > bits
        return cls(bits, {path: each for path, each in own.items() if each.bits <= bits or not wider})

    def blocks(self, paths: Sequence[str], weights: Sequence[Tensor]) -> Blocks:
        """The blocks of weights [out, in] one below the other, of the layers at these paths."""
        named = dict(zip(paths, weights, strict=True))
        own = {path: self.own[path] for path, weight in named.items() if self._has(path, weight)}
        if any(KINDS[each.kind].shifted for each in own.values()) and (
            len(own) < len(named) or len({each.kind for each in own.values()}) > 1
        ):
            own = {}  # these are computed together, and no kind of blocks is all of theirs
        self.taken.update(own)
        return Blocks.stack([own.get(path) or Blocks.of(weight, self.bits) for path, weight in named.items()])

    def _has(self, path: str, weight: Tensor) -> bool:
        found = self.own.get(path)
        return found is not None and found.shape == tuple(weight.shape)
