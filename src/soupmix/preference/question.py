"""Which question to ask next: of which two answers a person's choice would tell the most, and whether to ask at all.

Every rule gives every pair a score, and the pair with the largest is asked. With p the chance that the first is chosen:

    information-gain   H(E p) - E H(p): what the answer tells of wants, in nats (BALD, Houlsby et al. 2011, arXiv 1112.5745); of
                       many pairs that of the 200 best by d-optimal, which ranks alike and costs a hundredth
    d-optimal          s^2 p (1 - p) v' C v at the mean person, v = x - y, C the covariance of wants: the rule of PReF
                       (arXiv 2503.06358) on this posterior
    volume             min(E p, 1 - E p): halves what people are possible (AMPLe, arXiv 2411.00524)
    duel               E u(x) + E u(y) + sd(u(x) - u(y)): two good answers that differ where little is known (T-POP, arXiv
                       2509.24696)
    random             any pair
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from soupmix.errors import PreferenceError
from soupmix.preference.draws import Draws
from soupmix.preference.posterior import Posterior
from soupmix.preference.traits import Numbers
from soupmix.preference.wants import Wants

__all__ = ["DEFAULT_RULE", "ENOUGH", "RULES", "Question", "RuleName", "next_question", "scores"]

RuleName = Literal["information-gain", "d-optimal", "volume", "duel", "random"]
DEFAULT_RULE: Final[RuleName] = "information-gain"
"""What measures best (docs/preference.md)."""

ENOUGH: Final = 0.02
"""Expected regret, in shares of all that there is to win, below which no question is worth its while."""

_DRAWS, _REGRET_DRAWS = 512, 128
_MOST_PAIRS = 1000
_MOST_LOOKED_AT = 200  # pairs, the best by d-optimal, of which the information is computed


@dataclass(frozen=True, slots=True)
class Question:
    """Two answers to choose from.

    Attributes:
        first, second: their places among the points that were offered.
        score: what the rule says of them.
        chance: that the first is chosen, as far as is known.
        regret: what is expected to be lost, as a share of what there is to win, if no more is asked.
    """

    first: int
    second: int
    score: float
    chance: float
    regret: float


def next_question(
    posterior: Posterior,
    points: Numbers,
    *,
    pairs: "NDArray[np.intp] | None" = None,
    rule: RuleName = DEFAULT_RULE,
    enough: float = ENOUGH,
) -> Question | None:
    """The pair that a rule would ask about, or None if nothing is left that is worth a question.

    The same posterior, points and rule give the same question.

    Args:
        posterior: what is known.
        points: [points, traits] standard units of answers that can be shown, measured, or expected of soups inside a policy.
        pairs: [pairs, 2] places of those that may be asked about; all pairs if none are given, or 1,000 of them.
        rule: one of `RULES`.
        enough: expected regret below which None is returned.

    Raises:
        PreferenceError: fewer than two points, or no such rule (reason "no-question").
    """
    if len(points) < 2 or rule not in RULES or not np.isfinite(points).all():
        raise PreferenceError(
            f"a question needs two measured answers and one of the rules {', '.join(RULES)}", reason="no-question"
        )
    draws = posterior.draws(_DRAWS)
    regret = float(posterior.expected_regret(points, _REGRET_DRAWS).min())
    if regret < enough:
        return None
    offered = _pairs(posterior, len(points)) if pairs is None else pairs
    first, second = points[offered[:, 0]], points[offered[:, 1]]
    found = RULES[rule](posterior, draws, first, second)
    place = int(np.argmax(found))
    chance = float(draws.chances(first[place : place + 1], second[place : place + 1]).mean())
    return Question(int(offered[place, 0]), int(offered[place, 1]), float(found[place]), chance, regret)


def scores(posterior: Posterior, first: Numbers, second: Numbers, rule: RuleName = DEFAULT_RULE) -> Numbers:
    """[pairs] what a rule says of every pair of [pairs, traits] points."""
    return RULES[rule](posterior, posterior.draws(_DRAWS), first, second)


def _pairs(posterior: Posterior, points: int) -> "NDArray[np.intp]":
    every = np.array(list(itertools.combinations(range(points), 2)), dtype=np.intp)
    if len(every) <= _MOST_PAIRS:
        return every
    return every[_luck(posterior).choice(len(every), _MOST_PAIRS, replace=False)]


def _luck(posterior: Posterior) -> np.random.Generator:
    """The same whenever as much was learnt."""
    return np.random.default_rng([posterior.seed, len(posterior.signals)])


def _information_gain(posterior: Posterior, draws: Draws, first: Numbers, second: Numbers) -> Numbers:
    found = np.full(len(first), -np.inf)
    likely = np.arange(len(first))
    if len(first) > _MOST_LOOKED_AT:
        likely = np.argsort(-_d_optimal(posterior, draws, first, second), kind="stable")[:_MOST_LOOKED_AT]
    found[likely] = _information(draws, first[likely], second[likely])
    return found


def _information(draws: Draws, first: Numbers, second: Numbers) -> Numbers:
    mean, inner, count = np.zeros(len(first)), np.zeros(len(first)), 0
    for block in draws.blocks():
        chances = block.chances(first, second)
        mean += chances.sum(0)
        inner += _entropy(chances).sum(0)
        count += len(chances)
    return np.asarray(_entropy(mean / count) - inner / count)


def _entropy(chances: Numbers) -> Numbers:
    """Of one answer, in nats; floors keep chances off 0 and 1."""
    other = 1 - chances
    return np.asarray(-(chances * np.log(chances) + other * np.log(other)))


def _d_optimal(posterior: Posterior, _: Draws, first: Numbers, second: Numbers) -> Numbers:
    model = posterior.best
    sharp, v = posterior.sharpness(model), first - second
    at_mean = Wants(model, posterior.mean(model)[None], posterior.wants[model].order)
    mean = sharp * at_mean.differences(first, second)[:, 0]
    steep = 1 / (2 + 2 * np.cosh(np.clip(mean, -60, 60)))
    spread = np.einsum("pi,ij,pj->p", v, posterior.covariance(model), v)
    return np.asarray(sharp**2 * steep * spread)


def _volume(_: Posterior, draws: Draws, first: Numbers, second: Numbers) -> Numbers:
    chance = draws.chances(first, second).mean(0)
    return np.asarray(np.minimum(chance, 1 - chance))


def _duel(_: Posterior, draws: Draws, first: Numbers, second: Numbers) -> Numbers:
    used = draws.utilities(np.concatenate([first, second]))
    one, other = used[:, : len(first)], used[:, len(first) :]
    return np.asarray((one + other).mean(0) + (one - other).std(0))


def _random(posterior: Posterior, _: Draws, first: Numbers, second: Numbers) -> Numbers:
    return np.asarray(_luck(posterior).random(len(first)))


RULES: Final[dict[RuleName, Callable[[Posterior, Draws, Numbers, Numbers], Numbers]]] = {
    "information-gain": _information_gain,
    "d-optimal": _d_optimal,
    "volume": _volume,
    "duel": _duel,
    "random": _random,
}
