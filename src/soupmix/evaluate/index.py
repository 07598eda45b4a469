"""One number a dimension: how far an answer lies towards a pole, by all measures of the dimension together.

A measure that is only counted can be gamed; all of a dimension together hardly. Of each the difference to the base at the same
prompt counts, in standard deviations of the measure over all answers of the run (Cohen 1988), with its sign; the index is their
mean. Measures that no arm moves are left out: they would only dilute the others. What the base says as a judge counts only where
no measure of text does: some arms choose by it, and of known texts it is less right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soupmix.evaluate.answered import ArmValues
from soupmix.evaluate.composition import Table
from soupmix.evaluate.measures import Measure
from soupmix.evaluate.record import EvaluationRecord
from soupmix.evaluate.statistics import stands_out

__all__ = ["Index", "index_of"]

Numbers = NDArray[np.float64]

_OPENING = "opening_"  # says what was trained, not what an answer is


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """The index of every dimension that has one.

    Attributes:
        poles: dimension -> its poles; the first is where the index grows to. A dimension has one or two here.
        units: dimension -> measure -> standard deviation, negative where more of the measure is less of the first pole.
        cells: arm -> [prompts of the record, dimensions]; NaN where nothing can be told. The base has zeros.
        answered: of whom.
    """

    poles: Mapping[str, tuple[str, ...]]
    units: Mapping[str, Mapping[str, float]]
    cells: Mapping[str, Numbers]
    answered: ArmValues

    def rows(self, arm: str) -> Numbers:
        """[1 + draws, dimensions] the mean over prompts in every draw."""
        return self.answered.draws.means(self.cells[arm])

    def toward(self, dimension: str, pole: str) -> int:
        """Whether more of the index of a dimension is more (+1) or less (-1) of a pole."""
        return 1 if pole == self.poles[dimension][0] else -1

    def table(self) -> Table:
        """As values of measures that are called as their dimension."""
        counted = set(self.answered.prompts)
        return {
            (arm, prompt): dict(zip(self.poles, map(float, row), strict=True))
            for arm, rows in self.cells.items()
            for prompt, row in zip(self.answered.record_prompts, rows, strict=True)
            if prompt in counted
        }


def index_of(record: EvaluationRecord, answered: ArmValues, measures: Mapping[str, Measure]) -> Index | None:
    """The index at one temperature; None where there is no base, or nothing that anybody moves."""
    poles: dict[str, set[str]] = {}
    for facts in record.adapters.values():
        poles.setdefault(facts.dimension, set()).add(facts.pole)
    ends = {dimension: tuple(sorted(found)) for dimension, found in sorted(poles.items()) if len(found) <= 2}
    if not answered.base:
        return None
    moved = _moved(answered)
    units = {
        dimension: found
        for dimension, own in ends.items()
        if (found := _units(answered, measures, dimension, own, moved))
    }
    if not units:
        return None
    cells = {}
    for name in answered.arms:
        differences = answered.differences(name)
        if differences is not None:
            cells[name] = _cells(differences, answered.measures, list(units.values()))
    return Index({dimension: ends[dimension] for dimension in units}, units, cells, answered)


def _moved(answered: ArmValues) -> set[str]:
    """Measures on which any arm has an effect."""
    base = answered.values[answered.base]
    found = set()
    for place, name in enumerate(answered.measures):
        cells = np.stack([answered.values[arm][:, place] - base[:, place] for arm in answered.arms], axis=1)
        if stands_out(answered.draws.means(cells), int((~np.isnan(cells)).any(1).sum())):
            found.add(name)
    return found


def _units(
    answered: ArmValues, measures: Mapping[str, Measure], dimension: str, poles: Sequence[str], moved: set[str]
) -> dict[str, float]:
    own = [each for name, each in measures.items() if each.dimension == dimension and name in moved]
    of_text = [each for each in own if "model" not in each.needs]
    found = {}
    for measure in of_text or [each for each in own if not each.name.startswith(_OPENING)]:
        place = answered.measures.index(measure.name)
        deviation = float(np.nanstd(np.concatenate([answered.values[arm][:, place] for arm in answered.arms])))
        if deviation > 0:
            found[measure.name] = deviation * measure.sign(poles[0])
    return found


def _cells(differences: Numbers, measures: Sequence[str], units: Sequence[Mapping[str, float]]) -> Numbers:
    """[prompts, dimensions], of each the mean over those of its measures that have a value."""
    columns = []
    for each in units:
        own = differences[:, [measures.index(name) for name in each]] / np.array(list(each.values()))
        there = ~np.isnan(own)
        with np.errstate(invalid="ignore"):
            columns.append(np.where(there, own, 0.0).sum(1) / there.sum(1))
    return np.stack(columns, axis=1)
