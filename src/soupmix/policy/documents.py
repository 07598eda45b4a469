"""The policy document as people write it: pydantic models at the edge, numbers already integer millionths."""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from datetime import date
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from soupmix.files import canonical_json
from soupmix.weights import check_name, to_micro

__all__ = [
    "ATTRIBUTES",
    "TIERS",
    "Approve",
    "Approved",
    "Bounds",
    "Budget",
    "Deny",
    "Document",
    "Group",
    "Rule",
    "Scope",
    "check_digest",
]

TIERS: Final = ("law", "organisation", "user")
"""Outer to inner. A document may only take away from what the tiers before it left."""


def check_digest(text: str) -> str:
    """Return `text` if it is "sha256:" and 64 lower-case hex digits; otherwise raise `ValueError`."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise ValueError(f"{text!r:.90} is not a digest; write sha256: and 64 lower-case hex digits")
    return text


def check_value(text: str) -> str:
    """Return `text` if it can be an attribute's value; lower case only, so that "Minor" cannot slip past "minor"."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,62}", text):
        raise ValueError(f"{text!r:.90} is not an attribute value; use 1 to 63 of a-z, 0-9, '.', '-' and '_'")
    return text


def _check_line(text: str) -> str:
    if not text.isprintable() or not 0 < len(text.strip()) <= 500:
        raise ValueError("must be one line of 1 to 500 printable characters")
    return text


def _parse_date(value: object) -> date:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        return date.fromisoformat(value)
    raise ValueError(f"{value!r:.40} is not a date; write it as in 2027-12-31")


def _parse_micro(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is not a number; write a plain decimal such as 0.3")
    return to_micro(value, "the number", exact=True)


def _twice(items: Iterable[Hashable]) -> Any:
    """The most frequent item if it comes more than once, else None."""
    most = Counter(items).most_common(1)
    return most[0][0] if most and most[0][1] > 1 else None


Name = Annotated[str, AfterValidator(check_name)]
Digest = Annotated[str, AfterValidator(check_digest)]
Value = Annotated[str, AfterValidator(check_value)]
Values = Annotated[tuple[Value, ...], Field(min_length=1)]
Line = Annotated[str, AfterValidator(_check_line)]
Day = Annotated[date, BeforeValidator(_parse_date)]
Micro = Annotated[int, BeforeValidator(_parse_micro)]


class _Edge(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=False, validate_by_alias=True)


class Scope(_Edge):
    """For whom something applies. A key that is not given stands for every value."""

    jurisdiction: Values | None = None
    audience: Values | None = None
    purpose: Values | None = None
    tenant: Values | None = None

    def applies(self, attributes: Mapping[str, str]) -> bool:
        """True unless a known attribute has a value that is not listed: what is not known counts as "applies"."""
        return all(attributes.get(key, values[0]) in values for key, values in self.given().items())

    def given(self) -> dict[str, tuple[str, ...]]:
        """The keys that restrict, in the order of the schema."""
        return {key: values for key in ATTRIBUTES if (values := getattr(self, key)) is not None}


ATTRIBUTES: Final = tuple(Scope.model_fields)
"""What a request may say about itself."""


class Valid(_Edge):
    """Days, both inclusive, in UTC."""

    start: Day | None = Field(default=None, alias="from")
    until: Day | None = None


class Approved(_Edge):
    """One adapter as an approving document knows it. Labels that are given must agree with the store's."""

    name: Name
    digest: Digest
    dimension: Name | None = None
    pole: Name | None = None
    tags: tuple[Name, ...] = ()


class _Rule(_Edge):
    id: Name | None = None
    scope: Scope = Scope()
    public_reason: Line | None = None
    internal_reason: Line | None = None


class _Selecting(_Rule):
    adapter: Name | None = None
    dimension: Name | None = None
    pole: Name | None = None
    tag: Name | None = None

    @model_validator(mode="after")
    def _selects(self) -> Self:
        if not any((self.adapter, self.dimension, self.pole, self.tag)):
            raise ValueError("say which adapters: give adapter, dimension, pole or tag")
        return self


class _Limiting(_Edge):
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
        if twice := _twice(approved.name for approved in self.adapters):
            raise ValueError(f"adapter {twice!r} is listed twice")
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


Rule = Approve | Deny | Bounds | Group | Budget


class Document(_Edge):
    """One policy document of one tier."""

    tier: Literal["law", "organisation", "user"]
    issuer: Line
    version: Line
    valid: Valid = Valid()
    scope: Scope = Scope()
    rules: tuple[Annotated[Rule, Field(discriminator="rule")], ...]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if twice := _twice(rule.id for rule in self.rules if rule.id):
            raise ValueError(f"two rules have the id {twice!r}")
        if _twice(rule.scope for rule in self.rules if isinstance(rule, Approve)):
            raise ValueError(
                "two approve rules with the same scope: only what both list would pass; make them one list"
            )
        return self

    def content(self) -> dict[str, Any]:
        """What the document says, without layout, comments and file name; numbers as integer millionths."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def digest(self) -> str:
        """Hex SHA-256 of the content."""
        return sha256(canonical_json(self.content())).hexdigest()
