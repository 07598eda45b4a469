"""Between which floor and ceiling a measure lies in a run: what the base does, and the most that anything does for a pole alone.

The floor is the bare base. The ceiling is the best of the adapter alone at full weight, the preference prompt of its pole, and
the texts that it was trained on. All but the last are taken over the prompts that every one of them has a value at; the texts
answer prompts of their own, so of them the difference to plain answers to the same prompts counts.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from soupmix.evaluate.answered import ArmValues, is_plain_soup
from soupmix.evaluate.measures import Measure
from soupmix.evaluate.record import EvaluationRecord
from soupmix.evaluate.soups import Arm
from soupmix.evaluate.statistics import Estimate, estimate
from soupmix.evaluate.trained import TRAINED, TrainedEffects
from soupmix.weights import MILLION

__all__ = ["spans"]


def spans(
    record: EvaluationRecord, answered: ArmValues, measures: Mapping[str, Measure], trained: TrainedEffects
) -> Iterator[dict[str, Any]]:
    """For every adapter and measure of its dimension: {"adapter", "measure", "prompts", "floor", "ceiling", "ceiling_of",
    "candidates": name -> effect as an `Estimate`}.
    """
    known = {arm.name: arm for arm in record.all_arms() if arm.name in answered.arms}
    for adapter, facts in sorted(record.adapters.items()) if answered.base else ():
        asks = record.preferences.get(facts.pole)
        names = [name for name, arm in known.items() if _is_full(arm, adapter) or (asks and _is_prompt(arm, asks))]
        for name, measure in measures.items():
            if measure.dimension == facts.dimension:
                floor, prompts, effects = _paired(answered, names, name)
                text = trained.effects.get((facts.pole, name))
                effects |= {} if text is None else {TRAINED: text}
                if prompts and effects:
                    sign = measure.sign(facts.pole)
                    best = max(effects, key=lambda each: (sign * effects[each].value, each))
                    yield {
                        "adapter": adapter,
                        "measure": name,
                        "prompts": prompts,
                        "floor": floor,
                        "ceiling": floor + effects[best].value,
                        "ceiling_of": best,
                        "candidates": effects,
                    }


def _paired(answered: ArmValues, names: list[str], measure: str) -> tuple[float, int, dict[str, Estimate]]:
    """Mean of the base, over how many prompts, and the effect of each of some arms over the same ones."""
    place = answered.measures.index(measure)
    cells = np.stack([answered.values[name][:, place] for name in (answered.base, *names)], axis=1)
    cells[np.isnan(cells).any(1)] = np.nan
    count = int((~np.isnan(cells[:, 0])).sum())
    rows = answered.draws.means(cells - cells[:, :1])
    found = {name: estimate(rows[:, 1 + number]) for number, name in enumerate(names)}
    floor = float(np.nanmean(cells[:, 0])) if count else 0.0
    return floor, count, {name: each for name, each in found.items() if each is not None}


def _is_full(arm: Arm, adapter: str) -> bool:
    return dict(arm.weights) == {adapter: MILLION} and is_plain_soup(arm, arm.method)


def _is_prompt(arm: Arm, asks: str) -> bool:
    return arm.way == "soup" and not arm.weights and not arm.shots and arm.system == asks
