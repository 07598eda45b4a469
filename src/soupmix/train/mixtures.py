"""Which poles are at work together in an example, and how much of each.

A quarter of the examples has one pole, a quarter two, half three, of different dimensions; opposite poles are never together.
"""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from soupmix.train.examples import Example

__all__ = ["ARMS", "LEVELS", "SoupArm", "SoupExample", "apart", "draw_mixtures"]

SoupArm = Literal["together", "apart", "frozen"]
ARMS: tuple[SoupArm, ...] = ("together", "apart", "frozen")
"""How a set is trained: with the mixture active; on the same examples without it; or each adapter with the others frozen."""

LEVELS = (1 / 3, 0.5, 0.75, 1.0)
_SIZES = {1: 0.25, 2: 0.25, 3: 0.5}
_WHOLE = 0.6  # of the examples of one pole have it at weight 1
_LEVEL = 0.6  # of those of several poles have all of them at one level: people ask for corners

Mixture = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SoupExample:
    """An example, and the soup that is to give the answer.

    Attributes:
        weights: pole -> weight, none of them 0. skip: first tokens of the answer that are not learned.
    """

    example: Example
    weights: Mixture
    skip: int = 0


def draw_mixtures(
    dimensions: Mapping[str, Sequence[str]], seed: int, *, must: Collection[str] = (), more: Collection[str] = ()
) -> Iterator[dict[str, float]]:
    """Mixtures without end.

    Args:
        dimensions: dimension -> its poles. must: poles of which every mixture has one at least; none: no such wish.
        more: poles that are drawn twice as often as others of their dimension.
    """
    draw = random.Random(seed)
    often = {name: [*poles, *(each for each in poles if each in more)] for name, poles in dimensions.items()}
    sizes = [size for size in _SIZES if size <= len(dimensions)]
    while True:
        size = draw.choices(sizes, [_SIZES[each] for each in sizes])[0]
        poles = [draw.choice(often[each]) for each in draw.sample(sorted(dimensions), size)]
        level = draw.choice(LEVELS)
        if size == 1:
            weights = {poles[0]: 1.0 if draw.random() < _WHOLE else level}
        else:
            is_level = draw.random() < _LEVEL
            weights = {pole: level if is_level else draw.choice(LEVELS) for pole in poles}
        if not must or not weights.keys().isdisjoint(must):
            yield dict(sorted(weights.items()))


def apart(examples: Sequence[SoupExample]) -> list[SoupExample]:
    """The same examples without the mixture: each once for each of its poles, which is at work alone, as much as before."""
    return [replace(each, weights={pole: weight}) for each in examples for pole, weight in each.weights.items()]
