"""Families side by side: what their arms do on average that ask for as many poles with as much weight."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soupmix.evaluate.families import asked_of, family_of
from soupmix.evaluate.index import Index
from soupmix.evaluate.measures import Measure
from soupmix.evaluate.record import EvaluationRecord
from soupmix.evaluate.soups import Arm
from soupmix.weights import decimal_text

__all__ = ["groups"]

Numbers = NDArray[np.float64]


def groups(record: EvaluationRecord, index: Index, measures: Sequence[Measure]) -> Iterator[dict[str, Any]]:
    """Of every family, count of poles and weight {"family", "poles", "weight", "arms", "toward", "measures"}, with `Estimate`s.

    "weight" is "" without weights and "mixed" for unequal ones. "toward" is, for every dimension, the index towards the pole
    that is asked for, mean over the arms that ask for one; "measures" has the means of all measures of damage. Prompts count
    at which all these arms have a value.
    """
    found: dict[tuple[str, int, str], list[Arm]] = {}
    for arm in record.all_arms():
        if arm.name in index.answered.arms:
            key = family_of(arm, record), len(asked_of(arm, record)), _weight(arm)
            found.setdefault(key, []).append(arm)
    damage = [each.name for each in measures if not each.dimension and each.name in index.answered.measures]
    for (family, poles, weight), arms in found.items():
        yield {
            "family": family,
            "poles": poles,
            "weight": weight,
            "arms": [each.name for each in arms],
            "toward": _toward(record, index, arms),
            "measures": {name: _mean(index, name, arms) for name in damage},
        }


def _weight(arm: Arm) -> str:
    values = set(arm.weights.values())
    if not values:
        return ""
    return decimal_text(values.pop()) if len(values) == 1 else "mixed"


def _toward(record: EvaluationRecord, index: Index, arms: Sequence[Arm]) -> dict[str, Any]:
    found = {}
    for place, dimension in enumerate(index.poles):
        signs = {each.name: asked_of(each, record).get(dimension) for each in arms}
        cells = [index.cells[name][:, place] * index.toward(dimension, pole) for name, pole in signs.items() if pole]
        if cells:
            found[dimension] = index.answered.draws.mean(np.mean(cells, axis=0))
    return found


def _mean(index: Index, measure: str, arms: Sequence[Arm]) -> Any:
    place = index.answered.measures.index(measure)
    cells: Numbers = np.mean([index.answered.values[each.name][:, place] for each in arms], axis=0)
    return index.answered.draws.mean(cells)
