"""Equally likely persons, drawn from a posterior, and what they would say of answers."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from soupmix.preference.prior import ModelName
from soupmix.preference.traits import Numbers
from soupmix.preference.wants import Wants

__all__ = ["Draws", "ExpectedUtility"]

_BLOCK = 48  # draws
_LEAST_REACH = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Equally likely persons.

    Attributes:
        parts: of each model that has any: the [draws] particles, and of each the sharpness and the floor.
    """

    parts: tuple[tuple[Wants, Numbers, Numbers], ...]

    def blocks(self) -> "Iterator[Draws]":
        """The same draws, a few at a time: what is computed of them stays in the cache of a processor."""
        for of, sharp, floor in self.parts:
            for place in range(0, len(sharp), _BLOCK):
                some = slice(place, place + _BLOCK)
                part = Wants(of.model, of.points[some], of.order)
                yield Draws(((part, sharp[some], floor[some]),))

    def chances(self, first: Numbers, second: Numbers) -> Numbers:
        """[draws, pairs] chances of choosing the first of [pairs, traits] points, float32."""
        found = []
        for of, sharp, floor in self.parts:
            odds = (of.differences(first, second).T * sharp[:, None]).astype(np.float32)
            floors = floor[:, None].astype(np.float32)
            found.append(floors + (1 - 2 * floors) / (1 + np.exp(-np.clip(odds, -60, 60))))
        return np.concatenate(found)

    def utilities(self, points: Numbers) -> Numbers:
        """[draws, points] utility of [points, traits], each person's from 0, the worst of these points, to 1, the best."""
        found = np.concatenate([of.utilities(points) for of, _, _ in self.parts])
        worst = found.min(1, keepdims=True)
        return np.asarray((found - worst) / np.maximum(found.max(1, keepdims=True) - worst, _LEAST_REACH))

    def mean_utility(self, points: Numbers) -> Numbers:
        """[points] mean over draws of utilities, each person's from 0, the worst of [points, traits], to 1, the best of them."""
        total, count = np.zeros(len(points)), 0
        for block in self.blocks():
            ((of, _, _),) = block.parts
            found = of.utilities(points)
            worst = found.min(1)
            share = 1 / np.maximum(found.max(1) - worst, _LEAST_REACH)
            total += share @ found - share @ worst
            count += len(found)
        return np.asarray(total / count)

    def reaches(self, points: Numbers) -> dict[ModelName, tuple[float, float]]:
        """Of every model, in means over draws, the utility of the worst of [points, traits], and how far the best is from it."""
        sums: dict[ModelName, Numbers] = {}
        for block in self.blocks():
            ((of, _, _),) = block.parts
            found = of.utilities(points)
            worst = found.min(1)
            sums[of.model] = sums.get(of.model, 0) + np.array([len(worst), worst.sum(), (found.max(1) - worst).sum()])
        return {model: (worst / count, reach / count) for model, (count, worst, reach) in sums.items()}


@dataclass(frozen=True, slots=True, eq=False)
class ExpectedUtility:
    """What answers are expected to be worth to somebody; made by `Posterior.utility`.

    Attributes:
        parts: of each model the mean person, the utility that counts as 0, and how much a unit of utility counts.
    """

    parts: tuple[tuple[Wants, float, float], ...]

    def __call__(self, points: Numbers) -> Numbers:
        """[points] of [points, traits] standard units."""
        found = [(mean.utilities(points)[0] - worst) * share for mean, worst, share in self.parts]
        return np.asarray(np.sum(found, axis=0))
