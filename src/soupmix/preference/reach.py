"""From wants to weights: what soups inside a policy are expected to be like, and which is expected to be liked best."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from soupmix.errors import PreferenceError
from soupmix.policy import FeasibleSet
from soupmix.preference.posterior import Posterior
from soupmix.preference.question import DEFAULT_RULE, RuleName, next_question
from soupmix.preference.traits import Numbers, Trait, Traits
from soupmix.surface import Surface
from soupmix.weights import MILLION, Weights

__all__ = ["DAMAGE", "Reach", "traits_of"]

DAMAGE: Final = 0.014
"""Share of all utility that a soup loses, by the cube of the sum of its weights.

Of answers of shipped adapters .88, .83, .73 and .50 were on topic at sums of 1, 1.5, 2.25 and 3; .88 less this is .87, .83, .72
and .50.
"""

_SAMPLED, _DRAWS, _STARTS = 128, 512, 2
_STEPS = (0.2, 0.1, 0.05, 0.02)  # of a weight
_MOST_ROUNDS, _MOST_TRIED = 4, 4
_SOME = 1e-9
_GENTLE = 1e-3  # what a weight of 1 costs: of soups that are liked as much, the gentlest


def traits_of(surface: Surface, measures: Collection[str] | None = None) -> Traits:
    """The traits that a surface knows of soups: of each dimension the measure that tells its adapters best from single answers.

    That is the largest effect in standard deviations of single answers, since evidence is measured on their texts. 0 is what the
    base does, 1 half of what the adapters of the dimension span.

    Args:
        surface: what soups are expected to do.
        measures: those that can be taken of a text here; None: all that the surface knows.

    Raises:
        PreferenceError: the surface knows no such measure of these adapters (reason "bad-traits").
    """
    nothing = np.zeros((1, len(surface.names)))
    axes = []
    for dimension in sorted(set(surface.dimensions.values())):
        names = [
            name
            for name in surface.measures
            if surface.document.measures[name].dimension == dimension and (measures is None or name in measures)
        ]
        if names:
            name = max(names, key=lambda each: _told_apart(surface, each))
            measure = surface.document.measures[name]
            centre = float(surface.mean(name, nothing)[0])
            axes.append(Trait(dimension, name, centre, measure.span / 2, measure.scale == "log"))
    if not axes:
        raise PreferenceError("the surface knows no measure that these adapters move", reason="bad-traits")
    return Traits(tuple(axes), surface.document.digest)


def _told_apart(surface: Surface, name: str) -> float:
    alone = np.diag(np.minimum(np.array(surface.document.most), MILLION) / MILLION)
    own = [
        surface.names.index(each)
        for each, d in surface.dimensions.items()
        if d == surface.document.measures[name].dimension
    ]
    effects = surface.mean(name, alone[own]) - surface.mean(name, 0 * alone[own])
    return float(np.abs(effects).max() / max(surface.document.measures[name].spread, _SOME))


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """Soups that a policy lets through, and the traits that a surface expects of them.

    Attributes:
        surface, traits, feasible: what it is made of.
        soups: some of all kinds: the base, what single adapters can be, and random points of the set.
        points: [soups, traits] standard units, expected.
        explicit: weights that somebody set, which nothing that is inferred changes; as near to them as the policy lets them.
    """

    surface: Surface
    traits: Traits
    feasible: FeasibleSet
    soups: tuple[Weights, ...]
    points: Numbers
    explicit: Weights = field(default_factory=Weights)

    @classmethod
    def of(
        cls,
        surface: Surface,
        traits: Traits,
        feasible: FeasibleSet,
        *,
        explicit: Weights | None = None,
        seed: int = 0,
    ) -> "Reach":
        """Everything within a feasible set that was measured.

        Args:
            surface: what soups are expected to do.
            traits: as `traits_of` gives them.
            feasible: of whom it is for; ask for it with sources="inferred", so that it holds what may be inferred. Adapters of
                `explicit` have the source "explicit" there: sources={"concise": "explicit", "warm": "inferred", ...}.
            explicit: weights that somebody set, zeros too.
            seed: of the random points.

        Raises:
            PreferenceError: fewer than two soups of the set were measured (reason "nothing-to-choose").
            PolicyRefusal: as `FeasibleSet.sample` and `nearest`.
        """
        fixed = explicit or Weights()
        alone = [
            {name: share} for name in surface.dimensions for share in (0.25, 0.5, 0.75, 1.0) if name in feasible.names
        ]
        drawn = feasible.sample(_SAMPLED, seed)
        near = [feasible.nearest(_with(weights, fixed)) for weights in ({}, *alone, *(drawn if fixed else ()))]
        some = list(dict.fromkeys([*near, *(() if fixed else drawn)]))
        known = [each for each in some if set(each) <= surface.dimensions.keys()]
        placed = np.array([surface.point(each) for each in known]).reshape(len(known), len(surface.names))
        soups = tuple(each for each, inside in zip(known, surface.measured(placed), strict=True) if inside)
        if len(soups) < 2:
            raise PreferenceError(
                "the policy leaves nothing to choose between that was measured: weights may not be inferred here, or only one "
                "soup is approved",
                reason="nothing-to-choose",
            )
        return cls(surface, traits, feasible, soups, _expected(surface, traits, soups), fixed)

    def best(self, posterior: Posterior, *, damage: float = DAMAGE) -> Weights:
        """The weights with the greatest expected utility, less damage; inside the feasible set.

        Utility is a share of what lies between the worst and the best of these soups, for every possible person. The best of them
        are improved by steps along single weights, each of which ends in the set.

        Args:
            posterior: what somebody wants, by the same traits.
            damage: see `DAMAGE`; 0 for none.

        Raises:
            PreferenceError: the posterior is of other traits (reason "other-traits").
            PolicyRefusal: as `FeasibleSet.nearest`.
        """
        if posterior.traits.digest != self.traits.digest:
            raise PreferenceError("these wants are about other traits than this surface knows", reason="other-traits")
        worth = _Worth(self, posterior, damage)
        values = worth(self.soups)
        first = np.argsort(-values, kind="stable")[:_STARTS]
        ends = [self._climbed(worth, self.soups[place], float(values[place])) for place in first]
        return max(ends, key=lambda end: end[1])[0]

    def plain(self, posterior: Posterior) -> Weights:
        """The plain reading: the weight of the adapter that moves a trait as it is wanted is the posterior mean of that want.

        Of ideal points it is the share of what that adapter does alone at most.

        Raises:
            PreferenceError, PolicyRefusal: as `best`.
        """
        model, mean = posterior.best, posterior.mean()
        weights: dict[str, float] = {}
        for axis, (trait, want) in enumerate(zip(self.traits.axes, mean, strict=True)):
            effects = {
                soups[0]: float(points[axis])
                for soups, points in ((tuple(s), p) for s, p in zip(self.soups, self.points, strict=True))
                if len(soups) == 1 and self.surface.dimensions[soups[0]] == trait.name
            }
            name = max(effects, key=lambda each: effects[each] * np.sign(want), default=None)
            if name is not None and effects[name] * want > 0:
                share = abs(want) if model == "linear" else want / effects[name]
                weights[name] = round(float(np.clip(share, 0, 1)), 6)
        return self.feasible.nearest(_with(weights, self.explicit))

    @property
    def uninferred(self) -> Weights:
        """What the policy makes of the explicit weights alone."""
        return self.feasible.nearest(self.explicit)

    def offers(self, posterior: Posterior, rows: int = 8, *, rule: RuleName = DEFAULT_RULE) -> tuple[Weights, ...]:
        """Soups to answer with in one batch, of whose texts the next question is then chosen: those of the best questions.

        Args:
            posterior: what is known.
            rows: of the batch, two or more.
            rule: as of `next_question`.
        """
        left: list[int] = list(range(len(self.soups)))
        found: list[int] = []
        while len(found) < rows and len(left) >= 2:
            question = next_question(posterior, self.points[left], rule=rule, enough=-1.0)
            if question is None:
                break
            pair = {left[question.first], left[question.second]}
            found += sorted(pair)
            left = [place for place in left if place not in pair]
        return tuple(self.soups[place] for place in found[:rows])

    def expected(self, soups: Sequence[Weights]) -> Numbers:
        """[soups, traits] standard units that are expected of soups."""
        return _expected(self.surface, self.traits, soups)

    def expected_regret(self, posterior: Posterior) -> float:
        """What is expected to be lost by giving the best of these soups by what is known, and not that by what is wanted."""
        return float(posterior.expected_regret(self.points).min())

    def utility(self, posterior: Posterior, weights: Weights, *, damage: float = DAMAGE) -> float:
        """Expected utility of weights, as `best` has it."""
        return float(_Worth(self, posterior, damage)([weights])[0])

    def _climbed(self, worth: "_Worth", start: Weights, value: float) -> tuple[Weights, float]:
        """The best that steps along single weights lead to; only what may be better is put to the policy."""
        names = [name for name in self.surface.dimensions if name in self.feasible.names and name not in self.explicit]
        for step in _STEPS:
            for _ in range(_MOST_ROUNDS):
                tried = [Weights(_moved_by(start, name, way * step)) for name in names for way in (1, -1)]
                guessed = worth(tried)
                better = [place for place in np.argsort(-guessed, kind="stable") if guessed[place] > value + _SOME]
                near = [self.feasible.nearest(_with(tried[place], self.explicit)) for place in better[:_MOST_TRIED]]
                values = worth(near)
                if not near or values.max() <= value + _SOME:
                    break
                start, value = near[int(values.argmax())], float(values.max())
        return start, value


class _Worth:
    """Expected utility of soups less damage; of what was not measured, less than anything."""

    def __init__(self, reach: Reach, posterior: Posterior, damage: float) -> None:
        self._reach, self._damage = reach, damage
        self._utility = posterior.utility(reach.points, _DRAWS)

    def __call__(self, soups: Sequence[Weights]) -> Numbers:
        if not soups:
            return np.zeros(0)
        reach = self._reach
        totals = np.array([sum(map(abs, each.values())) for each in soups]) / MILLION
        placed = np.array([reach.surface.point(each) for each in soups])
        points = reach.points if soups is reach.soups else _placed(reach.surface, reach.traits, placed)
        found = self._utility(points) - self._damage * totals**3 - _GENTLE * totals
        return np.where(reach.surface.measured(placed), found, -np.inf)


def _with(weights: Mapping[str, float] | Weights, explicit: Weights) -> Mapping[str, float]:
    own = weights.floats() if isinstance(weights, Weights) else weights
    return {**own, **explicit.floats()}


def _moved_by(weights: Weights, name: str, step: float) -> Mapping[str, float]:
    found = weights.floats()
    return {**found, name: round(max(found.get(name, 0.0) + step, 0.0), 6)}


def _expected(surface: Surface, traits: Traits, soups: Sequence[Weights]) -> Numbers:
    """[soups, traits] standard units."""
    return _placed(surface, traits, np.array([surface.point(each) for each in soups]))


def _placed(surface: Surface, traits: Traits, placed: Numbers) -> Numbers:
    columns = [(surface.mean(trait.key, placed) - trait.centre) / trait.scale for trait in traits.axes]
    return np.stack(columns, axis=1)
