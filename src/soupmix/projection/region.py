"""A feasible set compiled from constraints: a union of faces, with the exact projection onto it.

Compiling finds out whether anything is feasible (else which rules conflict), and what a projection will cost at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from typing import Final

from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.projection.constraints import AnyConstraint, Ball, Choice, Constraint, RuleLabel, gather, several
from soupmix.projection.faces import Face, resolve
from soupmix.projection.laminar import forest
from soupmix.projection.nearest import away, nearest
from soupmix.projection.norm import Ellipsoid
from soupmix.projection.quadratic import Matrix, form, unit
from soupmix.projection.solution import Solution
from soupmix.projection.time_budget import check_time

__all__ = ["Projected", "Pull", "Region", "Space", "minimal_conflict"]

_MOST_COST: Final = (
    20_000  # bounds to look at, on all faces together: about half a second on one core, see docs/policy.md
)
_CLOSED: Final = 16  # a bound in a closed form takes so much less than one among overlapping groups
_BALL: Final = 32  # a bound on the norm is met by about so many projections
_METRIC: Final = 20  # and the metric of the delta is dense: K^2 / 20 times as much, for K coordinates


@dataclass(frozen=True, slots=True)
class Space:
    """Named coordinates, and how distances and norms are measured.

    Attributes:
        names: of the coordinates. metric: matrix of the distance that a projection keeps small, None for Euclidean.
        gram: inner products of the deltas that the weights multiply, in integers; None if nobody measured them.
        base: squared norm that a share of 1 stands for, in the units of `gram`.
    """

    names: tuple[str, ...]
    metric: Matrix | None = None
    gram: Matrix | None = None
    base: Fraction | None = None


@dataclass(frozen=True, slots=True)
class Pull:
    """A constraint that held a point back.

    Attributes:
        rule, text: whose constraint it is, and what it limits.
        coordinates: those whose weight it changed, some perhaps twice.
        multiplier: how hard it pulls where it pulls hardest, to the nearest millionth.
    """

    rule: RuleLabel
    text: str
    coordinates: tuple[int, ...]
    multiplier: int


@dataclass(frozen=True, slots=True)
class Projected:
    """The nearest feasible point.

    Attributes:
        weights: millionths. distance: how far they are from the point asked for in the metric, in millionths, rounded down.
        pulls: what held it back, one per rule and text, sorted by rule; none where nothing changed.
    """

    weights: tuple[int, ...]
    distance: int
    pulls: tuple[Pull, ...]


@dataclass(frozen=True, slots=True)
class Region:
    """A feasible set that is known not to be empty: a union of faces, often of one."""

    space: Space
    faces: tuple[Face, ...]
    ball: Ball | None

    @classmethod
    def compile(cls, constraints: Sequence[AnyConstraint], space: Space) -> "Region":
        """Gather constraints over the coordinates of a space.

        Raises:
            PolicyError: no point satisfies them all (reason "conflict"), naming a minimal set of conflicting rules; a bound
                on the norm where the space has no norms (reason "no-norms"); too many combinations (reasons
                "too-many-combinations", "too-costly").
        """
        made = _assembled(constraints, space)
        if not made.faces:
            rules = "; ".join(_told(part, space.names) for part in minimal_conflict(constraints, space))
            raise PolicyError(
                f"no weights satisfy these rules together: {rules}; change one of them "
                "(for a request that does not state its attributes, the rules of all scopes apply together)",
                reason="conflict",
            )
        return made

    @property
    def size(self) -> int:
        """How many rows it takes in memory."""
        return sum(len(face.rows) for face in self.faces)

    @property
    def advice(self) -> str:
        """What to do where no whole point is found."""
        overlapping = "" if all(face.forest is not None for face in self.faces) else "one of the overlapping groups"
        return "widen " + " or ".join(filter(None, [overlapping, str(self.ball.rule) if self.ball else ""]))

    def holds(self, weights: Sequence[int], scale: int = 1) -> bool:
        """Whether weights / scale, in millionths, are a point of the set."""
        return any(face.holds(weights, scale) for face in self.faces)

    def project(self, requested: Sequence[int]) -> Projected:
        """The nearest feasible integer point (millionths), and what holds it back from `requested`.

        Among faces at the same distance the one with fewer changed weights wins, then the one whose coordinates come first.

        Raises:
            PolicyRefusal: the result could not be certified (reason "uncertified"), or no integer point lies beside
                the projection (reason "no-integer-point"; possible only where groups overlap or a norm is bounded).
        """
        metric = self.space.metric
        solution, face = nearest(self.faces, requested, metric)
        weights = face.whole(requested, solution, metric)
        if weights is None:
            raise PolicyRefusal(
                f"the rules leave no weights in whole millionths near this request; {self.advice}",
                reason="no-integer-point",
            )
        if weights == tuple(requested):
            return Projected(weights, 0, ())
        distance = isqrt(form(metric, away(requested, solution)) // (solution.scale**2 * unit(metric)))
        return Projected(weights, distance, self._pulls(face, requested, weights, solution))

    def _pulls(
        self, face: Face, requested: Sequence[int], weights: Sequence[int], solution: Solution
    ) -> tuple[Pull, ...]:
        found: dict[tuple[tuple[object, ...], str], tuple[RuleLabel, tuple[int, ...], int]] = {}
        for index, multiplier in solution.pulling.items():
            row = face.rows[index]
            if row.alone is None:
                changed = tuple([each for each in row.coordinates if requested[each] != weights[each]])
                pushed = False
            else:  # A weight that another rule pushed against 0 or 1 is explained by that rule.
                asked = requested[row.alone]
                changed = row.coordinates if asked != weights[row.alone] else ()
                pushed = row.holds(asked)
            if not changed:
                continue
            for each in row.high_from if multiplier > 0 else row.low_from:
                if not (pushed and each.rule.is_default):
                    key = each.rule.key, each.text
                    _, others, hardest = found.get(key, (each.rule, (), 0))
                    found[key] = each.rule, others + changed, max(hardest, abs(multiplier))
        pulls = {
            key: Pull(rule, key[1], coordinates, _nearest(hardest, solution.scale))
            for key, (rule, coordinates, hardest) in found.items()
        }
        if solution.share and self.ball is not None:
            every = tuple([index for index, asked in enumerate(requested) if asked != weights[index]])
            ball = Pull(self.ball.rule, self.ball.text, every, round(solution.share))
            pulls[ball.rule.key, ball.text] = ball
        return tuple([pulls[key] for key in sorted(pulls)])


def _nearest(value: int, scale: int) -> int:
    """round(value / scale), half to even."""
    whole, rest = divmod(value, scale)
    return whole + (2 * rest > scale or (2 * rest == scale and whole % 2))


def _assembled(constraints: Sequence[AnyConstraint], space: Space) -> Region:
    """The faces that are not empty. Constraints are sorted by their rules, so their own order does not matter."""
    constraints = sorted(constraints, key=lambda each: each.rule.key)
    linear = [each for each in constraints if isinstance(each, Constraint)]
    choices = [each for each in constraints if isinstance(each, Choice)]
    balls = [each for each in constraints if isinstance(each, Ball)]
    ball = min(balls, key=lambda each: (each.share, each.rule.key), default=None)
    ellipsoid = None if ball is None else _ellipsoid(ball, space)
    if ball is not None and ellipsoid is not None and not ellipsoid.limit:
        linear, ellipsoid = linear + _nothing(ball, ellipsoid.gram), None
    made = []
    for extra in resolve(choices, len(space.names)):
        check_time()
        rows = gather([*linear, *extra])
        made.append(Face(rows, ellipsoid, forest(rows, len(space.names))))
    _check_cost(constraints, made, space)
    origin = [0] * len(space.names)
    return Region(space, tuple(face for face in made if face.project(origin, None) is not None), ball)


def _ellipsoid(ball: Ball, space: Space) -> Ellipsoid:
    if space.gram is None or space.base is None:
        raise PolicyError(
            f"{ball.rule} bounds the norm of the merged delta, but the store does not record the norms; use a store whose "
            "manifest has them (written by `soupmix adapters add`, of a base that is not quantised), or leave the rule out",
            reason="no-norms",
        )
    return Ellipsoid(space.gram, int(ball.share**2 * space.base))


def _nothing(ball: Ball, gram: Matrix) -> list[Constraint]:
    """A bound of 0 on the norm as constraints: w' G w = 0 where G w = 0. It has no inside, so no multiplier to search for."""
    signed = [tuple(sign * value for value in row) for row in gram if any(row) for sign in (1, -1)]
    return [Constraint(coefs, 0, ball.rule, ball.text) for coefs in signed]


def _check_cost(constraints: Sequence[AnyConstraint], faces: Sequence[Face], space: Space) -> None:
    """Refuse a set of many faces that is too much to look at; one face alone has a time budget.

    Raises:
        PolicyError: reason "too-costly", naming the rules.
    """
    total = sum(_cost(face, space) for face in faces)
    if len(faces) > 1 and total > _MOST_COST:
        choices = several(each.rule for each in constraints if isinstance(each, Choice))
        others = several(each.rule for each in constraints if isinstance(each, Constraint) and _overlaps(each))
        raise PolicyError(
            f"by {choices} there are {len(faces)} sets of adapters to decide between, each under "
            f"{max(len(face.rows) for face in faces)} bounds{others and f' ({others})'}: a clamp would cost {total}, and at most "
            f"{_MOST_COST} is allowed; list fewer and larger combinations, or fewer groups that overlap",
            reason="too-costly",
        )


def _cost(face: Face, space: Space) -> int:
    """How many bounds a projection onto a face looks at."""
    if face.forest is not None and face.ball is None and space.metric is None:
        return -(-len(face.rows) // _CLOSED)
    dense = max(1, len(space.names) ** 2 // _METRIC) if space.metric is not None else 1
    return len(face.rows) * (_BALL if face.ball is not None else 1) * dense


def _overlaps(each: Constraint) -> bool:
    return not each.rule.is_default and sum(map(bool, each.coefs)) > 1


def minimal_conflict(constraints: Sequence[AnyConstraint], space: Space) -> tuple[tuple[AnyConstraint, ...], ...]:
    """Constraints of a minimal set of rules that conflict: without any one of these rules the others are satisfiable.

    A deletion filter over exact feasibility: the last rules are tried for removal first, so that the first ones are named.
    """
    rules = sorted({each.rule for each in constraints}, key=lambda rule: rule.key, reverse=True)
    kept = set(rules)
    for rule in rules:
        rest = [each for each in constraints if each.rule in kept and each.rule != rule]
        if not _assembled(rest, space).faces:
            kept.discard(rule)
    return tuple(
        tuple(each for each in constraints if each.rule == rule) for rule in sorted(kept, key=lambda rule: rule.key)
    )


def _told(part: Sequence[AnyConstraint], names: Sequence[str]) -> str:
    texts = sorted({_named(each, names) for each in part})
    return f"{part[0].rule}: {', '.join(texts[:3])}{', ...' if len(texts) > 3 else ''}"


def _named(constraint: AnyConstraint, names: Sequence[str]) -> str:
    if not isinstance(constraint, Constraint):
        return constraint.text
    concerned = [name for name, coef in zip(names, constraint.coefs, strict=True) if coef]
    if not concerned:
        return f"{constraint.text}, and no known adapter matches"
    named = len(concerned) > 1 or constraint.rule.is_default
    return constraint.text if named else f"{concerned[0]} {constraint.text}"
