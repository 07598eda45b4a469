"""The convex parts of a feasible set, called faces here: choices of supports make it a union of them, else it is one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isqrt

from soupmix.errors import PolicyError
from soupmix.projection.active_set import minimise
from soupmix.projection.constraints import Choice, Constraint, Row, several
from soupmix.projection.laminar import Forest
from soupmix.projection.norm import Ellipsoid, minimise_inside
from soupmix.projection.quadratic import Matrix, Quadratic
from soupmix.projection.rounding import round_inside
from soupmix.projection.solution import Solution
from soupmix.projection.time_budget import check_time

__all__ = ["Face", "resolve"]

_STEPS = 12
_MOST = 512
_MOST_MET = 1 << 15


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

    def holds(self, weights: Sequence[int], scale: int = 1) -> bool:
        """Whether weights / scale, in millionths, are a point of this part."""
        return all(row.holds(row.value(weights), scale) for row in self.rows) and (
            self.ball is None or self.ball.holds(weights, scale)
        )

    def round(self, solution: Solution) -> tuple[int, ...] | None:
        """The nearest point in whole millionths beside a solution, or None."""
        granted = round_inside(solution, self.rows)
        return None if granted is None or (self.ball is not None and not self.holds(granted)) else granted

    def whole(self, requested: Sequence[int], solution: Solution, metric: Matrix | None) -> tuple[int, ...] | None:
        """A point in whole millionths beside `solution`, which is the nearest point to `requested`; None if none was found.

        Rounding may leave the ball by a hair: then the nearest point of a smaller ball is rounded.
        """
        weights, step = self.round(solution), 0
        while weights is None and self.ball is not None and step < _STEPS:
            inner = Face(self.rows, _smaller(self.ball, step), self.forest)
            again, step = inner.project(requested, metric), step + 1
            weights = None if again is None else self.round(again)
        return weights


def _smaller(ball: Ellipsoid, step: int) -> Ellipsoid:
    """A ball with a smaller radius: less by an eighth of what a millionth of the longest delta adds, doubled at every step."""
    longest = max((row[index] for index, row in enumerate(ball.gram)), default=0)
    return Ellipsoid(ball.gram, max(isqrt(ball.limit) - ((isqrt(longest) + 1) << step) // 8, 0) ** 2)


@dataclass(frozen=True, slots=True)
class _Part:
    """One way to choose.

    Attributes:
        support: coordinates that may be non-zero. totals: bounds on their sums.
        chosen: the support that was picked of each choice; it holds all other coordinates at zero.
    """

    support: frozenset[int]
    totals: frozenset[Constraint]
    chosen: tuple[tuple[Choice, frozenset[int]], ...]

    def inside(self, other: "_Part") -> bool:
        """Whether this face is certainly part of the other one."""
        return self.support <= other.support and other.totals <= self.totals

    def constraints(self, size: int) -> tuple[Constraint, ...]:
        outside = [(choice, i) for choice, allowed in self.chosen for i in range(size) if i not in allowed]
        zeros = [_sum({index}, 0, choice, size) for choice, index in outside]
        return (*zeros, *sorted(self.totals, key=lambda each: (each.rule.key, each.coefs, each.bound)))


def resolve(choices: Sequence[Choice], size: int) -> tuple[tuple[Constraint, ...], ...]:
    """For every way to pick one support of each choice: what is then 0, and what then sums to how much at most.

    A face that lies inside another one is left out. Without choices there is one face without constraints; with a choice
    that has no support there is only the face on which all weights are 0.

    Args:
        size: how many coordinates a point has.

    Raises:
        PolicyError: more than 512 faces are left, or more than 32,768 ways are to be looked at (reason "too-many-combinations").
    """
    found = [_Part(frozenset(range(size)), frozenset(), ())]
    for choice in choices:
        nothing: tuple[tuple[frozenset[int], int | None], ...] = ((frozenset(), None),)
        options = choice.supports or nothing
        if len(found) * len(options) > _MOST_MET:
            raise _too_many(choices, f"{len(found) * len(options)} ways to choose", _MOST_MET)
        kept = _maximal(_met(face, choice, *option, size) for face in found for option in options)
        if kept is None:
            raise _too_many(choices, f"more than {_MOST} sets of adapters that do not contain each other", _MOST)
        found = kept
    return tuple(face.constraints(size) for face in sorted(found, key=lambda face: sorted(face.support)))


def _too_many(choices: Sequence[Choice], what: str, most: int) -> PolicyError:
    rules = several(choice.rule for choice in choices)
    return PolicyError(
        f"by {rules} there are {what}, and at most {most} are decided; list fewer and larger combinations",
        reason="too-many-combinations",
    )


def _met(face: _Part, choice: Choice, allowed: frozenset[int], most: int | None, size: int) -> _Part:
    totals = face.totals if most is None else face.totals | {_sum(allowed, most, choice, size)}
    return _Part(face.support & allowed, totals, (*face.chosen, (choice, allowed)))


def _sum(members: Iterable[int], most: int, choice: Choice, size: int) -> Constraint:
    chosen = set(members)
    return Constraint(tuple(int(index in chosen) for index in range(size)), most, choice.rule, choice.text)


def _maximal(found: Iterable[_Part]) -> list[_Part] | None:
    """The faces that lie in no other one, or None if there are too many: what is kept is never left out again."""
    kept: list[_Part] = []
    for face in sorted(found, key=lambda each: (-len(each.support), len(each.totals), sorted(each.support))):
        check_time()
        if not any(face.inside(other) for other in kept):
            kept.append(face)
            if len(kept) > _MOST:
                return None
    return kept
