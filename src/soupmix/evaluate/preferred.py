"""Policy accuracy: does a soup give the text that a person with its weights prefers more probability than the other one?

How well a reward ranks texts says little of this (arXiv 2512.23067), so the policy, here the soup, is asked. A person is
simulated: of two answers the preferred one has more of what the weights ask for, by all measures of their dimensions, none of
which chose what the adapters were trained on. Real people differ from that, and more than simulated ones do from each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soupmix.engine import Engine
from soupmix.evaluate.composition import Table
from soupmix.evaluate.likelihood import Forced, answer_log_p
from soupmix.evaluate.measures import Measure
from soupmix.evaluate.measuring import MeasuredSamples
from soupmix.evaluate.record import AdapterFacts, EvaluationRecord
from soupmix.evaluate.samples import ArmSample
from soupmix.evaluate.soups import Arm
from soupmix.evaluate.statistics import wilson
from soupmix.policy import Grant, Policy

__all__ = ["PreferredPair", "accuracies", "policy_accuracy", "preferred_pairs"]

_APART = 0.5  # standard deviations: whom two answers please equally prefers none
_TRIES = 20


@dataclass(frozen=True, slots=True)
class PreferredPair:
    """Two answers to one prompt, the preferred one first."""

    prompt: str
    preferred: str
    other: str


def accuracies(
    engine: Engine,
    policy: Policy,
    record: EvaluationRecord,
    samples: Sequence[ArmSample],
    measured: MeasuredSamples,
    *,
    most: int = 12,
) -> dict[str, Any]:
    """Arm -> `policy_accuracy`, for at most so many of the soups that have answered, spread over all of them in order.

    The texts are those of the highest temperature: greedy ones are more alike.

    Args:
        policy: grants the weights. measured: the same samples, measured.
    """
    soups = [
        each for each in record.all_arms() if each.weights and each.way == "soup" and not (each.system or each.shots)
    ]
    temperature = max(measured.tables, default=0.0)
    table = measured.tables.get(temperature, {})
    texts = [each for each in samples if each.temperature == temperature and (each.arm.name, each.prompt) in table]
    step, found = max(-(-len(soups) // most), 1), {}
    for arm in soups[::step]:
        chosen = preferred_pairs(arm, texts, table, measured.measures, record.adapters)
        found[arm.name] = policy_accuracy(engine, arm, (policy.clamp({}), policy.clamp(arm.weights)), chosen)
    return found


def preferred_pairs(
    arm: Arm,
    samples: Sequence[ArmSample],
    table: Table,
    measures: Mapping[str, Measure],
    adapters: Mapping[str, AdapterFacts],
    *,
    count: int = 1,
    seed: int = 0,
) -> list[PreferredPair]:
    """Pairs of answers for a person with an arm's weights, at most so many per prompt, drawn from what all arms answered.

    Args:
        samples: of one temperature. table: values of every arm and prompt at it. measures: those of dimensions count.
        adapters: dimension and pole of every adapter.
    """
    pleasing = _pleasing(arm, samples, table, measures, adapters)
    by_prompt: dict[str, dict[str, float]] = {}
    for each in samples:
        by_prompt.setdefault(each.prompt, {})[each.text] = pleasing[each.arm.name, each.prompt]
    draw, found = Random(seed), []
    for prompt, texts in by_prompt.items():
        ordered = sorted(texts)
        chosen: set[tuple[str, str]] = set()
        for _ in range(_TRIES if len(ordered) > 1 else 0):
            one, other = draw.sample(ordered, 2)
            pair = (one, other) if texts[one] > texts[other] else (other, one)
            if len(chosen) < count and texts[pair[0]] - texts[pair[1]] >= _APART:
                chosen.add(pair)
        found += [PreferredPair(prompt, *pair) for pair in sorted(chosen)]
    return found


def _pleasing(
    arm: Arm,
    samples: Sequence[ArmSample],
    table: Table,
    measures: Mapping[str, Measure],
    adapters: Mapping[str, AdapterFacts],
) -> dict[tuple[str, str], float]:
    """(Arm, prompt) -> how much of what the weights ask for its answer has, in standard deviations over all answers."""
    keys = [(each.arm.name, each.prompt) for each in samples]
    total = np.zeros(len(keys))
    for name, weight in arm.weights.items():
        about = adapters[name]
        counted = [each for each in measures.values() if each.dimension == about.dimension]
        scores = [
            each.sign(about.pole) * _standardised([table[key].get(each.name) for key in keys]) for each in counted
        ]
        if scores:
            total += weight / sum(arm.weights.values()) * np.mean(scores, axis=0)
    return dict(zip(keys, total.tolist(), strict=True))


def _standardised(values: Sequence[float | None]) -> NDArray[np.float64]:
    """Deviations from the mean over the spread; what has no value is as the mean."""
    given = np.array([np.nan if each is None else each for each in values], np.float64)
    there = given[~np.isnan(given)]
    spread = float(there.std()) if there.size else 0.0
    return np.nan_to_num((given - there.mean()) / spread) if spread > 0 else np.zeros(len(values))


def policy_accuracy(
    engine: Engine, arm: Arm, grants: tuple[Grant, Grant], pairs: Sequence[PreferredPair]
) -> dict[str, Any]:
    """Shares of the pairs in which the preferred answer is the likelier one, with Wilson intervals.

    Args:
        grants: of the bare base and of the arm.

    Returns:
        "pairs": how many; "base" and "soup": by log-probability per token; "shift": by what the soup adds to the log-probability
        that the base gives the whole text. None where there is no pair.
    """
    texts = [(each.prompt, text) for each in pairs for text in (each.preferred, each.other)]
    forced = [Forced(prompt, text, grant) for grant in grants for prompt, text in texts]
    found = answer_log_p(engine, forced, method=arm.method)
    sums = np.array([float(each.sum()) for each in found]).reshape(2, -1, 2)
    means = np.array([float(each.mean()) if len(each) else 0.0 for each in found]).reshape(2, -1, 2)
    gained = sums[1] - sums[0]
    return {
        "pairs": len(pairs),
        "base": _share(means[0]),
        "soup": _share(means[1]),
        "shift": _share(gained),
    }


def _share(values: NDArray[np.float64]) -> dict[str, float] | None:
    """Of [pairs, 2] how often the first is larger."""
    found = wilson(int((values[:, 0] > values[:, 1]).sum()), len(values))
    return None if found is None else {name: round(value, 4) for name, value in asdict(found).items()}
