"""The figures of a report: what every arm does, between which floor and ceiling, and how soups compose."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np

from soupmix.errors import EvaluationError
from soupmix.evaluate.answered import ArmValues, is_plain_soup
from soupmix.evaluate.composition import Composition, Effects, Table, composition
from soupmix.evaluate.decides import decides
from soupmix.evaluate.fronts import fronts
from soupmix.evaluate.groups import groups
from soupmix.evaluate.index import index_of
from soupmix.evaluate.measures import Measure
from soupmix.evaluate.measuring import NotMeasured
from soupmix.evaluate.record import EvaluationRecord
from soupmix.evaluate.spans import spans
from soupmix.evaluate.statistics import Estimate, Resampling, estimate
from soupmix.evaluate.trained import TrainedEffects
from soupmix.weights import Weights

__all__ = ["ReportFigures", "figure", "figures"]

_NAMED = 8  # arms in a sentence


@dataclass(frozen=True, slots=True)
class ReportFigures:
    """All figures, as JSON; keys are temperatures first.

    Attributes:
        arms: temperature -> arm -> {"prompts", "measures": {measure: {"mean", "effect"}}}; effects are against the bare base
            over the prompts that both answered. Arms that are compared are over the same prompts (`ArmValues`).
        spans: temperature -> for every adapter and measure of its dimension the floor and the ceiling of this run.
        composition: temperature -> method -> figures of `soupmix.evaluate.composition`.
        decides, fronts, groups: temperature -> what `soupmix.evaluate.decides`, `fronts` and `groups` say.
        left_out: what could not be told.
    """

    arms: Mapping[str, Any]
    spans: Mapping[str, Any]
    composition: Mapping[str, Any]
    decides: Mapping[str, Any]
    fronts: Mapping[str, Any]
    groups: Mapping[str, Any]
    left_out: tuple[NotMeasured, ...]


def figures(
    record: EvaluationRecord,
    tables: Mapping[float, Table],
    measures: Mapping[str, Measure],
    trained: TrainedEffects | None = None,
) -> ReportFigures:
    """All figures of an evaluation.

    Args:
        tables: temperature -> values of every arm and prompt. measures: those that were measured.
        trained: of the texts that the adapters were trained on, if they are there.

    Raises:
        EvaluationError: moocore is not installed (reason "no-library").
    """
    draws = Resampling(max(len(record.prompts), 1))
    left_out: list[NotMeasured] = []
    arms, floors, composed = {}, {}, {}
    decided, reached, grouped = {}, {}, {}
    for temperature, table in tables.items():
        if not table:
            continue
        word = f"{temperature:g}"
        answered = ArmValues(record, table, tuple(measures), draws)
        left_out += _few(answered, word)
        arms[word] = {name: _of_arm(answered, name) for name in answered.values}
        floors[word] = as_json(list(spans(record, answered, measures, trained or TrainedEffects())))
        composed[word] = _composed(record, table, answered, measures, word, left_out)
        index = index_of(record, answered, measures)
        if index is not None:
            decided[word] = as_json(decides(record, index))
            reached[word] = as_json(fronts(record, index))
            grouped[word] = as_json(list(groups(record, index, tuple(measures.values()))))
    return ReportFigures(arms, floors, composed, decided, reached, grouped, tuple(left_out))


def _of_arm(answered: ArmValues, name: str) -> dict[str, Any]:
    values, effects = answered.values[name], answered.effects(name)
    means = answered.draws.means(values)
    there = {name: place for place, name in enumerate(answered.measures) if not np.isnan(values[:, place]).all()}
    return {
        "prompts": answered.few.get(name, len(answered.prompts)),
        "measures": {
            measure: {
                "mean": figure(estimate(means[:, place])),
                "effect": None if effects is None else figure(estimate(effects[:, place])),
            }
            for measure, place in there.items()
        },
    }


def _few(answered: ArmValues, word: str) -> list[NotMeasured]:
    """Said once of a temperature: which arms are told for themselves alone."""
    if not answered.few:
        return []
    named = ", ".join(f"{name} ({count})" for name, count in list(answered.few.items())[:_NAMED])
    more = f" and {len(answered.few) - _NAMED} more" if len(answered.few) > _NAMED else ""
    told = (
        f"they answered less than nine tenths of what most arms answered, and the others {len(answered.prompts)} prompts "
        f"together: {named}{more}"
    )
    return [NotMeasured(f"floors, ceilings and composition of {len(answered.few)} arms at temperature {word}", told)]


def _composed(
    record: EvaluationRecord,
    table: Table,
    answered: ArmValues,
    measures: Mapping[str, Measure],
    word: str,
    left_out: list[NotMeasured],
) -> dict[str, Any]:
    """Of every method the figures of its soups."""
    found = {}
    for method in dict.fromkeys(each.method for each in record.arms if each.weights):
        arms = (arm for arm in record.all_arms() if arm.name in answered.arms and is_plain_soup(arm, method))
        effects = _effects(record, table, {arm.name: arm.weights for arm in arms}, measures, answered)
        if isinstance(effects, EvaluationError):
            left_out.append(NotMeasured(f"composition by {method} at temperature {word}", str(effects)))
        else:
            made = composition(effects)
            left_out += _unmoved(made, method, word)
            found[method] = as_json(made)
    return found


def _unmoved(found: Composition, method: str, word: str) -> list[NotMeasured]:
    if not found.unmoved:
        return []
    told = f"no soup moves {', '.join(found.unmoved)}: the largest of their effects is no larger than noise gives one of so many"
    return [NotMeasured(f"additivity and R2 of {len(found.unmoved)} measures by {method} at temperature {word}", told)]


def _effects(
    record: EvaluationRecord,
    table: Table,
    soups: Mapping[str, Weights],
    measures: Mapping[str, Measure],
    answered: ArmValues,
) -> Effects | EvaluationError:
    counted = set(answered.prompts)
    shared = {key: row for key, row in table.items() if key[1] in counted}
    prompts = [each.prompt for each in record.prompts]
    adapters = {name: facts.dimension for name, facts in record.adapters.items()}
    dimensions = {name: measure.dimension for name, measure in measures.items()}
    try:
        return Effects.of(shared, soups, prompts, answered.draws, adapters=adapters, measures=dimensions)
    except EvaluationError as error:
        return error


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
