"""What one clamp costs, counted and bounded before anybody asks: a policy that takes seconds a request is not loaded."""

from collections.abc import Sequence
from typing import Final

from soupmix.errors import PolicyError
from soupmix.policy.face import Face
from soupmix.policy.pieces import BUILT_IN, Choice, Constraint, Piece, several
from soupmix.policy.space import Space

__all__ = ["MOST_COST", "check_cost", "cost"]

MOST_COST: Final = 20_000
"""In bounds to look at, of all sets of adapters together: about half a second on one core, see docs/policy.md."""

_CLOSED: Final = 16  # a bound in a closed form takes so much less than one among overlapping groups
_BALL: Final = 32  # a bound on the norm is met by about so many projections
_METRIC: Final = 20  # and the metric of the delta is dense: K^2 / 20 times as much, for K adapters


def cost(face: Face, space: Space) -> int:
    """How many bounds a projection onto a face looks at."""
    if face.forest is not None and face.ball is None and space.metric is None:
        return -(-len(face.rows) // _CLOSED)
    dense = max(1, len(space.names) ** 2 // _METRIC) if space.metric is not None else 1
    return len(face.rows) * (_BALL if face.ball is not None else 1) * dense


def check_cost(pieces: Sequence[Piece], faces: Sequence[Face], space: Space) -> None:
    """Refuse a set of many faces that is too much to look at; one face alone has a time limit (`Policy.clamp`).

    Raises:
        PolicyError: reason "too-costly", naming the rules.
    """
    total = sum(cost(face, space) for face in faces)
    if len(faces) > 1 and total > MOST_COST:
        choices = several(each.rule for each in pieces if isinstance(each, Choice))
        others = several(each.rule for each in pieces if isinstance(each, Constraint) and _overlaps(each))
        raise PolicyError(
            f"by {choices} there are {len(faces)} sets of adapters to decide between, each under "
            f"{max(len(face.rows) for face in faces)} bounds{others and f' ({others})'}: a clamp would cost {total}, and at most "
            f"{MOST_COST} is allowed; list fewer and larger combinations, or fewer groups that overlap",
            reason="too-costly",
        )


def _overlaps(each: Constraint) -> bool:
    return each.rule.tier != BUILT_IN and sum(map(bool, each.coefs)) > 1
