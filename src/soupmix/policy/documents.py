"""The policy document as people write it: pydantic models at the edge, numbers already integer millionths."""

from hashlib import sha256
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from soupmix.fields import Day, Edge, Label, Line, twice
from soupmix.files import canonical_json
from soupmix.policy.obligations import Obligation
from soupmix.policy.rules import Approve, Rule, Scope

__all__ = ["TIERS", "Document", "Valid"]

TIERS: Final = ("law", "organisation", "user")
"""Outer to inner. A document may only take away from what the tiers before it left."""


class Valid(Edge):
    """Days, both inclusive, in UTC."""

    start: Day | None = Field(default=None, alias="from")
    until: Day | None = None


class Document(Edge):
    """One policy document of one tier."""

    tier: Literal["law", "organisation", "user"]
    issuer: Line
    version: Label
    valid: Valid = Valid()
    scope: Scope = Scope()
    rules: tuple[Annotated[Rule, Field(discriminator="rule")], ...]
    obligations: tuple[Annotated[Obligation, Field(discriminator="oblige")], ...] = ()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if doubled := twice(rule.id for rule in self.rules if rule.id):
            raise ValueError(f"two rules have the id {doubled!r}")
        if twice(rule.scope for rule in self.rules if isinstance(rule, Approve)):
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
