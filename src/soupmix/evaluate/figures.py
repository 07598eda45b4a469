"""The figures of a report: what every arm does, between which floor and ceiling, and how soups compose."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soupmix.errors import EvaluationError
from soupmix.evaluate.composition import Effects, Table, composition
from soupmix.evaluate.measures import Measure
from soupmix.evaluate.measuring import NotMeasured
from soupmix.evaluate.record import EvaluationRecord
from soupmix.evaluate.soups import Arm
from soupmix.evaluate.statistics import Estimate, Resampling, estimate
from soupmix.weights import MILLION, Weights

__all__ = ["ReportFigures", "figure", "figures", "is_plain_soup"]

Numbers = NDArray[np.float64]

_ENOUGH = (
    0.9  # of the prompts that most arms answered: an arm that has just begun would leave no prompts to compose over
)


@dataclass(frozen=True, slots=True)
class ReportFigures:
    """All figures, as JSON; keys are temperatures first.

    Attributes:
        arms: temperature -> arm -> {"prompts", "measures": {measure: {"mean", "effect"}}}; effects are against the bare base
            over the prompts that both answered.
        spans: temperature -> for every adapter and measure of its dimension the floor and the ceiling of this run.
        composition: temperature -> method -> figures of `soupmix.evaluate.composition`.
        left_out: what could not be told.
    """

    arms: Mapping[str, Any]
    spans: Mapping[str, Any]
    composition: Mapping[str, Any]
    left_out: tuple[NotMeasured, ...]


def figures(record: EvaluationRecord, tables: Mapping[float, Table], measures: Mapping[str, Measure]) -> ReportFigures:
    """All figures of an evaluation.

    Args:
        tables: temperature -> values of every arm and prompt. measures: those that were measured.
    """
    draws = Resampling(max(len(record.prompts), 1))
    left_out: list[NotMeasured] = []
    arms, spans, composed = {}, {}, {}
    for temperature, table in tables.items():
        if not table:
            continue
        word = f"{temperature:g}"
        of_arms = _Arms(record, table, tuple(measures), draws)
        arms[word] = of_arms.figures()
        spans[word] = list(_spans(record, arms[word], measures))
        composed[word] = _composed(record, table, measures, draws, word, left_out)
    return ReportFigures(arms, spans, composed, tuple(left_out))


class _Arms:
    """Values [prompts, measures] of every arm that has answered; NaN where there is none."""

    def __init__(self, record: EvaluationRecord, table: Table, measures: Sequence[str], draws: Resampling) -> None:
        self._measures, self._draws = measures, draws
        prompts = [each.prompt for each in record.prompts]
        self._values: dict[str, Numbers] = {}
        for arm in record.arms:
            rows = [table.get((arm.name, prompt), {}) for prompt in prompts]
            if any(rows):
                self._values[arm.name] = np.array([[row.get(name, np.nan) for name in measures] for row in rows])
        bare = next((each.name for each in record.all_arms() if _is_base(each)), "")
        self._base = self._values.get(bare)

    def figures(self) -> dict[str, Any]:
        return {name: self._of(values) for name, values in self._values.items()}

    def _of(self, values: Numbers) -> dict[str, Any]:
        means = self._draws.means(values)
        effects = None if self._base is None else self._draws.means(values - self._base)
        return {
            "prompts": int((~np.isnan(values)).any(1).sum()),
            "measures": {
                name: {
                    "mean": figure(estimate(means[:, place])),
                    "effect": None if effects is None else figure(estimate(effects[:, place])),
                }
                for place, name in enumerate(self._measures)
                if not np.isnan(values[:, place]).all()
            },
        }


def _spans(
    record: EvaluationRecord, arms: Mapping[str, Any], measures: Mapping[str, Measure]
) -> Iterator[dict[str, Any]]:
    """The floor is the bare base; the ceiling is the adapter alone at full weight or its preference prompt, whichever is more."""
    known = {arm.name: arm for arm in record.all_arms() if arm.name in arms}
    bare = next((name for name, arm in known.items() if _is_base(arm)), None)
    for adapter, facts in sorted(record.adapters.items()):
        asks = record.preferences.get(facts.pole)
        candidates = [name for name, arm in known.items() if _is_full(arm, adapter) or (asks and _is_prompt(arm, asks))]
        for name, measure in measures.items():
            if measure.dimension == facts.dimension and bare is not None:
                means = {each: _mean(arms[each], name) for each in (bare, *candidates)}
                there = {each: value for each, value in means.items() if value is not None}
                if bare in there and len(there) > 1:
                    yield _span(adapter, name, there, bare, measure.sign(facts.pole))


def _span(adapter: str, measure: str, means: Mapping[str, float], bare: str, sign: int) -> dict[str, Any]:
    others = {name: value for name, value in means.items() if name != bare}
    best = max(others, key=lambda name: (sign * others[name], name))
    return {
        "adapter": adapter,
        "measure": measure,
        "floor": means[bare],
        "ceiling": others[best],
        "ceiling_of": best,
        "candidates": others,
    }


def _composed(
    record: EvaluationRecord,
    table: Table,
    measures: Mapping[str, Measure],
    draws: Resampling,
    word: str,
    left_out: list[NotMeasured],
) -> dict[str, Any]:
    """Of every method the figures of its soups."""
    counts = _counts(record, table)
    enough = _ENOUGH * max(counts.values())
    found = {}
    for method in dict.fromkeys(each.method for each in record.arms if each.weights):
        soups = {arm.name: arm.weights for arm in record.all_arms() if is_plain_soup(arm, method)}
        few = [name for name in soups if counts.get(name, 0) < enough]
        for name in few:
            told = f"{counts.get(name, 0)} prompts are answered, {max(counts.values())} by others"
            left_out.append(NotMeasured(f"composition of {name} at temperature {word}", told))
        effects = _effects(record, table, {name: soups[name] for name in soups if name not in few}, measures, draws)
        if isinstance(effects, EvaluationError):
            left_out.append(NotMeasured(f"composition by {method} at temperature {word}", str(effects)))
        else:
            found[method] = as_json(composition(effects))
    return found


def _effects(
    record: EvaluationRecord,
    table: Table,
    soups: Mapping[str, Weights],
    measures: Mapping[str, Measure],
    draws: Resampling,
) -> Effects | EvaluationError:
    prompts = [each.prompt for each in record.prompts]
    adapters = {name: facts.dimension for name, facts in record.adapters.items()}
    dimensions = {name: measure.dimension for name, measure in measures.items()}
    try:
        return Effects.of(table, soups, prompts, draws, adapters=adapters, measures=dimensions)
    except EvaluationError as error:
        return error


def _counts(record: EvaluationRecord, table: Table) -> dict[str, int]:
    """How many prompts every arm has answered."""
    found: dict[str, int] = dict.fromkeys((each.name for each in record.arms), 0)
    for name, _ in table:
        found[name] += 1
    return found


def is_plain_soup(arm: Arm, method: str) -> bool:
    """Whether an arm is a soup by this method and nothing else, or the bare base."""
    return arm.way == "soup" and not arm.system and not arm.shots and (arm.method == method or not arm.weights)


def _is_base(arm: Arm) -> bool:
    return not arm.weights and is_plain_soup(arm, arm.method)


def _is_full(arm: Arm, adapter: str) -> bool:
    return dict(arm.weights) == {adapter: MILLION} and is_plain_soup(arm, arm.method)


def _is_prompt(arm: Arm, asks: str) -> bool:
    return arm.way == "soup" and not arm.weights and not arm.shots and arm.system == asks


def _mean(arm: Mapping[str, Any], measure: str) -> float | None:
    found = arm["measures"].get(measure)
    return None if found is None or found["mean"] is None else float(found["mean"]["value"])


def figure(found: Estimate | None) -> dict[str, float] | None:
    """As JSON, six digits: beyond them processors differ."""
    return None if found is None else {name: float(f"{value:.6g}") for name, value in asdict(found).items()}


def as_json(found: Any) -> Any:
    """Dataclasses of figures, as JSON."""
    if isinstance(found, Estimate):
        return figure(found)
    if is_dataclass(found):
        return {name: as_json(getattr(found, name)) for name in found.__dataclass_fields__}
    if isinstance(found, Mapping):
        return {name: as_json(value) for name, value in found.items()}
    return [as_json(each) for each in found] if isinstance(found, tuple | list) else found
