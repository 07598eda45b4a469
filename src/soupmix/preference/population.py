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
_LEAST_SPREAD = 0.15  # of the logarithm of sharpness: a grid of five cannot tell less
_LEAST = 1e-3  # square root of a share, of which a logarithm is taken


def fitted(people: Sequence[Posterior]) -> Prior:
    """A prior of people like these: of each model the Gaussian of their wants, and how sharply they choose.

    Both are fitted by expectation maximisation: each person's wants are weighed by what is believed of all, and that becomes the
    moments of them all, so that people of whom little is known count as what the others are like. The Gaussian is taken for a
    density on directions too, which is approximate.
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
    found = {model: _fitted(people, model) for model in people[0].wants}
    populations = {model: each[0] for model, each in found.items()}
    shares = np.array([[each.models()[model] for model in found] for each in people]).mean(0)
    logs, variances = np.array([each[1:] for each in found.values()]).T
    mean = float(shares @ logs)
    spread = float(np.sqrt(max(shares @ (variances + np.square(logs - mean)), _LEAST_SPREAD**2)))
    return Prior(float(np.exp(mean)), spread, people[0].prior.floors, populations, people[0].prior.careless)


def _kind(posterior: Posterior) -> tuple[object, ...]:
    return posterior.traits.digest, posterior.prior, posterior.particles, posterior.seed, tuple(posterior.wants)


def _fitted(people: Sequence[Posterior], model: ModelName) -> tuple[Gaussian, float, float]:
    """The Gaussian of wants, and mean and variance of the logarithm of sharpness, of people who are not careless.

    Both are fitted together: who chooses strictly is told from who is sure of what they want by what others are like.
    """
    first = people[0]
    some = first.how.sharpness > 0
    points, logs = coordinates(model, first.traits.signed, first.wants[model].points), np.log(first.how.sharpness[some])
    products = np.einsum("ni,nj->nij", points, points).reshape(len(points), -1)
    cells = np.array([each.cells(model)[some].sum(1) for each in people])  # [people, sharpnesses, particles]
    known = _log_normal(logs, float(np.log(first.prior.sharpness)), first.prior.spread**2)
    before = _log_density(first, model, points)
    wanted, sharp = np.zeros(len(points)), np.zeros(len(logs))
    for _ in range(_ROUNDS):
        weights = cells * np.exp(sharp - sharp.max())[:, None] * np.exp(wanted - wanted.max())
        weights /= weights.sum((1, 2), keepdims=True)
        by_point, by_log = weights.sum(1), weights.sum(2)
        means = by_point @ points
        squares = (by_point @ products).reshape(len(people), *(points.shape[1],) * 2)
        found = Gaussian.fitted(means, squares - np.einsum("pi,pj->pij", means, means))
        mean = float((by_log @ logs).mean())
        variance = float((by_log @ np.square(logs - mean)).mean())
        wanted = found.log_density(points) - before
        sharp = _log_normal(logs, mean, max(variance, _LEAST_SPREAD**2)) - known
    return found, mean, variance


def _log_normal(logs: Numbers, mean: float, variance: float) -> Numbers:
    """Log-densities up to a constant; level where nothing is spread."""
    return np.asarray(-0.5 * np.square(logs - mean) / variance if variance else np.zeros(len(logs)))


def _log_density(posterior: Posterior, model: ModelName, points: Numbers) -> Numbers:
    """Of the prior that particles came from, in the coordinates of the model, up to a constant."""
    known = posterior.prior.populations.get(model)
    if known is not None:
        return known.log_density(points)
    if model == "linear" and not posterior.traits.signed:  # flat in shares, of which these are square roots
        return np.asarray(np.log(np.maximum(points, _LEAST)).sum(1))
    return np.zeros(len(points))
