"""The least and most of every weight by pieces on that weight alone."""

from collections.abc import Iterable, Sequence

from soupmix.policy.pieces import Constraint, Piece
from soupmix.weights import MILLION

__all__ = ["box"]


def box(names: Sequence[str], pieces: Iterable[Piece]) -> dict[str, tuple[int, int]]:
    """Least and most in millionths by name, of pieces that hold whatever the sources of weights are."""
    found = {name: [0, MILLION] for name in names}
    for each in pieces:
        if not isinstance(each, Constraint) or each.unless:
            continue
        match [(name, coef) for name, coef in zip(names, each.coefs, strict=True) if coef]:
            case [(name, 1)]:
                found[name][1] = min(found[name][1], each.bound)
            case [(name, -1)]:
                found[name][0] = max(found[name][0], -each.bound)
    return {name: (least, most) for name, (least, most) in found.items()}
