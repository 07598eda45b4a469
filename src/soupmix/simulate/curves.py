"""AL(k), the mean score of the answers of turn k, as ALOE has it (arXiv 2410.03642); with intervals over people.

The improvement rate is the least-squares slope of AL(k) over k. N-IR is that of the curve stretched to reach from 0 to 1, and
N-R2 how much of the stretched curve the line explains. Both know no scale: a flat noisy curve can have those of a real climb, so
they are told beside AL(1), AL(10) and the slope, and never alone.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from soupmix.evaluate.statistics import Estimate, Resampling, estimate, ratio
from soupmix.preference.traits import Numbers
from soupmix.simulate.conversations import ARMS, ArmName, Conversations

__all__ = ["ArmCurve", "Curves", "curves"]


@dataclass(frozen=True, slots=True)
class ArmCurve:
    """What came of one arm.

    Attributes:
        turns: AL(k) by turn. first, last: of the first two and the last two turns, which one turn would be too few for.
        slope: improvement rate. n_ir, n_r2: see the module.
        on_topic: share of answers on topic; None where nobody knows.
        exam: mean score after the last turn, on prompts that nobody asked before; None without an exam.
        behind: in the exam, else in the last two turns, how far this arm is behind the posterior soup that asks questions, person
            by person.
        of_oracle: the same score as a share of the oracle's.
    """

    turns: tuple[Estimate, ...]
    first: Estimate
    last: Estimate
    slope: Estimate
    n_ir: float
    n_r2: float
    on_topic: float | None
    exam: Estimate | None
    behind: Estimate
    of_oracle: Estimate


@dataclass(frozen=True, slots=True)
class Curves:
    """Of every arm its curve, over so many people."""

    arms: Mapping[ArmName, ArmCurve]
    people: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with four digits."""
        return {"people": self.people, "arms": {name: _rounded(asdict(each)) for name, each in self.arms.items()}}


def curves(found: Conversations) -> Curves:
    """The curves of conversations, with 95 % intervals by the bootstrap over people, all over the same draws."""
    arms = [arm for arm in ARMS if any(each.arm == arm for each in found.scored)]
    tables = {arm: found.table(arm) for arm in arms}
    people = len(tables["base"])
    drawn = Resampling(people)
    asked = bool(found.exam)
    ends = {arm: drawn.means(found.table(arm, exam=True) if asked else tables[arm][:, -2:]).mean(1) for arm in arms}
    made = {}
    for arm in arms:
        topics = [
            each.on_topic for each in (*found.scored, *found.exam) if each.arm == arm and each.on_topic is not None
        ]
        against = ends["questions"] - ends[arm], ratio(ends[arm], ends["oracle"])
        made[arm] = _curve(drawn.means(tables[arm]), topics, ends[arm] if asked else None, *against)
    return Curves(made, people)


def _curve(
    means: Numbers, on_topic: list[bool], exam: Numbers | None, behind: Numbers, of_oracle: Estimate | None
) -> ArmCurve:
    """Of [1 + draws, turns] means, and what else there is of [1 + draws]."""
    n_ir, n_r2 = _stretched(means[0])
    return ArmCurve(
        tuple(_sure(means[:, turn]) for turn in range(means.shape[1])),
        _sure(means[:, :2].mean(1)),
        _sure(means[:, -2:].mean(1)),
        _sure(_slopes(means)),
        n_ir,
        n_r2,
        float(np.mean(on_topic)) if on_topic else None,
        None if exam is None else _sure(exam),
        _sure(behind),
        of_oracle or Estimate(float("nan"), float("nan"), float("nan")),
    )


def _sure(rows: Numbers) -> Estimate:
    found = estimate(rows)
    return found if found is not None else Estimate(float("nan"), float("nan"), float("nan"))


def _slopes(means: Numbers) -> Numbers:
    """[rows] least-squares slopes of [rows, turns]; 0 of a single turn."""
    off = np.arange(means.shape[1]) - (means.shape[1] - 1) / 2
    return np.asarray(means @ off / max(float(off @ off), 1e-12))


def _stretched(curve: Numbers) -> tuple[float, float]:
    """N-IR and N-R2 of [turns]; 0 of a curve that is level to the bit."""
    reach = float(np.ptp(curve))
    if len(curve) < 2 or reach == 0:
        return 0.0, 0.0
    whole = (curve - curve.min()) / reach
    slope = float(_slopes(whole[None])[0])
    line = slope * (np.arange(len(curve)) - (len(curve) - 1) / 2)
    return slope, float(1 - np.square(whole - whole.mean() - line).sum() / np.square(whole - whole.mean()).sum())


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return round(value, 4) if isinstance(value, float) else value
