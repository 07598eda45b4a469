"""The fitted map over the adapters of a store: what a soup is expected to do, and how sure that is."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soupmix.errors import EvaluationError, RecipeError
from soupmix.store.manifest import ManifestEntry
from soupmix.store.places import beneath
from soupmix.surface.document import SURFACE, FittedMeasure, SurfaceDocument, read_surface
from soupmix.weights import MILLION, Weights

__all__ = ["Effect", "Expectation", "Surface", "from_scale", "products", "shared", "to_scale"]

Numbers = NDArray[np.float64]

_Z95, _Z90 = 1.959964, 1.644854  # of a normal distribution
_LARGEST_LOG = 50.0


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is expected of one measure, in its own unit.

    Attributes:
        value: the mean over prompts; on the scale "log" the geometric one.
        low, high: its 95 % interval, for other prompts of the same kind.
        answers_low, answers_high: between these lie nine of ten single answers.
    """

    value: float
    low: float
    high: float
    answers_low: float
    answers_high: float


@dataclass(frozen=True, slots=True)
class Effect:
    """What an adapter does alone, to the measure of its dimension that it moves the most, in spans.

    Attributes:
        measure: its name.
        base: what is expected of no weights, in its unit. full: of the adapter at weight 1, or the most that was measured.
        weights: the least weights with 0, 1, ... 100 % of the way from one to the other; on the scale "log" of the logarithm.
    """

    measure: str
    base: float
    full: float
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """A fitted map, read with the names that a store gives to its adapters.

    Attributes:
        document: as it is kept.
        names: of every place the adapter's name in the store, None if the store does not have it: its weight is 0 then.
        dimensions: name -> dimension of the adapters of the store that the map knows.
        unknown: name -> dimension of the store's adapters that the map says nothing of.
    """

    document: SurfaceDocument
    names: tuple[str | None, ...]
    dimensions: Mapping[str, str]
    unknown: Mapping[str, str]
    _factors: Mapping[str, Numbers] = field(repr=False)

    @classmethod
    def of(cls, document: SurfaceDocument, adapters: Iterable[ManifestEntry]) -> "Surface":
        """A fitted map over adapters, which are found by their digests.

        Raises:
            EvaluationError: it is of another base (reason "wrong-base"), or knows none of the adapters ("other-adapters").
        """
        entries = list(adapters)
        for entry in entries:
            if entry.base_digest != document.base_digest:
                raise EvaluationError(
                    f"the surface is of the base {document.base_digest[:19]}..., and {entry.name!r} of "
                    f"{entry.base_digest[:19]}...; run `soupmix evaluate` with this base",
                    reason="wrong-base",
                )
        known = {entry.digest: entry for entry in entries if entry.digest in document.adapters}
        if not known:
            raise EvaluationError(
                "the surface is of other adapters, none of which is in this store; run `soupmix evaluate` on these",
                reason="other-adapters",
            )
        return cls(
            document,
            tuple(known[digest].name if digest in known else None for digest in document.adapters),
            {entry.name: entry.dimension for entry in known.values()},
            {entry.name: entry.dimension for entry in entries if entry.digest not in known},
            {name: _triangle(measure) for name, measure in document.measures.items()},
        )

    @classmethod
    def beside(cls, folder: Path, adapters: Iterable[ManifestEntry]) -> "Surface":
        """The map that lies beside the manifest of a store, else of the one that it lies over.

        Raises:
            EvaluationError: there is none (reason "no-surface"), it is damaged (see `read_surface`), or of others (see `of`).
        """
        below = beneath(folder)
        document = read_surface(folder) or (None if below is None else read_surface(below))
        if document is None:
            raise EvaluationError(
                f"nobody has measured these adapters: {folder} holds no {SURFACE}; `soupmix evaluate OUT --surface` makes one",
                reason="no-surface",
            )
        return cls.of(document, adapters)

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measures that can be asked for, sorted: those of a dimension that some adapter of the store steers."""
        steered = set(self.dimensions.values())
        return tuple(sorted(n for n, each in self.document.measures.items() if each.dimension in steered))

    def expect(self, weights: Weights) -> dict[str, Expectation]:
        """What a soup of these weights is expected to do, by measure.

        Raises:
            EvaluationError: a weight is of an adapter that the map does not know (reason "other-adapters"), or outside
                of what was measured ("not-measured").
        """
        for name in weights.nonzero():
            if name not in self.names:
                raise EvaluationError(
                    f"the surface says nothing of {name!r}; it knows {', '.join(sorted(self.dimensions))}",
                    reason="other-adapters",
                )
        point = self.point(weights)[None]
        if not self.measured(point)[0]:
            raise EvaluationError(
                f"no soup as far out as {weights} was measured; stay within the weights that were",
                reason="not-measured",
            )
        return {name: self._expected(name, point) for name in self.document.measures}

    def point(self, weights: Weights) -> Numbers:
        """[places] of these weights; those of adapters that the map does not know are not in it."""
        return np.array([0 if name is None else weights.get(name, 0) for name in self.names]) / MILLION

    def measured(self, points: Numbers) -> NDArray[np.bool_]:
        """Of [points, places] weights, whether each lies within the weights that were measured."""
        document = self.document
        least, most = np.array(document.least) / MILLION, np.array(document.most) / MILLION
        inside = ((points >= least - 1e-9) & (points <= most + 1e-9)).all(1)
        found: NDArray[np.bool_] = inside & (np.abs(points).sum(1) <= document.total / MILLION + 1e-9)
        return found

    def mean(self, name: str, points: Numbers) -> Numbers:
        """[points] expected values of a measure on its scale, at [points, places] weights."""
        found: Numbers = (
            products(self.document.measures[name].terms, points) @ self.document.measures[name].coefficients
        )
        return found

    def variance(self, name: str, points: Numbers) -> Numbers:
        """[points] variances of these, as far as the map is unsure or known to err."""
        measure = self.document.measures[name]
        found: Numbers = np.square(products(measure.terms, points) @ self._factors[name]).sum(1) + measure.lack**2
        return found

    def part_of_effect(self, adapter: str, share: float) -> tuple[str, float]:
        """A measure and its value at such a share of what an adapter does to it alone, at weight 1 or the most measured.

        It is the measure of the adapter's dimension that it moves the most, in spans; on the scale "log" the share is one of the
        logarithm.

        Args:
            adapter: its name.
            share: from 0 to 1.

        Raises:
            RecipeError: no such share (reason "bad-share").
            EvaluationError: the map does not know the adapter ("other-adapters"), or cannot tell what it does from nothing
                ("no-effect").
        """
        _check_share(adapter, share)
        name, effect = self._main(adapter)
        measure = self.document.measures[name]
        base = float(self.mean(name, np.zeros((1, len(self.names))))[0])
        return name, from_scale(measure, base + share * effect)

    def effect(self, adapter: str) -> Effect:
        """What an adapter does alone, and the weights with a part of that.

        Raises:
            EvaluationError: as `part_of_effect` raises.
        """
        (measure, base), (_, full) = (self.part_of_effect(adapter, share) for share in (0, 1))
        return Effect(measure, base, full, tuple(self._weights(adapter, np.arange(101) / 100)))

    def calibrated(self, weights: Weights) -> Weights:
        """Weights whose adapters have, each alone, that share of their effect that these weights are: half for a half.

        It is the inverse of the map along one axis at a time (after the coefficient maps of Bone Soup, Xie et al. 2025); a policy
        bounds what comes of it as it bounds any other weights.

        Args:
            weights: from 0 to 1 each.

        Raises:
            RecipeError, EvaluationError: as `part_of_effect`.
        """
        found = {}
        for adapter, micro in weights.items():
            _check_share(adapter, micro / MILLION)
            (found[adapter],) = self._weights(adapter, np.array([micro / MILLION]))
        return Weights(found)

    def read(self, given: Mapping[str, float | str]) -> Weights:
        """Weights from numbers, and from shares of effects where a text ends in "%": `calibrated` makes weights of those.

        Raises:
            WeightError: as `Weights` raises. RecipeError, EvaluationError: as `part_of_effect`.
        """
        plain = Weights(
            {name: value.removesuffix("%") if isinstance(value, str) else value for name, value in given.items()}
        )
        shares = Weights.from_micro({name: round(plain[name] / 100) for name in shared(given)})
        return Weights.from_micro({**plain, **self.calibrated(shares)})

    def _weights(self, adapter: str, shares: Numbers) -> list[float]:
        """[shares] the least weights of an adapter that have so much of its effect."""
        name, effect = self._main(adapter)
        steps = np.linspace(0.0, self._full(adapter), 10_001)
        measure, alone = self.document.measures[name], {self.names.index(adapter)}
        powers = [(len(t), c) for t, c in zip(measure.terms, measure.coefficients, strict=True) if set(t) == alone]
        found = np.maximum.accumulate(sum(c * steps**power for power, c in powers) / effect)
        places = np.minimum(
            np.searchsorted(found, shares - 1e-9), len(steps) - 1
        )  # rounding may leave the last below 1
        return [round(float(each), 4) for each in steps[places]]

    def _full(self, adapter: str) -> float:
        return min(MILLION, self.document.most[self.names.index(adapter)]) / MILLION

    def _main(self, adapter: str) -> tuple[str, float]:
        """The measure of its dimension that an adapter moves the most, and by how much on its scale."""
        if adapter not in self.dimensions:
            raise EvaluationError(
                f"the surface says nothing of {adapter[:80]!a}; it knows {', '.join(sorted(self.dimensions))}",
                reason="other-adapters",
            )
        point = np.zeros((2, len(self.names)))
        point[1, self.names.index(adapter)] = self._full(adapter)
        moved: dict[str, tuple[float, float]] = {}
        for name, measure in self.document.measures.items():
            if measure.dimension == self.dimensions[adapter]:
                effect = float(np.diff(self.mean(name, point))[0])
                unsure = np.linalg.norm(np.diff(products(measure.terms, point), axis=0) @ self._factors[name])
                if abs(effect) > _Z95 * float(unsure):
                    moved[name] = abs(effect) / measure.span, effect
        if not moved:
            raise EvaluationError(
                f"what {adapter!r} does alone to the measures of {self.dimensions[adapter]!r} cannot be told from nothing",
                reason="no-effect",
            )
        name = max(sorted(moved), key=lambda each: moved[each][0])
        return name, moved[name][1]

    def _expected(self, name: str, point: Numbers) -> Expectation:
        measure = self.document.measures[name]
        value = float(self.mean(name, point)[0])
        sure = float(self.variance(name, point)[0]) + measure.level**2
        mean, single = _Z95 * sure**0.5, _Z90 * (sure + measure.spread**2) ** 0.5
        ends = (value, value - mean, value + mean, value - single, value + single)
        return Expectation(*(from_scale(measure, end) for end in ends))


def shared(given: Mapping[str, float | str]) -> tuple[str, ...]:
    """Names whose weight is given as a share of their effect, as "50%"."""
    return tuple(name for name, value in given.items() if isinstance(value, str) and value.endswith("%"))


def _check_share(adapter: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise RecipeError(
            f"{adapter[:80]!a} is to have {share:g} of its effect; a share is from 0 to 1", reason="bad-share"
        )


def products(terms: Iterable[tuple[int, ...]], points: Numbers) -> Numbers:
    """[points, terms] products of [points, places] weights."""
    found: Numbers = np.stack([points[:, list(term)].prod(1) for term in terms], axis=1)
    return found


def from_scale(measure: FittedMeasure, value: float) -> float:
    """A value on the scale of a measure in its own unit."""
    return float(np.exp(np.clip(value, -_LARGEST_LOG, _LARGEST_LOG))) if measure.scale == "log" else value


def to_scale(measure: FittedMeasure, value: float) -> float:
    """A value in the unit of a measure on its scale."""
    return math.log(value) if measure.scale == "log" else value


def _triangle(measure: FittedMeasure) -> Numbers:
    count = len(measure.terms)
    found = np.zeros((count, count))
    found[np.tril_indices(count)] = measure.factor
    return found
