"""surface.json: the fitted map of a store as data, beside its manifest and never part of it; hostile until checked."""

import hashlib
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from soupmix.errors import EvaluationError
from soupmix.fields import Cell, Digest, Name, NumberLine, ShortLine, read_model, twice
from soupmix.files import canonical_json, write_file
from soupmix.sealed import read_sealed

__all__ = [
    "FORMS",
    "MOST_ADAPTERS",
    "MOST_TERMS",
    "SURFACE",
    "FittedMeasure",
    "Form",
    "SurfaceDocument",
    "read_surface",
    "write_surface",
]

SURFACE: Final = "surface.json"
Form = Literal["linear", "squares", "pairs", "squares and pairs"]
FORMS: Final[tuple[Form, ...]] = ("linear", "squares", "pairs", "squares and pairs")
"""What a measure may be made of besides a constant and the weights themselves."""

_MAX_BYTES = 8 << 20
MOST_ADAPTERS, MOST_TERMS, _MOST_MEASURES = 64, 1000, 64
_LARGEST = 1e6  # of a coefficient: what is computed from weights and this stays finite


def _bounded(numbers: tuple[float, ...]) -> tuple[float, ...]:
    if not all(abs(number) <= _LARGEST for number in numbers):
        raise ValueError(f"numbers are at most {_LARGEST:.0f}")
    return numbers


Numbers = Annotated[NumberLine, AfterValidator(_bounded)]
Spread = Annotated[float, Field(ge=0, le=_LARGEST, allow_inf_nan=False)]
Figure = Annotated[float, Field(allow_inf_nan=False)]
Place = Annotated[int, Field(ge=0, lt=MOST_ADAPTERS)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FittedMeasure(_Frozen):
    """One measure as a polynomial of the weights, with its uncertainty.

    On the scale "log" everything but the unit is said of the natural logarithm of the measure.

    Attributes:
        title: for people.
        unit: of the measure, "" for none.
        dimension: whose measure it is.
        scale: "plain" or "log".
        span: what the base and the adapters of that dimension, one at a time, span on it: the unit of errors.
        form: one of `FORMS`, the one with the most evidence.
        evidence: form -> log marginal likelihood of the best prior of that form, in nats.
        terms: of every coefficient the places of the adapters whose weights are multiplied; () is the constant, which is first.
        coefficients: posterior means.
        factor: lower triangle, row by row, of L; L L^T is the posterior covariance of the coefficients.
        lack: standard deviation of a soup's mean around the map.
        level: that of the mean over prompts, as other prompts would have another one.
        spread: that of single answers around their soup's mean.
        r2: share of the variance between soups that the map explains.
        held_out_r2: the same of soups whose combination of adapters was left out of the fit; None, as r2, without variance.
        held_out_error: root mean square of these errors.
        coverage: share of these that lie within their 95 % interval.
    """

    title: ShortLine
    unit: Cell
    dimension: Name
    scale: Literal["plain", "log"]
    span: Annotated[float, Field(gt=0, le=_LARGEST, allow_inf_nan=False)]
    form: Form
    evidence: dict[Form, Figure]
    terms: Annotated[tuple[tuple[Place, ...], ...], Field(min_length=1, max_length=MOST_TERMS)]
    coefficients: Numbers
    factor: Numbers
    lack: Spread
    level: Spread
    spread: Spread
    r2: Figure | None
    held_out_r2: Figure | None
    held_out_error: Spread
    coverage: Annotated[float, Field(ge=0, le=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        count = len(self.terms)
        if self.terms[0] != () or any(len(each) > 2 or list(each) != sorted(each) for each in self.terms):
            raise ValueError("terms are the constant, then at most two places each, in order")
        if twice(self.terms) is not None:
            raise ValueError("terms come once each")
        if len(self.coefficients) != count or len(self.factor) != count * (count + 1) // 2:
            raise ValueError(f"{count} terms have so many coefficients, and a triangle of numbers")
        return self


class SurfaceDocument(_Frozen):
    """A fitted map as it is kept.

    Attributes:
        schema_version: 1.
        base_digest: of the base whose answers were measured.
        adapters: digests of the adapters, in the order of places in terms.
        least, most: of every adapter the smallest and largest weight that was measured, in millionths.
        total: the largest sum of weights that was measured, in millionths.
        method: how soups were merged.
        temperature: of the answers.
        tokens: at most so many had an answer.
        prompts, soups: how many there were.
        report: digest of the evaluation report that it was fitted on.
        measures: by name.
        digest: of everything else.
    """

    schema_version: Literal[1] = 1
    base_digest: Digest
    adapters: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=MOST_ADAPTERS)]
    least: tuple[Annotated[int, Field(ge=-1_000_000_000, le=0)], ...]
    most: tuple[Annotated[int, Field(ge=0, le=1_000_000_000)], ...]
    total: Annotated[int, Field(ge=0)]
    method: Name
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
    tokens: Annotated[int, Field(ge=1)]
    prompts: Annotated[int, Field(ge=1)]
    soups: Annotated[int, Field(ge=1)]
    report: Digest
    measures: Annotated[dict[Name, FittedMeasure], Field(min_length=1, max_length=_MOST_MEASURES)]
    digest: Digest

    @classmethod
    def made(cls, **fields: object) -> Self:
        """A document of these fields with its digest, as it will be read again: numbers have ten significant digits."""
        draft = cls.model_construct(None, **fields, digest="")
        content = draft.model_dump(mode="json") | {"digest": draft._digest()}
        return cls.model_validate_json(canonical_json(content))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        count = len(self.adapters)
        if twice(self.adapters) is not None:
            raise ValueError("adapters come once each")
        if len(self.least) != count or len(self.most) != count:
            raise ValueError(f"{count} adapters have so many smallest and largest weights")
        for name, measure in self.measures.items():
            if any(place >= count for term in measure.terms for place in term):
                raise ValueError(f"measure {name!r} has a term of more adapters than there are")
        if self.digest != self._digest():
            raise ValueError("the digest is not that of what the file says: it was changed after it was written")
        return self

    def _digest(self) -> str:
        content = self.model_dump(mode="json", exclude={"digest"})
        return f"sha256:{hashlib.sha256(b'soupmix.surface.v1' + canonical_json(content)).hexdigest()}"


def read_surface(folder: Path) -> SurfaceDocument | None:
    """The fitted map that lies in the folder of a store, checked; None where there is none.

    Raises:
        EvaluationError: it is damaged (reason "bad-surface"), or refused as a file (those of `soupmix.sealed`).
    """
    path = Path(folder) / SURFACE
    try:
        raw, _ = read_sealed(path, cap=_MAX_BYTES, error=EvaluationError)
    except EvaluationError as error:
        if error.reason == "missing":
            return None
        raise
    try:
        return read_model(SurfaceDocument, raw)
    except ValueError as error:
        raise EvaluationError(f"{path} is not a surface: {error}", reason="bad-surface") from None


def write_surface(folder: Path, document: SurfaceDocument) -> None:
    """Put a fitted map into the folder of a store, atomically; the manifest stays as it is.

    Raises:
        OutputError: the disk refuses.
    """
    write_file(Path(folder) / SURFACE, canonical_json(document.model_dump(mode="json")))
