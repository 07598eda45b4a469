"""How people answer, given what they want: Bradley-Terry with a floor of chance, over a grid of how strictly they choose."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from soupmix.preference.comparisons import Comparison
from soupmix.preference.prior import Prior
from soupmix.preference.traits import Numbers
from soupmix.preference.wants import Wants

__all__ = ["UNIT", "Responses", "Table", "log_likelihood", "responses"]

Table = NDArray[np.int64]
"""[sharpnesses, floors, particles] log-likelihoods in whole units of 2^-24 nats.

Whole numbers add up to the same in any order, and what was added can be taken away again without a trace.
"""

UNIT: Final = 2.0**-24
_SHARPNESSES = 5
_REACH = 2.0  # standard deviations of its logarithm: who chooses nearly by lot, and who hardly ever errs, are possible
_STEEPEST = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Responses:
    """The grid over which posteriors know how somebody answers.

    Attributes:
        sharpness: [sharpnesses] log-odds of a choice per unit of utility: 0, of who is careless, and then even steps of the
            prior's logarithm from two standard deviations below its median to two above.
        weights: [sharpnesses] how likely each is before any evidence.
        floors: [floors] chance of either answer whatever somebody wants, each as likely as the others.
    """

    sharpness: Numbers
    weights: Numbers
    floors: Numbers


@lru_cache(64)
def _grid(sharpness: float, spread: float, floors: tuple[float, ...], careless: float) -> Responses:
    steps = np.linspace(-_REACH, _REACH, _SHARPNESSES)
    density = np.exp(-np.square(steps) / 2)
    sharp = np.concatenate([[0.0], sharpness * np.exp(spread * steps)])
    weights = np.concatenate([[careless], (1 - careless) * density / density.sum()])
    some = weights > 0
    return Responses(sharp[some], weights[some], np.array(floors))


def responses(prior: Prior) -> Responses:
    """The grid of a prior."""
    return _grid(prior.sharpness, prior.spread, prior.floors, prior.careless)


def log_likelihood(comparison: Comparison, wants: Wants, how: Responses) -> Table:
    """Log-likelihoods of what somebody said of two points.

    P(first over second) = floor + (1 - 2 floor) sigma(sharpness (u(first) - u(second))), Bradley-Terry with the noise floor of
    AMPLe (arXiv 2411.00524). Between two answers that are the same to somebody a tie is one of three outcomes (Davidson 1970). A
    preference by halves is the mean of both log-likelihoods.
    """
    first, second, share = comparison.first, comparison.second, comparison.share
    if share < 0.5:
        first, second, share = second, first, 1 - share  # so that exchanging two answers changes no bit
    utility = how.sharpness.astype(np.float32)[:, None] * wants.differences(first, second).astype(np.float32)
    np.clip(utility, -_STEEPEST, _STEEPEST, out=utility)
    floors = how.floors.astype(np.float32)[None, :, None]
    chance = 1 / (1 + (2 * np.cosh(utility / 2) if comparison.tie else np.exp(-utility)))
    said = np.log(floors + (1 - 2 * floors) * chance[:, None])
    if not comparison.tie and share < 1:
        said = share * said + (1 - share) * np.log(floors + (1 - 2 * floors) * (1 - chance[:, None]))
    whole: Table = np.rint(said * np.float32(comparison.counts / UNIT)).astype(np.int64)
    return whole
