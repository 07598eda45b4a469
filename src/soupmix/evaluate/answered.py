"""Which arms of an evaluation can be compared, over which prompts, and what they do there.

Arms are compared over the prompts that all of them answered. One that has just begun would leave hardly any, so those that lack
a tenth of what most answered are told for themselves, over their own prompts, and compared with the base alone.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from soupmix.evaluate.composition import Table
from soupmix.evaluate.record import EvaluationRecord
from soupmix.evaluate.soups import Arm
from soupmix.evaluate.statistics import Resampling

__all__ = ["ArmValues", "is_base", "is_plain_soup"]

Numbers = NDArray[np.float64]

_ENOUGH = 0.9  # of the prompts that most arms answered


class ArmValues:
    """The values of all arms at one temperature.

    Attributes:
        arms: that are compared, in order, the base among them if it answered at all; few: the others that answered, name -> how
            many prompts.
        prompts: texts of those that all of `arms` answered; record_prompts: of all.
        base: name of the bare base, "" if it did not answer.
        measures: names. draws: of all prompts of the record.
        values: arm -> [prompts of the record, measures]; NaN where there is no value, and, of arms that are compared, for prompts
            that do not count.
    """

    def __init__(self, record: EvaluationRecord, table: Table, measures: Sequence[str], draws: Resampling) -> None:
        prompts = [each.prompt for each in record.prompts]
        counts = {each.name: 0 for each in record.arms}
        for name, _ in table:
            counts[name] += 1
        bare = next((each.name for each in record.all_arms() if is_base(each)), "")
        self.base = bare if counts.get(bare) else ""
        enough = _ENOUGH * max(counts.values())
        self.arms = tuple(name for name, count in counts.items() if count and (count >= enough or name == self.base))
        self.few = {name: count for name, count in counts.items() if count and name not in self.arms}
        self.prompts = tuple(each for each in prompts if all((name, each) in table for name in self.arms))
        self.measures, self.draws, self.record_prompts = tuple(measures), draws, tuple(prompts)
        counted = set(self.prompts)
        self.values: Mapping[str, Numbers] = {
            name: np.array(
                [
                    [row.get(measure, np.nan) for measure in measures]
                    for each in prompts
                    for row in [table.get((name, each), {}) if each in counted or name in self.few else {}]
                ]
            ).reshape(len(prompts), len(measures))
            for name in (*self.arms, *self.few)
        }

    def differences(self, arm: str) -> Numbers | None:
        """[prompts, measures] of an arm minus the base at the same prompt; None where there is no base."""
        return self.values[arm] - self.values[self.base] if self.base else None

    def effects(self, arm: str) -> Numbers | None:
        """[1 + draws, measures], the means of `differences`; None where there is no base."""
        found = self.differences(arm)
        return None if found is None else self.draws.means(found)


def is_plain_soup(arm: Arm, method: str) -> bool:
    """Whether an arm is a soup by this method and nothing else, or the bare base."""
    return arm.way == "soup" and not arm.system and not arm.shots and (arm.method == method or not arm.weights)


def is_base(arm: Arm) -> bool:
    """Whether an arm is the bare base."""
    return not arm.weights and is_plain_soup(arm, arm.method)
