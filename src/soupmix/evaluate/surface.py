"""Fit the map from weights to measures that `soupmix.surface` keeps and asks.

Of every measure the mean over prompts is a polynomial of the weights: a constant, the weights, perhaps their squares, perhaps
the products of two weights of different dimensions. It is a Bayesian linear regression with normal priors around nothing
(Bishop 2006, 3.3 and 3.5): how wide the priors are, how large the error is, and which of the four forms it is, is what has the
largest marginal likelihood ("evidence", MacKay 1992) on a grid. How good it is is measured by leaving out all soups of one
combination of adapters at a time.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soupmix.errors import EvaluationError
from soupmix.evaluate.answered import is_plain_soup
from soupmix.evaluate.composition import Table, cells_of
from soupmix.evaluate.measuring import MeasuredSamples
from soupmix.evaluate.record import AdapterFacts, EvaluationRecord
from soupmix.methods import DEFAULT
from soupmix.preference.rewards import REWARD
from soupmix.surface import FittedMeasure, SurfaceDocument
from soupmix.surface.document import FORMS, MOST_ADAPTERS, MOST_TERMS, Form
from soupmix.surface.surface import products
from soupmix.weights import MILLION, Weights

__all__ = ["ASKABLE", "Mapped", "MeasuredSoups", "fit_surface", "surface_of"]

Numbers = NDArray[np.float64]
Terms = tuple[tuple[int, ...], ...]

ASKABLE = ("grade", "dale_chall", "zipf", "words", "sentences", "vader", "lexicon", "classifier", "second_person")
"""Measures of texts that a map takes."""

_COUNTS = ("words", "sentences")
_ENOUGH = 0.9
# In spans of the measure: standard deviations of the priors of weights, of products, and of the error.
_WEIGHTS = tuple(2.0**k for k in range(-2, 3))
_PRODUCTS = tuple(2.0**k for k in range(-4, 2))
_ERRORS = tuple(2.0 ** (k / 2) for k in range(-14, 1))
_CONSTANT = 10.0
_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Mapped:
    """A measure as it is to be mapped.

    Attributes:
        title: for people. unit: of the measure. dimension: whose it is.
        log: whether its logarithm is mapped, as of counts, which adapters multiply rather than add to; below 1 counts as 1.
    """

    title: str
    unit: str
    dimension: str
    log: bool = False


@dataclass(frozen=True, slots=True)
class MeasuredSoups:
    """What a map is fitted on.

    Attributes:
        table: see `Table`; of one temperature. soups: arm -> weights, by one method, the base ({}) among them.
        prompts: those that count. base_digest: of the base that answered. report: digest of the evaluation report.
        method: how soups were merged. temperature, tokens: of answers.
    """

    table: Table
    soups: Mapping[str, Weights]
    prompts: Sequence[str]
    base_digest: str
    report: str
    method: str
    temperature: float
    tokens: int


def surface_of(record: EvaluationRecord, measured: MeasuredSamples, report: str) -> SurfaceDocument:
    """The map from what an evaluation measured: of soups by the default method, at its first temperature that is not greedy.

    Soups that answered fewer than nine tenths of the prompts that others did have only begun, and are left out; one prompt less
    is never too few, as a run that was stopped is in the middle of one.

    Args:
        record: what was evaluated. measured: its samples in numbers. report: digest of its report.

    Raises:
        EvaluationError: as `fit_surface` raises.
    """
    temperature = next((each for each in record.temperatures if each > 0), record.temperatures[0])
    table, prompts = measured.tables[temperature], [each.prompt for each in record.prompts]
    soups = {arm.name: arm.weights for arm in record.all_arms() if is_plain_soup(arm, DEFAULT)}
    counts = {name: sum((name, prompt) in table for prompt in prompts) for name in soups}
    most = max(counts.values())
    along = {name: weights for name, weights in soups.items() if counts[name] >= min(_ENOUGH * most, most - 1)}
    found = {
        name: Mapped(measure.title, measure.unit, measure.dimension, log=name in _COUNTS)
        for name, measure in measured.measures.items()
        if (name in ASKABLE or name.startswith(REWARD)) and measure.dimension
    }
    given = MeasuredSoups(table, along, prompts, record.base.digest, report, DEFAULT, temperature, record.length)
    return fit_surface(given, record.adapters, found)


def fit_surface(
    measured: MeasuredSoups, adapters: Mapping[str, AdapterFacts], measures: Mapping[str, Mapped]
) -> SurfaceDocument:
    """The map from the weights of these adapters to these measures.

    Args:
        measured: what soups do.
        adapters: by name; those that are in no soup are left out.
        measures: those that nothing was measured by, or that no adapter of their dimension moves, are left out.

    Raises:
        EvaluationError: the base is not among the soups (reason "no-base"), no prompt was answered by all soups
            ("no-answers"), there are more adapters than a map holds ("too-many-adapters"), or nothing can be mapped
            ("nothing-to-map").
    """
    soups = {name: weights.nonzero() for name, weights in measured.soups.items()}
    if Weights() not in soups.values():
        raise EvaluationError("a map begins at the bare base, and no arm has no weights; add one", reason="no-base")
    used = {name for weights in soups.values() for name in weights}
    names = sorted(used & adapters.keys())
    if len(names) > MOST_ADAPTERS:
        raise EvaluationError(
            f"a map is of at most {MOST_ADAPTERS} adapters, and these soups have {len(names)}; evaluate a store of fewer",
            reason="too-many-adapters",
        )
    cells = cells_of(measured.table, tuple(soups), measured.prompts, tuple(measures))
    points = np.array([weights.along(names) for weights in soups.values()]).reshape(len(soups), -1)
    dimensions = [adapters[name].dimension for name in names]
    found = {
        name: fitted
        for place, (name, measure) in enumerate(measures.items())
        if (fitted := _fitted(measure, points / MILLION, cells[:, :, place], dimensions)) is not None
    }
    if not found:
        raise EvaluationError(
            "no adapter moves any measure of its dimension, alone: there is nothing to map", reason="nothing-to-map"
        )
    answered = int((~np.isnan(cells)).any((1, 2)).sum())
    return SurfaceDocument.made(
        base_digest=measured.base_digest,
        adapters=tuple(adapters[name].digest for name in names),
        least=tuple(map(int, np.minimum(points.min(0), 0))),
        most=tuple(map(int, np.maximum(points.max(0), 0))),
        total=int(np.abs(points).sum(1).max()),
        method=measured.method,
        temperature=measured.temperature,
        tokens=measured.tokens,
        prompts=answered,
        soups=len(soups),
        report=measured.report,
        measures=found,
    )


@dataclass(frozen=True, slots=True)
class _Prior:
    """How a measure may depend on weights: one form, with the widths of its priors and of the error, in spans."""

    form: Form
    terms: Terms
    widths: tuple[float, ...]
    error: float
    evidence: float = field(default=-np.inf)


@dataclass(frozen=True, slots=True)
class _Posterior:
    """Coefficients: mean [terms] and covariance [terms, terms]."""

    mean: Numbers
    covariance: Numbers

    @classmethod
    def of(cls, prior: _Prior, design: Numbers, found: Numbers) -> "_Posterior":
        precision = design.T @ design / prior.error**2 + np.diag(1.0 / np.square(prior.widths))
        covariance = np.linalg.inv(precision)
        covariance = (covariance + covariance.T) / 2
        return cls(covariance @ design.T @ found / prior.error**2, covariance)


def _fitted(measure: Mapped, points: Numbers, cells: Numbers, dimensions: Sequence[str]) -> FittedMeasure | None:
    """One measure, from [soups, adapters] weights and [prompts, soups] values; None if there is nothing to map."""
    values = np.log(np.maximum(cells, 1.0)) if measure.log else cells
    there = ~np.isnan(values).all(0)
    points, values = points[there], values[:, there]
    if not values.size:
        return None
    means = np.nanmean(values, axis=0)
    alone = (points != 0).sum(1) <= 1
    own = np.array([dimension == measure.dimension for dimension in dimensions])
    ends = means[alone & (points[:, ~own] == 0).all(1)]
    span = float(np.ptp(ends)) if ends.size else 0.0
    if span <= 1e-9 * (1.0 + float(np.abs(ends).max(initial=0.0))):  # nothing but rounding
        return None
    centre = float(means.mean())
    found = (means - centre) / span
    forms = [form for form in FORMS if len(_terms(form, dimensions)) <= MOST_TERMS]
    priors = [_best(form, points, found, dimensions) for form in forms]
    prior = max(priors, key=lambda each: each.evidence)
    design = products(prior.terms, points)
    posterior = _Posterior.of(prior, design, found)
    coefficients = posterior.mean * span
    coefficients[0] += centre
    prompts = np.nanmean(values[~np.isnan(values).all(1)], axis=1)
    return FittedMeasure(
        title=measure.title,
        unit=measure.unit,
        dimension=measure.dimension,
        scale="log" if measure.log else "plain",
        span=span,
        form=prior.form,
        evidence={each.form: each.evidence for each in priors},
        terms=prior.terms,
        coefficients=tuple(coefficients.tolist()),
        factor=tuple((np.linalg.cholesky(posterior.covariance) * span)[np.tril_indices(len(prior.terms))].tolist()),
        lack=prior.error * span,
        level=float(prompts.std(ddof=1) / np.sqrt(prompts.size)) if prompts.size > 1 else 0.0,
        spread=float(np.sqrt(np.nanmean(np.nanvar(values, axis=0)))),
        r2=_explained(found - design @ posterior.mean, found),
        **_held_out(prior, design, points, found, span),
    )


def _best(form: Form, points: Numbers, found: Numbers, dimensions: Sequence[str]) -> _Prior:
    """The prior of a form with the largest evidence: log N(found; 0, design widths^2 design^T + error^2)."""
    terms = _terms(form, dimensions)
    design, orders = products(terms, points), [len(term) for term in terms]
    best = _Prior(form, terms, (), 1.0)
    for weights, twos in itertools.product(_WEIGHTS, _PRODUCTS if 2 in orders else (1.0,)):
        widths = tuple((_CONSTANT, weights, twos)[order] for order in orders)
        axes, stretched, _ = np.linalg.svd(design * widths, full_matrices=False)
        along = np.square(axes.T @ found)
        beside, left = max(float(found @ found - along.sum()), 0.0), len(found) - len(along)
        for error in _ERRORS:
            variances = np.square(stretched) + error**2
            evidence = -0.5 * float((along / variances + np.log(2 * np.pi * variances)).sum())
            evidence -= 0.5 * (beside / error**2 + left * float(np.log(2 * np.pi * error**2)))
            if evidence > best.evidence:
                best = _Prior(form, terms, widths, error, evidence)
    return best


def _terms(form: Form, dimensions: Sequence[str]) -> Terms:
    places = range(len(dimensions))
    squares = [(place, place) for place in places] if "squares" in form else []
    pairs = [(a, b) for a, b in itertools.combinations(places, 2) if dimensions[a] != dimensions[b]]
    return ((), *((place,) for place in places), *squares, *(pairs if "pairs" in form else []))


def _held_out(prior: _Prior, design: Numbers, points: Numbers, found: Numbers, span: float) -> dict[str, Any]:
    """How well soups are foretold whose combination of adapters was left out; None where there is but one."""
    combinations = [tuple(each) for each in (points != 0).tolist()]
    off, held = np.full(len(found), np.nan), 0
    for combination in sorted({each for each in combinations if any(each)}):
        out = np.array([each == combination for each in combinations])
        posterior = _Posterior.of(prior, design[~out], found[~out])
        off[out] = found[out] - design[out] @ posterior.mean
        variances = np.einsum("st,tu,su->s", design[out], posterior.covariance, design[out]) + prior.error**2
        held += int((np.abs(off[out]) <= _Z95 * np.sqrt(variances)).sum())
    out = ~np.isnan(off)
    return {
        "held_out_r2": _explained(off[out], found[out]),
        "held_out_error": float(np.sqrt(np.square(off[out]).mean())) * span,
        "coverage": held / int(out.sum()),
    }


def _explained(off: Numbers, found: Numbers) -> float | None:
    """Share of the variance that is not in the errors; None where there is no variance."""
    all_of_it = float(np.square(found - found.mean()).sum())
    return 1.0 - float(np.square(off).sum()) / all_of_it if all_of_it > 0 else None
