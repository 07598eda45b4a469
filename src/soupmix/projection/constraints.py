"""What bounds a set: linear constraints, choices of supports and a bound on a norm; and the rows they are gathered into.

A point is a tuple of weights in integer millionths, one per coordinate. Every constraint only removes points.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Protocol

from soupmix.projection.solution import Exact
from soupmix.weights import MILLION

__all__ = [
    "AnyConstraint",
    "Ball",
    "Choice",
    "Constraint",
    "Row",
    "RuleLabel",
    "Side",
    "box",
    "gather",
    "several",
    "sides_of",
]


class RuleLabel(Protocol):
    """What must be known of the rule that a constraint comes from; equal labels are the same rule."""

    @property
    def key(self) -> tuple[Any, ...]:
        """Tells rules apart and sorts them."""

    @property
    def is_default(self) -> bool:
        """Whether it bounds every set; where another rule explains a change as well, that one is named."""

    def __hash__(self) -> int: ...

    def __str__(self) -> str:
        """The rule as messages call it."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """sum(coefs * weights) <= bound, in integer millionths.

    Attributes:
        coefs: integers, one per coordinate.
        bound: millionths.
        rule: whose constraint it is.
        text: what it limits, for people.
    """

    coefs: tuple[int, ...]
    bound: int
    rule: RuleLabel
    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The weights that are not 0 all lie in one of these supports.

    Attributes:
        supports: (coordinates, the most that their weights may sum to in millionths, or None); without any, all weights are 0.
        rule, text: see `Constraint`.
    """

    supports: tuple[tuple[frozenset[int], int | None], ...]
    rule: RuleLabel
    text: str


@dataclass(frozen=True, slots=True)
class Ball:
    """The norm of the weighted sum of deltas is at most this share, in millionths, of a base's norm."""

    share: int
    rule: RuleLabel
    text: str


AnyConstraint = Constraint | Choice | Ball


@dataclass(frozen=True, slots=True)
class Row:
    """All constraints with one left-hand side as one interval: low <= coefs . w <= high.

    Attributes:
        coefs: (coordinate, coefficient) of the non-zero coefficients; the first is positive.
        low, high: millionths, None for no bound.
        low_from, high_from: the constraints that set them; several if they tie.
        coordinates: those with a coefficient. plain: whether there are any, and every coefficient is 1.
        alone: the one coordinate of a plain row that has no other, else None.
    """

    coefs: tuple[tuple[int, int], ...]
    low: int | None
    high: int | None
    low_from: tuple[Constraint, ...] = ()
    high_from: tuple[Constraint, ...] = ()
    coordinates: tuple[int, ...] = field(init=False, repr=False, compare=False)
    plain: bool = field(init=False, repr=False, compare=False)
    alone: int | None = field(init=False, repr=False, compare=False)
    _pick: Callable[[Sequence[int]], Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        coordinates = tuple(index for index, _ in self.coefs)
        plain = bool(coordinates) and all(coef == 1 for _, coef in self.coefs)
        object.__setattr__(self, "coordinates", coordinates)
        object.__setattr__(self, "plain", plain)
        object.__setattr__(self, "alone", coordinates[0] if plain and len(coordinates) == 1 else None)
        object.__setattr__(self, "_pick", itemgetter(*(coordinates or (0,))))

    def value(self, weights: Sequence[int]) -> int:
        """The left-hand side at `weights`."""
        if self.alone is not None:
            return weights[self.alone]
        if self.plain:
            return sum(self._pick(weights))
        return sum([coef * weights[index] for index, coef in self.coefs])

    def holds(self, value: int, scale: int = 1) -> bool:
        """Whether a left-hand side, in parts of a millionth (so many as `scale` says), is within the interval."""
        return (self.low is None or value >= self.low * scale) and (self.high is None or value <= self.high * scale)


@dataclass(frozen=True, slots=True)
class Side:
    """One end of a row as a half-space: normal . w >= bound.

    Attributes:
        row: index of the row. sign: 1 for its lower end, -1 for its upper one.
        normal: (coordinate, coefficient), the row's times `sign`. bound: millionths.
    """

    row: int
    sign: int
    normal: tuple[tuple[int, int], ...]
    bound: int

    def shortfall(self, weights: Sequence[Exact]) -> Exact:
        """How much is missing; not positive where it holds."""
        return self.bound - sum((coef * weights[index] for index, coef in self.normal), start=0)


def sides_of(rows: Sequence[Row]) -> list[Side]:
    """The half-spaces of rows, the upper end of each first."""
    found = []
    for index, row in enumerate(rows):
        for sign, bound in ((-1, row.high), (1, row.low)):
            if bound is not None:
                normal = tuple((coordinate, sign * coef) for coordinate, coef in row.coefs)
                found.append(Side(index, sign, normal, sign * bound))
    return found


def gather(constraints: Iterable[Constraint]) -> tuple[Row, ...]:
    """One row per left-hand side, with the tightest bounds. An interval may come out empty."""
    ends: dict[tuple[tuple[int, int], ...], tuple[list[Constraint], list[Constraint]]] = {}
    for constraint in sorted(constraints, key=lambda each: (each.rule.key, each.coefs, each.bound)):
        coefs = tuple((index, coef) for index, coef in enumerate(constraint.coefs) if coef)
        negative = bool(coefs) and coefs[0][1] < 0
        key = tuple((index, -coef) for index, coef in coefs) if negative else coefs
        ends.setdefault(key, ([], []))[0 if negative else 1].append(constraint)
    rows = []
    for key, (lows, highs) in sorted(ends.items()):
        low, high = max((-each.bound for each in lows), default=None), min((each.bound for each in highs), default=None)
        low_from = tuple(each for each in lows if -each.bound == low)
        high_from = tuple(each for each in highs if each.bound == high)
        rows.append(Row(key, low, high, low_from, high_from))
    return tuple(rows)


def box(size: int, constraints: Iterable[AnyConstraint]) -> list[tuple[int, int]]:
    """Least and most of every weight in millionths, within [0, 1], by the constraints on that weight alone."""
    found = [[0, MILLION] for _ in range(size)]
    for each in constraints:
        if not isinstance(each, Constraint):
            continue
        match [(index, coef) for index, coef in enumerate(each.coefs) if coef]:
            case [(index, 1)]:
                found[index][1] = min(found[index][1], each.bound)
            case [(index, -1)]:
                found[index][0] = max(found[index][0], -each.bound)
    return [(least, most) for least, most in found]


def several(rules: Iterable[RuleLabel]) -> str:
    """Rules in words, the first three by name."""
    names = sorted({str(rule) for rule in rules})
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
