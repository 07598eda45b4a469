"""Which ways to answer are compared: an arm, and selections of soups over the adapters of a store.

Poles and dimensions are those that the store's manifest names.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

from soupmix.errors import EvaluationError
from soupmix.methods import DEFAULT
from soupmix.policy import FeasibleSet
from soupmix.store import ManifestEntry
from soupmix.weights import MILLION, Weights, decimal_text

__all__ = [
    "BASE",
    "Arm",
    "Dimensions",
    "corners",
    "dimensions",
    "lattice",
    "pairs",
    "people",
    "singles",
    "soup_name",
    "unique",
    "vertices",
    "with_methods",
]

BASE = "base"
"""Name of the arm that is the bare base."""

_MOST = 2000  # arms of one selection

Dimensions = Mapping[str, tuple[str, ...]]
"""Dimension -> names of its adapters, both sorted."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to answer: a soup by a method, a system prompt, examples, or any of them together; none is the bare base.

    Attributes:
        name: unique among the arms that are measured together.
        weights: of the soup.
        method: name of the merge method.
        system: system prompt, "" for none.
        way: how answers are decoded, see `soupmix.evaluate.ways`; "soup" is one pass of the engine.
        shots: (question, answer) examples before the question, for few-shot prompts.
        contrasts: pairs of a wanted and an unwanted system prompt, for ways that compare them.
        parameters: (name, value) of the way.
    """

    name: str
    weights: Weights
    method: str = DEFAULT
    system: str = ""
    way: str = "soup"
    shots: tuple[tuple[str, str], ...] = ()
    contrasts: tuple[tuple[str, str], ...] = ()
    parameters: tuple[tuple[str, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As samples and reports say it; what only some ways have stands there if they have it."""
        more = {"contrasts": [list(each) for each in self.contrasts], "parameters": dict(self.parameters)}
        return {
            "method": self.method,
            "name": self.name,
            "shots": [list(each) for each in self.shots],
            "system": self.system,
            "way": self.way,
            "weights": self.weights.decimals(),
        } | {name: value for name, value in more.items() if value}


def dimensions(adapters: Iterable[ManifestEntry]) -> Dimensions:
    """What the adapters of a store steer."""
    found: dict[str, list[str]] = {}
    for entry in adapters:
        found.setdefault(entry.dimension, []).append(entry.name)
    return {dimension: tuple(sorted(found[dimension])) for dimension in sorted(found)}


def soup_name(weights: Weights) -> str:
    """What the arm of a soup is called: "base", "friendly@0.7", "elementary+friendly@0.7", or the weights as they are."""
    left = weights.nonzero()
    values = set(left.values())
    if len(values) > 1:
        return str(left)
    return f"{'+'.join(left)}@{decimal_text(values.pop())}" if values else BASE


def singles(of: Dimensions, strengths: Sequence[str]) -> list[Arm]:
    """Every adapter alone, at every strength."""
    names = [name for each in of.values() for name in each]
    return [_soup([name], strength) for strength in strengths for name in names]


def pairs(of: Dimensions, strengths: Sequence[str]) -> list[Arm]:
    """Every two adapters of different dimensions, both at a strength."""
    chosen = [names for two in combinations(of.values(), 2) for names in product(*two)]
    return [_soup(names, strength) for strength in strengths for names in _few(chosen, "pairs")]


def corners(of: Dimensions, strengths: Sequence[str]) -> list[Arm]:
    """One adapter of every dimension, all at a strength."""
    return [_soup(names, strength) for strength in strengths for names in _few(product(*of.values()), "corners")]


def lattice(of: Dimensions, strengths: Sequence[str]) -> list[Arm]:
    """Every dimension at none or one of its adapters, at every strength of its own."""
    choices = [[("", "0"), *product(names, strengths)] for names in of.values()]
    points = _few(product(*choices), "points of the lattice")
    return [_arm(Weights({name: value for name, value in point if name})) for point in points]


def vertices(of: FeasibleSet) -> list[Arm]:
    """The extreme points of what a policy lets through, in whole millionths.

    Raises:
        PolicyRefusal: see `FeasibleSet.vertices`.
    """
    rounded = ({name: round(value) for name, value in zip(of.names, each, strict=True)} for each in of.vertices())
    return [_arm(of.nearest(Weights.from_micro(each))) for each in rounded]


def people(of: FeasibleSet, count: int, seed: int) -> list[Arm]:
    """Random points of what a policy lets through. Raises as `FeasibleSet.sample` does."""
    return [_arm(each) for each in of.sample(count, seed)]


def with_methods(arms: Sequence[Arm], methods: Sequence[str]) -> list[Arm]:
    """Each soup by each method; the bare base is the same by all."""
    return [_by(arm, method) for method in methods for arm in arms]


def unique(arms: Iterable[Arm]) -> tuple[Arm, ...]:
    """The arms without repetitions, in order.

    Raises:
        EvaluationError: two different arms have one name (reason "same-name").
    """
    found: dict[str, Arm] = {}
    for arm in arms:
        if found.setdefault(arm.name, arm) != arm:
            raise EvaluationError(f"two different arms are both called {arm.name!r}", reason="same-name")
    return tuple(found.values())


def _few(points: Iterable[Any], what: str) -> Iterator[Any]:
    for number, point in enumerate(points):
        if number >= _MOST:
            raise EvaluationError(
                f"this store has more than {_MOST} {what}; choose other soups, or a policy and --soups people",
                reason="too-many-soups",
            )
        yield point


def _soup(names: Sequence[str], strength: str) -> Arm:
    return _arm(Weights(dict.fromkeys(names, strength)))


def _arm(weights: Weights) -> Arm:
    if any(not 0 <= micro <= MILLION for micro in weights.values()):
        raise EvaluationError(f"weights are evaluated from 0 to 1, not {weights}", reason="strength")
    return Arm(soup_name(weights), weights.nonzero())


def _by(arm: Arm, method: str) -> Arm:
    if method == arm.method or not arm.weights:
        return arm
    return replace(arm, name=f"{arm.name} by {method}", method=method)
