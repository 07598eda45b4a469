"""What is believed of a person before any evidence: nothing, or what a population of others is like."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from soupmix.errors import PreferenceError
from soupmix.preference.traits import Numbers

__all__ = ["MODELS", "Gaussian", "ModelName", "Prior"]

ModelName = Literal["linear", "ideal"]
MODELS: Final[tuple[ModelName, ...]] = ("linear", "ideal")
"""Of a person: more of what is wanted is always better, or there is a point that is best."""

_OWN = 1e-3  # variance that a fitted prior leaves to everybody: no two people are quite the same
_MOST_TRAITS, _MOST_FLOORS = 64, 16
_FARTHEST, _WIDEST = 100.0, 1e4  # of a mean and of a variance, in the units of wants, of which people have a few


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Wants of a population, in the coordinates of a model (see `soupmix.preference.wants`).

    Attributes:
        mean: [traits].
        covariance: [traits][traits].
    """

    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        """Check what was given.

        Raises:
            PreferenceError: no mean of 1 to 64 traits within 100 of the centre, or no covariance of them: symmetric, with
                variances up to 10,000 and none below zero (reason "bad-prior").
        """
        count = len(self.mean)
        square = len(self.covariance) == count and all(len(row) == count for row in self.covariance)
        if not (0 < count <= _MOST_TRAITS and square and self._is_possible()):
            raise PreferenceError(
                f"a population has a mean of 1 to {_MOST_TRAITS} traits, none farther than {_FARTHEST:g} from the centre, and "
                f"their covariance: as many rows of as many numbers, symmetric, no variance below 0 or above {_WIDEST:g}",
                reason="bad-prior",
            )

    def _is_possible(self) -> bool:
        mean, covariance = np.array(self.mean), np.array(self.covariance)
        if not (np.abs(mean) <= _FARTHEST).all() or not (np.abs(covariance) <= _WIDEST).all():  # NaN is neither
            return False
        least = 1e-9 * max(float(np.abs(covariance).max()), 1e-9)
        return bool(np.abs(covariance - covariance.T).max() <= least and np.linalg.eigvalsh(covariance)[0] >= -least)

    @classmethod
    def fitted(cls, means: Numbers, covariances: Numbers) -> "Gaussian":
        """The Gaussian of a population of whom posteriors are known: by the law of total variance, the covariance of the means
        and the mean of the covariances together. It is shrunk towards independent traits as if by one person more a trait.

        Args:
            means: [people, traits].
            covariances: [people, traits, traits].
        """
        people, count = means.shape
        total = np.atleast_2d(np.cov(means.T, bias=True)) + covariances.mean(0)
        alone = np.diag(np.diag(total))
        shrunk = (people * total + count * alone) / (people + count) + _OWN * np.eye(count)
        return cls(tuple(map(float, means.mean(0))), tuple(tuple(map(float, row)) for row in shrunk))

    def log_density(self, points: Numbers) -> Numbers:
        """[points] of [points, traits], up to a constant."""
        off = points - np.array(self.mean)
        return np.asarray(-0.5 * np.einsum("ni,ij,nj->n", off, np.linalg.pinv(np.array(self.covariance)), off))

    def factor(self) -> Numbers:
        """[traits, traits] F with F F^T the covariance, which may be singular."""
        values, vectors = np.linalg.eigh(np.array(self.covariance))
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0)), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Prior:
    """What is believed of a person before any evidence.

    Attributes:
        sharpness: median of how strictly people choose what they want: log-odds of a choice per unit of utility.
        spread: standard deviation of its logarithm over people.
        floors: shares of answers that are given at random, each as likely as the others.
        populations: of a model the Gaussian that wants come from; flat for models that are not named.
        careless: how likely it is that somebody's answers have nothing to do with these traits at all.
    """

    sharpness: float = 4.0
    spread: float = 0.8
    floors: tuple[float, ...] = (0.01,)
    populations: Mapping[ModelName, Gaussian] = field(default_factory=dict)
    careless: float = 0.03

    def __post_init__(self) -> None:
        """Check what was given.

        Raises:
            PreferenceError: a sharpness, spread or floor that none can have (reason "bad-prior").
        """
        sharp = 0 < self.sharpness < 1e3 and 0 <= self.spread <= 3
        floors = 0 < len(self.floors) <= _MOST_FLOORS and all(1e-6 <= f < 0.5 for f in self.floors)
        if not sharp or not floors or not 0 <= self.careless < 1:
            raise PreferenceError(
                f"a prior has a positive sharpness, a spread of 0 to 3, 1 to {_MOST_FLOORS} floors from 0.000001 to under 0.5, "
                "and a careless share",
                reason="bad-prior",
            )

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        populations = {
            name: {
                "mean": list(map(float, each.mean)),
                "covariance": [list(map(float, row)) for row in each.covariance],
            }
            for name, each in self.populations.items()
        }
        numbers = {"sharpness": float(self.sharpness), "spread": float(self.spread), "careless": float(self.careless)}
        return {**numbers, "floors": list(map(float, self.floors)), "populations": populations}

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Prior":
        """The inverse of `to_dict`.

        Raises:
            PreferenceError: it is no prior (reason "bad-prior").
        """
        try:
            populations = {
                name: Gaussian(_row(each["mean"]), tuple(map(_row, each["covariance"])))
                for name, each in content["populations"].items()
                if name in MODELS
            }
            sharpness, spread, careless = (float(content[name]) for name in ("sharpness", "spread", "careless"))
            return cls(sharpness, spread, _row(content["floors"]), populations, careless)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PreferenceError(f"this is no prior: {error!r:.200}", reason="bad-prior") from None


def _row(numbers: Sequence[float]) -> tuple[float, ...]:
    found = tuple(map(float, numbers))
    if not np.isfinite(found).all():
        raise ValueError("a number is not finite")
    return found
