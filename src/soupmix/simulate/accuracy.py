"""Policy accuracy after a simulation: does the soup that was learnt give the text that a person prefers more probability?

A reward that ranks texts well may make a policy that does not follow it (arXiv 2512.23067), so the soup itself is asked. Texts
are answers of many soups to the prompts of the exam, which nobody had asked before; who prefers which follows from hidden wants.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from soupmix.engine import Engine
from soupmix.evaluate.likelihood import Forced, answer_log_p
from soupmix.evaluate.statistics import Estimate, Resampling, estimate
from soupmix.policy import Grant
from soupmix.preference.traits import Numbers
from soupmix.simulate.answers import SimulatedAnswer
from soupmix.simulate.conversations import ArmName, Conversations, SimulationPlan
from soupmix.simulate.people import Person
from soupmix.weights import Weights

__all__ = ["SoupAccuracy", "accuracy"]

_APART: Final = 0.5  # of utility: whom two texts please as well prefers none
_SOUPS: Final[tuple[ArmName, ...]] = ("base", "uniform", "oracle", "questions", "random-questions", "cues")


@dataclass(frozen=True, slots=True)
class SoupAccuracy:
    """Of the soups of one arm, shares of pairs, with 95 % intervals over people.

    Attributes:
        likelier: in which the preferred text has the larger log-probability per token.
        gained: in which the soup adds more to the log-probability that the base gives the whole text; None of the base.
    """

    likelier: Estimate
    gained: Estimate | None


@dataclass(frozen=True, slots=True)
class _Pair:
    prompt: str
    preferred: str
    other: str


def accuracy(
    plan: SimulationPlan,
    found: Conversations,
    engine: Engine,
    allow: Callable[[Weights], Grant],
    *,
    pairs: int = 4,
    advance: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[ArmName, SoupAccuracy]:
    """Of every arm that is a soup, how often it does.

    Args:
        plan, found: with an exam, whose answers are texts.
        engine: of the base and the adapters. allow: grants weights.
        pairs: of texts, for each person at most.
        advance: called with ("people", done, in all).

    Returns:
        Arm -> shares; empty where nobody prefers any text, or there are none.

    Raises:
        SoupmixError: as `answer_log_p`, and as weights are granted.
    """
    soups = {(each.person, each.arm): each.weights for each in found.exam if each.arm in _SOUPS}
    rows: dict[ArmName, list[tuple[float, float]]] = {arm: [] for arm in _SOUPS}
    for number, person in enumerate(plan.people):
        advance("people", number, len(plan.people))
        drawn = _pairs(plan, found, person, pairs)
        if drawn:
            told = _told(engine, allow, drawn, {arm: soups[person.number, arm] for arm in _SOUPS})
            for arm, row in told.items():
                rows[arm].append(row)
    advance("people", len(plan.people), len(plan.people))
    made: dict[ArmName, SoupAccuracy] = {}
    for arm, each in rows.items():
        means = Resampling(len(each)).means(np.array(each)) if each else np.zeros((0, 2))
        likelier = estimate(means[:, 0]) if each else None
        if likelier is not None:
            made[arm] = SoupAccuracy(likelier, None if arm == "base" else estimate(means[:, 1]))
    return made


def _pairs(plan: SimulationPlan, found: Conversations, person: Person, most: int) -> list[_Pair]:
    """Pairs of texts of which this person clearly prefers the first, prompt by prompt in turn."""
    luck, drawn = plan.luck(person, 2000), list[_Pair]()
    pools = [(prompt, [each for each in pool if each.values is not None]) for prompt, pool in found.pools.items()]
    known = [(prompt, [each.text for each in pool], _utilities(plan, person, pool)) for prompt, pool in pools if pool]
    for turn in range(most if known else 0):
        prompt, texts, used = known[turn % len(known)]
        apart = np.argwhere(used[:, None] - used[None] >= _APART)
        apart = apart[[bool(texts[a]) and bool(texts[b]) for a, b in apart]]
        if len(apart):
            first, second = apart[luck.integers(len(apart))]
            drawn.append(_Pair(prompt, texts[first], texts[second]))
    return list(dict.fromkeys(drawn))


def _utilities(plan: SimulationPlan, person: Person, pool: Sequence[SimulatedAnswer]) -> Numbers:
    points = [plan.reach.traits.point(each.values) for each in pool if each.values is not None]
    return person.utility(np.clip(np.array(points), -3.0, 3.0))


def _told(
    engine: Engine, allow: Callable[[Weights], Grant], drawn: Sequence[_Pair], soups: Mapping[ArmName, Weights]
) -> dict[ArmName, tuple[float, float]]:
    """Of every arm the share of pairs in which the preferred text is likelier per token, and in which it gains more."""
    grants = {weights: allow(weights) for weights in dict.fromkeys([Weights(), *soups.values()])}
    texts = [(each.prompt, text) for each in drawn for text in (each.preferred, each.other)]
    forced = [Forced(prompt, text, grant) for grant in grants.values() for prompt, text in texts]
    logs = answer_log_p(engine, forced)
    shape = len(grants), len(drawn), 2
    sums = np.array([float(each.sum()) for each in logs]).reshape(shape)
    means = np.array([float(each.mean()) for each in logs]).reshape(shape)
    place = {weights: number for number, weights in enumerate(grants)}
    made = {}
    for arm, weights in soups.items():
        at = place[weights]
        gained = sums[at] - sums[place[Weights()]]
        made[arm] = (_share(means[at]), _share(gained) if weights.nonzero() else 0.5)
    return made


def _share(values: Numbers) -> float:
    """Of [pairs, 2] how often the first is larger; equal ones count as half."""
    return float(((values[:, 0] > values[:, 1]) + 0.5 * (values[:, 0] == values[:, 1])).mean())
