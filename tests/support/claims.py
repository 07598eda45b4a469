"""From soupmix's own objects to plain numbers that `checker` judges."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

from soupmix.policy import Policy
from soupmix.projection import Region
from soupmix.projection.faces import Face
from soupmix.projection.solution import Exact, Solution
from tests.support.checker import Claim, apply, dot, proves


def region_of(policy: Policy, attributes: Mapping[str, str] = {}, sources: Mapping[str, str] = {}) -> Region:
    """The feasible set of a request as geometry has it."""
    regions = policy._regions
    return regions.region(regions.kinds.kind(attributes, policy._by_coordinate(sources)))


def claim_of(face: Face, solution: Solution, size: int) -> Claim:
    halves, multipliers = [], []
    for index, row in enumerate(face.rows):
        up = tuple(dict(row.coefs).get(adapter, 0) for adapter in range(size))
        pull = Fraction(solution.multipliers.get(index, 0))
        for bound, sign in ((row.high, 1), (row.low, -1)):
            if bound is not None:
                halves.append((tuple(sign * coef for coef in up), sign * bound))
                # a multiplier of a row belongs to its upper bound if positive, else to its lower one
                multipliers.append(max(sign * pull, Fraction(0)))
    gram, limit = (face.ball.gram, face.ball.limit) if face.ball else (None, 0)
    point = [Fraction(value) for value in solution.weights]
    return Claim(halves, gram, limit, point, multipliers, solution.share)


def accepted(region: Region, asked: Sequence[int], granted: Sequence[int]) -> bool:
    """Every face's nearest point is proved, and what is granted lies beside the nearest of all."""
    metric, size = region.space.metric, len(asked)
    nearest: list[tuple[Fraction, Sequence[Exact]]] = []
    for face in region.faces:
        solution = face.project(asked, metric)
        if solution is None or not proves(asked, claim_of(face, solution, size), metric):
            return False
        away = [a - w for a, w in zip(asked, solution.weights, strict=True)]
        nearest.append((dot(away, apply(metric, away)), solution.weights))
    least = min(distance for distance, _ in nearest)
    reach = 1 if all(face.ball is None for face in region.faces) else 64  # rounding inside a ball may step back further
    return any(
        distance == least and all(abs(Fraction(g) - w) < reach for g, w in zip(granted, weights, strict=True))
        for distance, weights in nearest
    )
