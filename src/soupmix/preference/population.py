"""A prior from a population: what the posteriors of other people have in common (the idea of Pep, arXiv 2602.15012)."""

from collections.abc import Sequence

import numpy as np

from soupmix.errors import PreferenceError
from soupmix.preference.posterior import Posterior
from soupmix.preference.prior import Gaussian, ModelName, Prior
from soupmix.preference.traits import Numbers
from soupmix.preference.wants import coordinates

__all__ = ["FEWEST", "fitted"]

FEWEST = 5
"""People whom a population must have, so that it is nobody's portrait."""

_ROUNDS = 12
_LEAST = 1e-3  # square root of a share, of which a logarithm is taken


def fitted(people: Sequence[Posterior]) -> Prior:
    """A prior of people like these: of each model the Gaussian of their wants, and how sharply they choose.

    The Gaussian is fitted by expectation maximisation: each person's wants are weighed by it, and it becomes the moments of
    them all, so that people of whom little is known count as what the others are like. It is taken for a density on
    directions too, which is approximate.
    Only means and covariances are kept. Fit it to people who agreed to that.

    Args:
        people: posteriors by the same traits and prior, of five people or more.

    Raises:
        PreferenceError: fewer than five (reason "too-few-people"), or of several traits or priors ("other-traits").
    """
    if len(people) < FEWEST:
        raise PreferenceError(
            f"{len(people)} people are no population; fit a prior to {FEWEST} or more, or take the flat one",
            reason="too-few-people",
        )
    if any(_kind(each) != _kind(people[0]) for each in people):
        raise PreferenceError(
            "these people were measured by different traits, or began from different priors; fit a prior to one kind",
            reason="other-traits",
        )
    populations = {model: _gaussian(people, model) for model in people[0].wants}
    sharp = np.array([_sharpness(each) for each in people])
    spread = float(np.sqrt(sharp[:, 0].var() + sharp[:, 1].mean()))
    return Prior(
        float(np.exp(sharp[:, 0].mean())), spread, people[0].prior.floors, populations, people[0].prior.careless
    )


def _kind(posterior: Posterior) -> tuple[object, ...]:
    return posterior.traits.digest, posterior.prior, posterior.particles, posterior.seed, tuple(posterior.wants)


def _gaussian(people: Sequence[Posterior], model: ModelName) -> Gaussian:
    first = people[0]
    points = coordinates(model, first.traits.signed, first.wants[model].points)
    products = np.einsum("ni,nj->nij", points, points).reshape(len(points), -1)
    chances = np.array([each.probabilities(model) for each in people])
    before = _log_density(first, model, points)
    weights = chances
    for _ in range(_ROUNDS):
        means = weights @ points
        squares = (weights @ products).reshape(len(people), *(points.shape[1],) * 2)
        found = Gaussian.fitted(means, squares - np.einsum("pi,pj->pij", means, means))
        shift = found.log_density(points) - before
        weights = chances * np.exp(shift - shift.max())
        weights /= weights.sum(1, keepdims=True)
    return found


def _log_density(posterior: Posterior, model: ModelName, points: Numbers) -> Numbers:
    """Of the prior that particles came from, in the coordinates of the model, up to a constant."""
    known = posterior.prior.populations.get(model)
    if known is not None:
        return known.log_density(points)
    if model == "linear" and not posterior.traits.signed:  # flat in shares, of which these are square roots
        return np.asarray(np.log(np.maximum(points, _LEAST)).sum(1))
    return np.zeros(len(points))


def _sharpness(posterior: Posterior) -> tuple[float, float]:
    """Posterior mean and variance of the logarithm, by the best model, of who is not careless."""
    some = posterior.how.sharpness > 0
    chances, logs = posterior.sharpnesses()[some], np.log(posterior.how.sharpness[some])
    chances = chances / chances.sum()
    mean = float(chances @ logs)
    return mean, float(chances @ np.square(logs - mean))
