"""The rules of a policy document. Every one only removes points from the feasible set."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from soupmix.errors import RecipeError
from soupmix.fields import Day, Digest, Edge, Line, Micro, Name, Values, check_value, twice

__all__ = [
    "ATTRIBUTES",
    "CHOSEN",
    "RULES",
    "SOURCES",
    "Approve",
    "Approved",
    "Bounds",
    "Budget",
    "Combination",
    "Combinations",
    "Deny",
    "Evidence",
    "EvidenceRef",
    "Exclusive",
    "Fix",
    "Group",
    "Infer",
    "Norm",
    "Require",
    "Rule",
    "Scope",
    "SourceRule",
    "Within",
    "applies",
    "check_attributes",
    "within",
]

SOURCES: Final = ("explicit", "stored", "inferred")
"""Where a weight comes from: chosen in this request, kept from earlier, or concluded from behaviour."""

CHOSEN: Final = ("explicit", "stored")
"""The sources of weights that somebody chose."""


class Scope(Edge):
    """For whom something applies. A key that is not given stands for every value."""

    jurisdiction: Values | None = None
    audience: Values | None = None
    purpose: Values | None = None
    tenant: Values | None = None

    def given(self) -> dict[str, tuple[str, ...]]:
        """The keys that restrict, in the order of the schema."""
        return {key: values for key in ATTRIBUTES if (values := getattr(self, key)) is not None}


ATTRIBUTES: Final = tuple(Scope.model_fields)
"""What a request may say about itself."""

Within = tuple[tuple[str, tuple[str, ...]], ...]
"""(attribute, values): for whom something applies, laid out to be asked at every request; nothing stands for everybody."""


def within(*scopes: Scope) -> Within:
    """For whom all of these scopes apply."""
    return tuple((key, values) for scope in scopes for key, values in scope.given().items())


def applies(limits: Within, attributes: Mapping[str, str]) -> bool:
    """True unless a known attribute has a value that is not listed: what is not known counts as "applies"."""
    return all(attributes.get(key, values[0]) in values for key, values in limits)


def check_attributes(attributes: Mapping[str, str]) -> None:
    """Raise RecipeError for an attribute that does not exist ("unknown-attribute") or a value none can have ("bad-attribute")."""
    for key, value in attributes.items():
        if key not in ATTRIBUTES:
            raise RecipeError(
                f"unknown attribute {key!r:.80}; known are {', '.join(ATTRIBUTES)}", reason="unknown-attribute"
            )
        try:
            check_value(value)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"attribute {key}: {error}", reason="bad-attribute") from error


class EvidenceRef(Edge):
    """An evaluation report that an approval rests on: its digest, and the last day (UTC) that it counts."""

    report: Digest
    until: Day

    def counts(self, today: date) -> bool:
        """Whether the report still counts on this day."""
        return today <= self.until


class Approved(Edge):
    """One adapter as an approving document knows it. Labels that are given must agree with the store's."""

    name: Name
    digest: Digest
    dimension: Name | None = None
    pole: Name | None = None
    tags: tuple[Name, ...] = ()
    evidence: EvidenceRef | None = None


class Combination(Edge):
    """Adapters that were evaluated together: they, and any part of them, may be non-zero; in sum at most so much."""

    adapters: Annotated[tuple[Name, ...], Field(min_length=1)]
    at_most: Micro | None = None
    evidence: EvidenceRef


class _Rule(Edge):
    id: Name | None = None
    scope: Scope = Scope()
    mode: Literal["clamp", "refuse"] = "clamp"
    public_reason: Line | None = None
    internal_reason: Line | None = None


class _Matching(_Rule):
    adapter: Name | None = None
    dimension: Name | None = None
    pole: Name | None = None
    tag: Name | None = None


class _Selecting(_Matching):
    @model_validator(mode="after")
    def _selects(self) -> Self:
        if not any((self.adapter, self.dimension, self.pole, self.tag)):
            raise ValueError("say which adapters: give adapter, dimension, pole or tag")
        return self


class _Limiting(Edge):
    at_least: Micro | None = None
    at_most: Micro | None = None

    @model_validator(mode="after")
    def _limits(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("say how much: give at_most, at_least or both")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError("at_least is larger than at_most, which no weight can satisfy")
        return self


class Approve(_Rule):
    """Every adapter that is not listed here with its digest has weight 0."""

    rule: Literal["approve"]
    adapters: tuple[Approved, ...]

    @model_validator(mode="after")
    def _once(self) -> Self:
        if doubled := twice(approved.name for approved in self.adapters):
            raise ValueError(f"adapter {doubled!r} is listed twice")
        return self


class Deny(_Selecting):
    """Adapters that match everything given have weight 0."""

    rule: Literal["deny"]


class Bounds(_Selecting, _Limiting):
    """Each adapter that matches everything given has a weight within these bounds."""

    rule: Literal["bounds"]


class Group(_Rule, _Limiting):
    """The weights of some adapters, or of a dimension, sum to at most / at least this."""

    rule: Literal["group"]
    adapters: tuple[Name, ...] | None = Field(default=None, min_length=1)
    dimension: Name | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.adapters is None) == (self.dimension is None):
            raise ValueError("a group is either a list of adapters or a dimension: give exactly one of the two")
        return self


class Budget(_Rule):
    """The sum of all weights, or of their absolute values, is at most this.

    The built-in defaults keep every weight at or above 0, where the two sums are the same number.
    """

    rule: Literal["budget"]
    at_most: Micro
    of: Literal["sum", "absolute"] = "sum"


class Require(_Selecting):
    """Each adapter that matches everything given has at least this weight."""

    rule: Literal["require"]
    at_least: Micro


class Fix(_Rule):
    """Personalisation is off: the weights are these, and 0 where none is given, whatever was asked for."""

    rule: Literal["fix"]
    weights: dict[Name, Micro] = Field(default={})


class SourceRule(_Matching):
    """Weights of matching adapters (of all, if nothing is given) count only if they come from an allowed source.

    Others are 0. A request that does not say where its weights come from is none of the allowed.
    """

    rule: Literal["source"]
    allow: tuple[Literal["explicit", "stored", "inferred"], ...]


class Infer(_Rule):
    """Weights may be inferred from behaviour only of adapters of these dimensions, and evidence is kept of nothing else.

    Weights of all other adapters count only if somebody chose them, now ("explicit") or earlier ("stored"). A request that does
    not say where its weights come from may have inferred them.
    """

    rule: Literal["infer"]
    dimensions: tuple[Name, ...]


class Exclusive(_Rule):
    """At most one of some adapters, or of a dimension, is not 0."""

    rule: Literal["exclusive"]
    adapters: tuple[Name, ...] | None = Field(default=None, min_length=2)
    dimension: Name | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.adapters is None) == (self.dimension is None):
            raise ValueError("exclusive is either a list of adapters or a dimension: give exactly one of the two")
        return self


class Combinations(_Rule):
    """The adapters that are not 0 all lie in one approved combination; what is not approved together is refused together.

    Adapters that are harmless alone can be harmful together (Ding 2026, arXiv 2603.12681).
    """

    rule: Literal["combinations"]
    allow: tuple[Combination, ...]


class Evidence(_Matching):
    """Matching adapters (all, if nothing is given) have weight 0 if any approval of them has no report that still counts."""

    rule: Literal["evidence"]


class Norm(_Rule):
    """The Frobenius norm of the merged delta is at most this share of the norm of the base weights it changes."""

    rule: Literal["norm"]
    at_most: Micro


Rule = (
    Approve
    | Deny
    | Bounds
    | Group
    | Budget
    | Require
    | Fix
    | SourceRule
    | Infer
    | Exclusive
    | Combinations
    | Evidence
    | Norm
)

RULES: Final[dict[str, type[_Rule]]] = {
    "approve": Approve,
    "bounds": Bounds,
    "budget": Budget,
    "combinations": Combinations,
    "deny": Deny,
    "evidence": Evidence,
    "exclusive": Exclusive,
    "fix": Fix,
    "group": Group,
    "infer": Infer,
    "norm": Norm,
    "require": Require,
    "source": SourceRule,
}
"""Every kind of rule by the word that `rule:` says."""
