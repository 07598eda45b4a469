"""Judges a clamp without sharing code with it: half-spaces, multipliers and one inequality, in rationals."""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

Half = tuple[tuple[int, ...], int]
"""coefs . w <= bound"""
Square = Sequence[Sequence[int]]


class Claim(NamedTuple):
    """What a projection claims: the set (half-spaces, and w' gram w <= limit), the point, and what proves it."""

    halves: Sequence[Half]
    gram: Square | None
    limit: int
    point: Sequence[Fraction]
    multipliers: Sequence[Fraction]
    share: Fraction


def dot(a: Sequence[Fraction | int], b: Sequence[Fraction | int]) -> Fraction:
    return sum((Fraction(x) * y for x, y in zip(a, b, strict=True)), Fraction(0))


def apply(matrix: Square | None, vector: Sequence[Fraction | int]) -> list[Fraction]:
    return [Fraction(x) for x in vector] if matrix is None else [dot(row, vector) for row in matrix]


def proves(asked: Sequence[int], claim: Claim, metric: Square | None) -> bool:
    """Whether no point of the set is nearer to `asked` than the claimed one, up to a squared millionth."""
    w, unit = claim.point, 1 if metric is None else max(metric[k][k] for k in range(len(metric)))
    slacks = [bound - dot(coefs, w) for coefs, bound in claim.halves]
    slack = Fraction(claim.limit) - dot(w, apply(claim.gram, w)) if claim.gram is not None else Fraction(0)
    if min(slacks, default=0) < 0 or min(claim.multipliers, default=0) < 0 or slack < 0 or claim.share < 0:
        return False
    rest = apply(metric, [a - x for a, x in zip(asked, w, strict=True)])
    for multiplier, (coefs, _) in zip(claim.multipliers, claim.halves, strict=True):
        rest = [r - multiplier * coef for r, coef in zip(rest, coefs, strict=True)]
    if claim.share:
        rest = [r - claim.share * g for r, g in zip(rest, apply(claim.gram, w), strict=True)]
    gap = dot(claim.multipliers, slacks) + claim.share * slack  # weak duality, as nothing is left of the gradient
    return not any(rest) and gap <= unit * bool(claim.share)
