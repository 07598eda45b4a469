"""How soups compose: what is left of a pole among others, what poles do to other dimensions, and whether effects add up.

The effect of a soup on a measure is the mean over prompts of the soup's value minus the bare base's at the same prompt. All
figures are taken over one draw of prompts (`soupmix.evaluate.statistics`); a share of an effect that cannot be told from
nothing is None, and so is one over fewer than `LEAST_PROMPTS`, whose interval would say nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soupmix.errors import EvaluationError
from soupmix.evaluate.statistics import Estimate, Resampling, corrected, estimate, ratio, shares, spearman, stands_out
from soupmix.weights import MILLION, Weights

__all__ = [
    "LEAST_PROMPTS",
    "Additive",
    "Composition",
    "CrossTalk",
    "Effects",
    "Kept",
    "Linear",
    "Monotony",
    "Reached",
    "Table",
    "composition",
    "cross_talk",
]

LEAST_PROMPTS = 5
"""That a share of an effect rests on: over one of them an interval has no width, whatever the noise."""

Table = Mapping[tuple[str, str], Mapping[str, float]]
"""(name of an arm, prompt) -> measure -> value, answers to one prompt averaged; what has no value is left out, or NaN."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left of one dimension in a soup.

    Attributes:
        soup: name of the arm. dimension: which one. measure: of that dimension.
        effect: of the whole soup. alone: of the soup's adapters of that dimension, with the same weights and no others.
        share: effect / alone, all three over the prompts at which both have a value; None over fewer than `LEAST_PROMPTS`.
    """

    soup: str
    dimension: str
    measure: str
    effect: Estimate | None
    alone: Estimate | None
    share: Estimate | None


@dataclass(frozen=True, slots=True)
class CrossTalk:
    """What adapters of one dimension do to a measure of another one.

    Attributes:
        soup: name of the arm. measure: of another dimension. dimension: that of the measure.
        effect: on the measure. share: effect / range; the range is what the base and that dimension's own adapters, each alone,
            span on the measure.
    """

    soup: str
    measure: str
    dimension: str
    effect: Estimate | None
    share: Estimate | None


@dataclass(frozen=True, slots=True)
class Additive:
    """Whether the effects of soups on a measure are the sums of those of their adapters, each alone at the same weight.

    Attributes:
        measure: which one. gaps: name of a soup -> its effect minus that sum.
        share: 1 - sum of gaps^2 / sum of effects^2, over the soups; 1 where all add up, 0 where the sums say no more than that
            soups do nothing, negative where they say less. None of a measure that no soup moves.
    """

    measure: str
    gaps: Mapping[str, Estimate | None]
    share: Estimate | None


@dataclass(frozen=True, slots=True)
class Linear:
    """R^2 of the least-squares plane from weights to a measure, over so many soups; None of a measure that no soup moves."""

    measure: str
    soups: int
    r2: Estimate | None


@dataclass(frozen=True, slots=True)
class Monotony:
    """Rank correlation of the weight of one adapter alone, 0 among them, with a measure of its dimension."""

    adapter: str
    measure: str
    steps: tuple[float, ...]
    rank: Estimate | None


@dataclass(frozen=True, slots=True)
class Reached:
    """Error between asked and reached over soups of several dimensions.

    A weight asks for that share of the effect that its adapter has alone at weight 1.

    Attributes:
        dimension: which one. measure: of it. asked: how many weights.
        error: mean of |reached - asked| / range, see `CrossTalk`.
    """

    dimension: str
    measure: str
    asked: int
    error: Estimate | None


@dataclass(frozen=True, slots=True)
class Composition:
    """All figures of how soups compose.

    Attributes:
        unmoved: measures that no soup moves, of which additivity and linearity would be those of noise.
    """

    kept: tuple[Kept, ...]
    cross_talk: tuple[CrossTalk, ...]
    additive: tuple[Additive, ...]
    linear: tuple[Linear, ...]
    monotony: tuple[Monotony, ...]
    reached: tuple[Reached, ...]
    unmoved: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """Effects of soups on measures in every draw of prompts.

    Attributes:
        soups: name of an arm -> its weights without zeros; no two are equal.
        adapters: name of an adapter -> its dimension.
        measures: name of a measure -> its dimension, "" for damage; in the order of the last axis of `rows`.
        rows: [1 + draws, soups, measures], mean over prompts of the soup minus the base.
        cells: [prompts, soups, measures] of which these are the means; NaN where there is no value. draws: of the prompts.
    """

    soups: Mapping[str, Weights]
    adapters: Mapping[str, str]
    measures: Mapping[str, str]
    rows: Numbers
    cells: Numbers
    draws: Resampling

    @classmethod
    def of(
        cls,
        table: Table,
        soups: Mapping[str, Weights],
        prompts: Sequence[str],
        draws: Resampling,
        *,
        adapters: Mapping[str, str],
        measures: Mapping[str, str],
    ) -> "Effects":
        """Effects from values.

        Args:
            table: values of all soups and prompts; of a prompt that not every soup answered, nothing counts.
            soups: arm -> weights of soups by one method, the bare base ({}) among them; of equal weights the first counts.
            prompts: in the order of the draws.
            draws: of as many prompts.
            adapters: name -> dimension, of all that soups are made of.
            measures: name -> dimension; those that are nowhere in the table are left out.

        Raises:
            EvaluationError: the base is not among the soups (reason "no-base"), or no prompt was answered by all
                ("no-answers").
        """
        first: dict[Weights, str] = {}
        for name, weights in soups.items():
            first.setdefault(weights.nonzero(), name)
        if Weights() not in first:
            raise EvaluationError(
                "effects are differences to the bare base, and no arm has no weights; add one", reason="no-base"
            )
        there = {measure for values in table.values() for measure in values}
        known = {name: dimension for name, dimension in measures.items() if name in there}
        cells = cells_of(table, tuple(first.values()), prompts, tuple(known))
        cells -= cells[:, [list(first).index(Weights())]]
        rows = draws.means(cells.reshape(len(prompts), -1)).reshape(-1, len(first), len(known))
        return cls({name: weights for weights, name in first.items()}, dict(adapters), known, rows, cells, draws)

    def named(self, weights: Weights) -> str | None:
        """The soup with just these weights, if there is one."""
        return next((name for name, each in self.soups.items() if each == weights.nonzero()), None)

    def on(self, soup: str, measure: str) -> Numbers:
        """[1 + draws] effect of a soup on a measure."""
        found: Numbers = self.rows[:, list(self.soups).index(soup), list(self.measures).index(measure)]
        return found

    def on_all(self, soups: Sequence[str], measure: str) -> list[Numbers]:
        """[1 + draws] effects of each of these soups on a measure, over the prompts at which all of them have a value.

        Some have none: what is left without its sentences of tone may be nothing.
        """
        names = list(self.soups)
        cells = self.cells[:, [names.index(soup) for soup in soups], list(self.measures).index(measure)]
        lacks = np.isnan(cells)
        if (lacks == lacks[:, :1]).all():
            return [self.on(soup, measure) for soup in soups]
        return list(self.draws.means(np.where(lacks.any(1, keepdims=True), np.nan, cells)).T)

    def has_enough(self, soups: Sequence[str], measure: str) -> bool:
        """Whether these soups have a value on a measure at `LEAST_PROMPTS` that they share."""
        names = list(self.soups)
        cells = self.cells[:, [names.index(soup) for soup in soups], list(self.measures).index(measure)]
        return int((~np.isnan(cells)).all(1).sum()) >= LEAST_PROMPTS

    def of_dimension(self, dimension: str) -> tuple[str, ...]:
        """The measures of a dimension."""
        return tuple(name for name, each in self.measures.items() if each == dimension)

    def dimensions(self, soup: str) -> dict[str, Weights]:
        """The dimensions of a soup -> its weights of their adapters."""
        parts: dict[str, dict[str, int]] = {}
        for name, micro in self.soups[soup].items():
            parts.setdefault(self.adapters[name], {})[name] = micro
        return {dimension: Weights.from_micro(part) for dimension, part in sorted(parts.items())}

    def moved(self, measure: str) -> bool:
        """Whether any soup has an effect on a measure, see `stands_out`."""
        place = list(self.measures).index(measure)
        told = int((~np.isnan(self.cells[:, :, place])).any(1).sum())
        return stands_out(self.rows[:, :, place], told)

    def alone(self, adapter: str, micro: int) -> str | None:
        """The soup of one adapter at one weight, if there is one."""
        return self.named(Weights.from_micro({adapter: micro}))


def cells_of(table: Table, soups: Sequence[str], prompts: Sequence[str], measures: Sequence[str]) -> Numbers:
    """Values as [prompts, soups, measures]; NaN where there is no value, and for prompts that not all soups answered.

    Raises:
        EvaluationError: no prompt was answered by all soups (reason "no-answers").
    """
    cells = np.full((len(prompts), len(soups), len(measures)), np.nan)
    answered = [place for place, prompt in enumerate(prompts) if all((name, prompt) in table for name in soups)]
    if not answered:
        raise EvaluationError("no prompt was answered by all soups; let the run finish", reason="no-answers")
    for place in answered:
        for column, name in enumerate(soups):
            values = table[name, prompts[place]]
            cells[place, column] = [values.get(measure, np.nan) for measure in measures]
    return cells


def composition(effects: Effects) -> Composition:
    """All figures of how soups by one method compose, at one temperature."""
    return Composition(
        kept=tuple(_kept(effects)),
        cross_talk=tuple(cross_talk(effects)),
        additive=tuple(_additive(effects)),
        linear=tuple(_linear(effects)),
        monotony=tuple(_monotony(effects)),
        reached=tuple(_reached(effects)),
        unmoved=tuple(name for name in effects.measures if not effects.moved(name)),
    )


def _kept(effects: Effects) -> Iterator[Kept]:
    for soup in effects.soups:
        parts = effects.dimensions(soup)
        for dimension, part in parts.items():
            alone = effects.named(part)
            if len(parts) > 1 and alone is not None:
                for measure in effects.of_dimension(dimension):
                    whole, single = effects.on_all([soup, alone], measure)
                    share = ratio(whole, single) if effects.has_enough([soup, alone], measure) else None
                    yield Kept(soup, dimension, measure, estimate(whole), estimate(single), share)


def cross_talk(effects: Effects) -> Iterator[CrossTalk]:
    """What the soups of one dimension do to the measures of others."""
    for soup in effects.soups:
        own = effects.dimensions(soup)
        for measure, dimension in effects.measures.items():
            if len(own) == 1 and dimension and dimension not in own:
                effect, span = effects.on(soup, measure), _range(effects, measure)
                yield CrossTalk(soup, measure, dimension, estimate(effect), ratio(effect, span))


def _range(effects: Effects, measure: str) -> Numbers:
    """[1 + draws] what the base and the adapters of a measure's own dimension, one at a time, span on it."""
    dimension = effects.measures[measure]
    own = [
        name
        for name, weights in effects.soups.items()
        if len(weights) <= 1 and all(effects.adapters[each] == dimension for each in weights)
    ]
    ordered = sorted(effects.on_all(own, measure), key=lambda row: float(np.nan_to_num(row[0])))
    return ordered[-1] - ordered[0]


def _additive(effects: Effects) -> Iterator[Additive]:
    sums: dict[str, list[str]] = {}
    for soup, weights in effects.soups.items():
        parts = [effects.alone(name, micro) for name, micro in weights.items()]
        known = [part for part in parts if part is not None]
        if len(weights) > 1 and len(known) == len(parts):
            sums[soup] = known
    for measure in effects.measures:
        found, gaps = {}, {}
        for soup, single in sums.items():
            found[soup], *alone = effects.on_all([soup, *single], measure)
            gaps[soup] = found[soup] - sum(alone)
        yield Additive(
            measure,
            {soup: estimate(gap) for soup, gap in gaps.items()},
            _explained(list(gaps.values()), list(found.values())) if sums and effects.moved(measure) else None,
        )


def _explained(gaps: Sequence[Numbers], effects: Sequence[Numbers]) -> Estimate | None:
    """1 - sum of squared gaps / sum of squared effects, row by row."""
    left, all_of_it = (np.square(np.stack(rows)).sum(0) for rows in (gaps, effects))
    return corrected(1.0 - np.divide(left, all_of_it, out=np.full_like(left, np.nan), where=all_of_it > 0), most=1.0)


def _linear(effects: Effects) -> Iterator[Linear]:
    names = sorted({name for weights in effects.soups.values() for name in weights})
    plane = np.array([[MILLION, *weights.along(names)] for weights in effects.soups.values()]) / MILLION
    for place, measure in enumerate(effects.measures):
        found = effects.rows[:, :, place]  # [1 + draws, soups]
        r2 = None
        if len(plane) > plane.shape[1] and effects.moved(measure):
            off = found - found @ np.linalg.pinv(plane).T @ plane.T
            r2 = _explained(list(off.T), list((found - found.mean(1, keepdims=True)).T))
        yield Linear(measure, len(plane), r2)


def _monotony(effects: Effects) -> Iterator[Monotony]:
    for adapter, dimension in sorted(effects.adapters.items()):
        line = sorted(
            (weights.get(adapter, 0), name) for name, weights in effects.soups.items() if not {*weights} - {adapter}
        )
        if len(line) > 2:
            steps = tuple(micro / MILLION for micro, _ in line)
            for measure in effects.of_dimension(dimension):
                rows = np.stack(effects.on_all([name for _, name in line], measure), axis=1)
                yield Monotony(adapter, measure, steps, estimate(spearman(steps, rows)))


def _reached(effects: Effects) -> Iterator[Reached]:
    errors: dict[str, list[Numbers]] = {}
    for soup, weights in effects.soups.items():
        parts = effects.dimensions(soup)
        for adapter, micro in weights.items():
            dimension, full = effects.adapters[adapter], effects.alone(adapter, MILLION)
            if len(parts) > 1 and len(parts[dimension]) == 1 and full is not None:
                for measure in effects.of_dimension(dimension):
                    reached, whole = effects.on_all([soup, full], measure)
                    errors.setdefault(measure, []).append(np.abs(reached - whole * (micro / MILLION)))
    for measure, rows in sorted(errors.items()):
        error = shares(np.stack(rows).mean(0), _range(effects, measure))
        told = None if error is None else corrected(error, least=0.0)
        yield Reached(effects.measures[measure], measure, len(rows), told)
