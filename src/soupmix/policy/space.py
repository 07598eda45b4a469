"""Where weights live: the adapters of a policy as coordinates, and how distances and norms are measured."""

from dataclasses import dataclass
from fractions import Fraction

from soupmix.policy.quadratic import Matrix

__all__ = ["Space"]


@dataclass(frozen=True, slots=True)
class Space:
    """The adapters of a policy as coordinates, and how distances and norms are measured in it.

    Attributes:
        names: adapter names by index. metric: matrix of the distance that the clamp keeps small, None for Euclidean.
        gram: inner products of the adapters' deltas in integers, None if the store does not say.
        base: squared norm of the base weights that they change, in the units of `gram`.
    """

    names: tuple[str, ...]
    metric: Matrix | None = None
    gram: Matrix | None = None
    base: Fraction | None = None
