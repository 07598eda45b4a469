"""Two models of a person, as fixed particles.

In both, the utility of an answer at the point x is, up to what is the same for all answers, w.x - c(x):

    linear    u = w.x                      w is a share of every trait, or a direction where less can be wanted
    ideal     u = -|x - z|^2 / 2           z is the point that is best;  u(x) - u(y) = z.(x - y) - (|x|^2 - |y|^2) / 2

so that a comparison is a half-space of wants, and one piece of code serves both. Particles are drawn once by scrambled Sobol
points (Owen 1998), the same for everybody with the same prior, traits and seed; evidence only weighs them. They lie along a curve
that fills space (Morton 1966), so that every so-many-th of them is spread as all are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from soupmix.preference.prior import Gaussian, ModelName, Prior
from soupmix.preference.traits import Numbers

__all__ = ["Wants", "coordinates", "wants"]

_FARTHEST_IDEAL = 2.5  # units; a flat prior knows ideals as far out in every trait


@dataclass(frozen=True, slots=True, eq=False)
class Wants:
    """What people who fit one model could want, before any evidence each as likely as the others.

    Attributes:
        model: which.
        points: [particles, traits] w or z.
        order: [traits, particles] which particle is the least, second least, ... in a trait.
    """

    model: ModelName
    points: Numbers
    order: "np.ndarray[tuple[int, ...], np.dtype[np.intp]]"

    def utilities(self, points: Numbers) -> Numbers:
        """[particles, points] utilities of [points, traits], up to a constant of each particle."""
        found = self.points @ points.T
        if self.model == "ideal":
            found -= 0.5 * np.square(points).sum(1)
        return np.asarray(found, dtype=np.float64)

    def differences(self, first: Numbers, second: Numbers) -> Numbers:
        """[..., particles] how much better the first of [..., traits] points is than the second, by utility."""
        found = (first - second) @ self.points.T
        if self.model == "ideal":
            found -= 0.5 * (np.square(first).sum(-1) - np.square(second).sum(-1))[..., None]
        return np.asarray(found, dtype=np.float64)


@lru_cache(64)
def _drawn(model: ModelName, traits: int, signed: bool, population: Gaussian | None, count: int, seed: int) -> Wants:
    uniform = qmc.Sobol(traits, scramble=True, rng=np.random.default_rng(seed)).random(count)
    uniform = np.clip(uniform[np.argsort(_along_curve(uniform), kind="stable")], 1e-9, 1 - 1e-9)
    points = _MADE[model, signed](uniform, population)
    found = Wants(model, points, np.argsort(points, axis=0, kind="stable").T)
    found.points.flags.writeable = found.order.flags.writeable = False  # everybody shares them
    return found


def _along_curve(uniform: Numbers) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    """[points] place on Morton's curve of [points, traits] numbers from 0 to 1: their bits, the first of all traits first."""
    place = np.zeros(len(uniform), dtype=np.int64)
    for level in range(1, min(8, 60 // uniform.shape[1]) + 1):
        for bit in (uniform * 2**level).astype(np.int64).T & 1:
            place = place << 1 | bit
    return place


def wants(model: ModelName, traits: int, signed: bool, prior: Prior, count: int, seed: int) -> Wants:
    """The particles of a model.

    Args:
        count: a power of 2, by which Sobol points are balanced.
        seed: of their scrambling.
    """
    return _drawn(model, traits, signed, prior.populations.get(model), count, seed)


def coordinates(model: ModelName, signed: bool, points: Numbers) -> Numbers:
    """[..., traits] wants in the coordinates in which a population is Gaussian.

    Shares by their square roots, which are a direction and stay finite where a share is nothing; directions and ideals as they
    are.
    """
    if model == "ideal" or signed:
        return points
    return np.sqrt(points)


def _shares(uniform: Numbers, population: Gaussian | None) -> Numbers:
    """Flat: Dirichlet(1), by exponentials."""
    raw = -np.log(uniform) if population is None else np.square(_normal(uniform, population))
    return np.asarray(raw / np.maximum(raw.sum(1, keepdims=True), 1e-12), dtype=np.float64)


def _directions(uniform: Numbers, population: Gaussian | None) -> Numbers:
    """Flat: uniform on the sphere."""
    raw = ndtri(uniform) if population is None else _normal(uniform, population)
    return np.asarray(raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12), dtype=np.float64)


def _ideals(uniform: Numbers, population: Gaussian | None) -> Numbers:
    flat = _FARTHEST_IDEAL * (2 * uniform - 1)
    return flat if population is None else _normal(uniform, population)


def _normal(uniform: Numbers, population: Gaussian) -> Numbers:
    return np.asarray(ndtri(uniform) @ population.factor().T + np.array(population.mean), dtype=np.float64)


_MADE: dict[tuple[ModelName, bool], Callable[[Numbers, Gaussian | None], Numbers]] = {
    ("linear", False): _shares,
    ("linear", True): _directions,
    ("ideal", False): _ideals,
    ("ideal", True): _ideals,
}
