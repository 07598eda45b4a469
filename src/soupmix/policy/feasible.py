"""What a policy lets through for one kind of request, as a set that can be asked, walked and drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from soupmix.policy.adapters import check_names
from soupmix.projection import Exact, Region, extent, sample, scaled, vertices_of
from soupmix.projection.time_budget import time_budget
from soupmix.public import public
from soupmix.weights import Weights

__all__ = ["Asked", "FeasibleSet"]

Asked = Weights | Mapping[str, int | float | str] | str
"""Weights, or whatever `Weights` takes."""

_SECONDS = 5.0  # of a projection, an extent, all vertices, a point of a sample


@public
@dataclass(frozen=True, slots=True, eq=False)
class FeasibleSet:
    """All weights that a policy lets through for requests that say of themselves what was said to `Policy.feasible`.

    A union of convex sets, one unless the policy has rules of choices (`exclusive`, `combinations`). It grants nothing, and it is
    of the moment at which it was asked for: a document may end later.

    Attributes:
        names: the adapters, sorted; points without names are in this order.
        policy_digest: of the policy.
    """

    names: tuple[str, ...]
    policy_digest: str
    _region: Region = field(repr=False)

    def contains(self, point: "Asked | Sequence[Exact]") -> bool:
        """Whether a point is in the set, decided exactly.

        Args:
            point: weights, those that are not named being 0; or exact millionths, one a name, in the order of `names`.

        Raises:
            WeightError: not weights, or an adapter that the policy does not know (reason "unknown-adapter").
            ValueError: not as many millionths as there are names.
            TypeError: the millionths are not exact numbers.
        """
        if isinstance(point, Mapping | str):
            return self._region.holds(self._asked(point))
        if len(point) != len(self.names):
            raise ValueError(f"a point of this set has {len(self.names)} millionths, not {len(point)}")
        if not all(isinstance(value, int | Fraction) for value in point):
            raise TypeError("a point is exact millionths, whole numbers or fractions; weights go by name")
        exact = dict(zip(self.names, point, strict=True))
        return self._region.holds(*scaled([exact[name] for name in self._region.space.names]))

    def nearest(self, weights: Asked) -> Weights:
        """The point of the set that is nearest to `weights`, without zeros: what `Policy.clamp` grants, unless a rule refuses.

        Raises:
            WeightError: not weights, or an adapter that the policy does not know (reason "unknown-adapter").
            PolicyRefusal: it takes more than five seconds ("too-slow"), or no whole millionths are near ("no-integer-point").
        """
        with time_budget(_SECONDS):
            found = self._region.project(self._asked(weights)).weights
        return self._named(found)

    def bounds(self) -> dict[str, tuple[int, int]]:
        """Least and most of every weight in millionths, the other weights being whatever that takes.

        Both are attained by a whole point of the set. They are the exact ends where groups nest or are disjoint; where groups
        overlap, or a norm is bounded, an end may be up to 12 millionths off.

        Raises:
            PolicyRefusal: no whole millionths were found near an end (reason "no-integer-point"), or a weight takes more than
                five seconds ("too-slow").
        """
        place = {name: index for index, name in enumerate(self._region.space.names)}
        return {name: self._extent(place[name]) for name in self.names}

    def most(self, name: str) -> int:
        """The most that a weight can be in millionths. Raises as `bounds` does, and WeightError for an unknown adapter."""
        check_names([name], self.names)
        return self._extent(self._region.space.names.index(name))[1]

    def vertices(self) -> tuple[tuple[Exact, ...], ...]:
        """The extreme points of every convex part, in exact millionths in the order of `names`, each once, sorted.

        Where groups overlap without nesting, some are fractions of millionths. A bound on the norm is round, so that there are
        infinitely many: then a vertex of the other bounds that is beyond it is replaced by the nearest whole point of the set.

        Raises:
            PolicyRefusal: a convex part has more than 2,048 (reason "too-many-vertices"), it takes more than five seconds
                ("too-slow"), or no whole millionths are near where a norm is bounded ("no-integer-point").
        """
        order = [self._region.space.names.index(name) for name in self.names]
        with time_budget(_SECONDS):
            found = vertices_of(self._region)
        return tuple(sorted(tuple(each[index] for index in order) for each in found))

    def sample(self, count: int, seed: int) -> tuple[Weights, ...]:
        """Random points of the set, without zeros.

        Every convex part is drawn with the same chance, and a point within it approximately uniformly (hit-and-run). The same
        seed gives the same points, and the first ones of a longer sample.

        Args:
            count: how many.
            seed: any whole number.

        Raises:
            PolicyRefusal: there are no whole millionths near a point (reason "no-integer-point"), or it takes more than five
                seconds a point ("too-slow").
        """
        with time_budget(_SECONDS * max(count, 1)):
            return tuple(self._named(each) for each in sample(self._region, count, seed))

    def _extent(self, index: int) -> tuple[int, int]:
        with time_budget(_SECONDS):
            return extent(self._region, index)

    def _asked(self, weights: Asked) -> tuple[int, ...]:
        parsed = Weights(weights)
        check_names(parsed, self.names)
        return parsed.along(self._region.space.names)

    def _named(self, point: Sequence[int]) -> Weights:
        return Weights.unchecked(dict(zip(self._region.space.names, point, strict=True))).nonzero()

    def __repr__(self) -> str:
        parts = len(self._region.faces)
        shape = "convex" if parts == 1 else f"a union of {parts} convex parts"
        return f"<FeasibleSet of {len(self.names)} adapters, {shape}, under {self.policy_digest[:19]}...>"
