"""The feasible set of one request: all pieces in scope, compiled, with the clamp onto it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.policy.cost import check_cost
from soupmix.policy.face import Face
from soupmix.policy.faces import faces
from soupmix.policy.laminar import forest
from soupmix.policy.nearest import away, nearest
from soupmix.policy.norm import Ellipsoid
from soupmix.policy.patience import check_time
from soupmix.policy.pieces import BUILT_IN, Ball, Choice, Constraint, Piece, RuleRef
from soupmix.policy.quadratic import Matrix, form, unit
from soupmix.policy.rows import Solution, gather
from soupmix.policy.space import Space

__all__ = ["Clamped", "Pull", "Region", "minimal_conflict"]

_STEPS = 12


@dataclass(frozen=True, slots=True)
class Pull:
    """What a rule limits that held a request back.

    Attributes:
        rule, text: whose limit it is, and what it says. adapters: those whose weight it changed, some perhaps twice.
        multiplier: how hard it pulls where it pulls hardest, to the nearest millionth.
    """

    rule: RuleRef
    text: str
    adapters: tuple[int, ...]
    multiplier: int


@dataclass(frozen=True, slots=True)
class Clamped:
    """What became of a request.

    Attributes:
        granted: millionths. distance: how far they are from the request in the metric, in millionths, rounded down.
        pulls: what held it back, one per rule and text, outer tiers first; none where nothing changed.
    """

    granted: tuple[int, ...]
    distance: int
    pulls: tuple[Pull, ...]


@dataclass(frozen=True, slots=True)
class Region:
    """A feasible set that is known not to be empty: a union of faces, often of one."""

    space: Space
    faces: tuple[Face, ...]
    ball: Ball | None

    @classmethod
    def compile(cls, pieces: Sequence[Piece], space: Space) -> "Region":
        """Gather pieces over the adapters of a space.

        Raises:
            PolicyError: no point satisfies them all (reason "conflict"), naming a minimal set of conflicting rules; a bound
                on the norm where the store does not say the norms (reason "no-norms"); too many combinations (reasons
                "too-many-combinations", "too-costly").
        """
        made = _assembled(pieces, space)
        if not made.faces:
            rules = "; ".join(_told(part, space.names) for part in minimal_conflict(pieces, space))
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

    def holds(self, weights: Sequence[int]) -> bool:
        """Whether a point in whole millionths is in the set."""
        return any(face.holds(weights) for face in self.faces)

    def clamp(self, requested: Sequence[int]) -> Clamped:
        """The nearest feasible integer point (millionths), and what holds it back from `requested`.

        Among faces at the same distance the one with fewer changed weights wins, then the one whose adapters come first.

        Raises:
            PolicyRefusal: the result could not be certified (reason "uncertified"), or no integer point lies beside
                the projection (reason "no-integer-point"; possible only where groups overlap without nesting).
        """
        metric = self.space.metric
        solution, face = nearest(self.faces, requested, metric)
        granted = self._rounded(face, requested, solution)
        if granted == tuple(requested):
            return Clamped(granted, 0, ())
        distance = isqrt(form(metric, away(requested, solution)) // (solution.scale**2 * unit(metric)))
        return Clamped(granted, distance, self._pulls(face, requested, granted, solution))

    def _rounded(self, face: Face, requested: Sequence[int], solution: Solution) -> tuple[int, ...]:
        granted, step = face.round(solution), 0
        while granted is None and face.ball is not None and step < _STEPS:  # rounding may leave the ball by a hair
            inner = Face(face.rows, _smaller(face.ball, step), face.forest)
            again, step = inner.project(requested, self.space.metric), step + 1
            granted = None if again is None else face.round(again)
        if granted is None:
            raise PolicyRefusal(
                "the rules leave no weights in whole millionths near this request; widen one of the overlapping groups",
                reason="no-integer-point",
            )
        return granted

    def _pulls(
        self, face: Face, requested: Sequence[int], granted: Sequence[int], solution: Solution
    ) -> tuple[Pull, ...]:
        found: dict[tuple[tuple[object, ...], str], tuple[RuleRef, tuple[int, ...], int]] = {}
        for index, multiplier in solution.pulling.items():
            row = face.rows[index]
            if row.alone is None:
                changed = tuple([adapter for adapter in row.adapters if requested[adapter] != granted[adapter]])
                pushed = False
            else:  # A weight that another rule pushed against 0 or 1 is explained by that rule.
                asked = requested[row.alone]
                changed = row.adapters if asked != granted[row.alone] else ()
                pushed = row.holds(asked)
            if not changed:
                continue
            for each in row.high_from if multiplier > 0 else row.low_from:
                if not (pushed and each.rule.tier == BUILT_IN):
                    key = each.rule.key, each.text
                    _, others, hardest = found.get(key, (each.rule, (), 0))
                    found[key] = each.rule, others + changed, max(hardest, abs(multiplier))
        pulls = {
            key: Pull(rule, key[1], adapters, _nearest(hardest, solution.scale))
            for key, (rule, adapters, hardest) in found.items()
        }
        if solution.share and self.ball is not None:
            every = tuple([index for index, asked in enumerate(requested) if asked != granted[index]])
            ball = Pull(self.ball.rule, self.ball.text, every, round(solution.share))
            pulls[ball.rule.key, ball.text] = ball
        return tuple([pulls[key] for key in sorted(pulls)])


def _nearest(value: int, scale: int) -> int:
    """round(value / scale), half to even."""
    whole, rest = divmod(value, scale)
    return whole + (2 * rest > scale or (2 * rest == scale and whole % 2))


def _assembled(pieces: Sequence[Piece], space: Space) -> Region:
    """The faces that are not empty. Pieces are taken in the order of their rules, so that documents of one tier commute."""
    pieces = sorted(pieces, key=lambda piece: piece.rule)
    linear = [piece for piece in pieces if isinstance(piece, Constraint)]
    choices = [piece for piece in pieces if isinstance(piece, Choice)]
    ball = min(
        (piece for piece in pieces if isinstance(piece, Ball)), key=lambda each: (each.share, each.rule), default=None
    )
    ellipsoid = None if ball is None else _ellipsoid(ball, space)
    if ball is not None and ellipsoid is not None and not ellipsoid.limit:
        linear, ellipsoid = linear + _nothing(ball, ellipsoid.gram), None
    made = []
    for extra in faces(choices, len(space.names)):
        check_time()
        rows = gather([*linear, *extra])
        made.append(Face(rows, ellipsoid, forest(rows, len(space.names))))
    check_cost(pieces, made, space)
    origin = [0] * len(space.names)
    return Region(space, tuple(face for face in made if face.project(origin, None) is not None), ball)


def _ellipsoid(ball: Ball, space: Space) -> Ellipsoid:
    if space.gram is None or space.base is None:
        raise PolicyError(
            f"{ball.rule} bounds the norm of the merged delta, but the store does not record the norms; use a store whose "
            "manifest has them (written by `soupmix adapters add`), or leave the rule out",
            reason="no-norms",
        )
    return Ellipsoid(space.gram, int(ball.share**2 * space.base))


def _nothing(ball: Ball, gram: Matrix) -> list[Constraint]:
    """A bound of 0 on the norm as constraints: w' G w = 0 where G w = 0. It has no inside, so no multiplier to search for."""
    signed = [tuple(sign * value for value in row) for row in gram if any(row) for sign in (1, -1)]
    return [Constraint(coefs, 0, ball.rule, ball.text) for coefs in signed]


def _smaller(ball: Ellipsoid, step: int) -> Ellipsoid:
    """A ball with a smaller radius: less by an eighth of what a millionth of the longest delta adds, doubled at every step."""
    longest = max((row[index] for index, row in enumerate(ball.gram)), default=0)
    return Ellipsoid(ball.gram, max(isqrt(ball.limit) - ((isqrt(longest) + 1) << step) // 8, 0) ** 2)


def minimal_conflict(pieces: Sequence[Piece], space: Space) -> tuple[tuple[Piece, ...], ...]:
    """Pieces of a minimal set of rules that conflict: without any one of these rules the others are satisfiable.

    A deletion filter over exact feasibility: inner tiers are tried for removal first, so that outer ones are named.
    """
    rules = sorted({piece.rule for piece in pieces}, reverse=True)
    kept = set(rules)
    for rule in rules:
        rest = [each for each in pieces if each.rule in kept and each.rule != rule]
        if not _assembled(rest, space).faces:
            kept.discard(rule)
    return tuple(tuple(each for each in pieces if each.rule == rule) for rule in sorted(kept))


def _told(part: Sequence[Piece], names: Sequence[str]) -> str:
    texts = sorted({_named(piece, names) for piece in part})
    return f"{part[0].rule}: {', '.join(texts[:3])}{', ...' if len(texts) > 3 else ''}"


def _named(piece: Piece, names: Sequence[str]) -> str:
    if not isinstance(piece, Constraint):
        return piece.text
    concerned = [name for name, coef in zip(names, piece.coefs, strict=True) if coef]
    if not concerned:
        return f"{piece.text}, and no known adapter matches"
    named = len(concerned) > 1 or piece.rule.tier == BUILT_IN
    return piece.text if named else f"{concerned[0]} {piece.text}"
