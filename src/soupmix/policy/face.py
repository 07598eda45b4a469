"""A convex part of a feasible set: what a point of it must satisfy, and the nearest of its points."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from soupmix.policy.active_set import minimise
from soupmix.policy.laminar import Forest
from soupmix.policy.norm import Ellipsoid, minimise_inside
from soupmix.policy.quadratic import Matrix, Quadratic
from soupmix.policy.rounding import round_inside
from soupmix.policy.rows import Row, Solution

__all__ = ["Face"]


@dataclass(frozen=True, slots=True)
class Face:
    """A convex part of a feasible set.

    Attributes:
        rows: what a point must satisfy. ball: the bound on the norm.
        forest: the same rows arranged for the closed form; None where groups overlap without nesting.
    """

    rows: tuple[Row, ...]
    ball: Ellipsoid | None
    forest: Forest | None = field(repr=False)

    def project(self, requested: Sequence[int], metric: Matrix | None) -> Solution | None:
        """The nearest point of this part, or None if it is empty."""
        if self.forest and metric is None:
            found = self.forest.project(requested)
            if found is None or self.ball is None or self.ball.norm(found) <= self.ball.limit:
                return found
        target = Quadratic.distance(requested, metric)
        return minimise(target, self.rows) if self.ball is None else minimise_inside(target, self.rows, self.ball)

    def holds(self, weights: Sequence[int]) -> bool:
        """Whether a point is in this part."""
        return all(row.holds(row.value(weights)) for row in self.rows) and (
            self.ball is None or self.ball.holds(weights)
        )

    def round(self, solution: Solution) -> tuple[int, ...] | None:
        """The nearest point in whole millionths beside a solution, or None."""
        granted = round_inside(solution, self.rows)
        return None if granted is None or (self.ball is not None and not self.holds(granted)) else granted
