"""A policy document as people write it, where each of its rules stands, and its JSON Schema."""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from soupmix.fields import Day, Edge, Label, Line, twice
from soupmix.files import canonical_json
from soupmix.policy.obligations import Obligation
from soupmix.policy.recorded import DocumentRef
from soupmix.policy.rules import Approve, Rule, Scope
from soupmix.public import public

__all__ = ["BUILT_IN", "TIERS", "Document", "RuleRef", "Valid", "document_schema"]

TIERS: Final = ("law", "organisation", "user")
"""Outer to inner. A document may only take away from what the tiers before it left."""

BUILT_IN: Final = "built-in"
"""Tier and document of the default rules that hold under every policy."""


@public
@dataclass(frozen=True, slots=True)
class RuleRef:
    """Where a rule stands. Equal if they are the same rule of the same document, whatever it says.

    Attributes:
        rank: sorts rules by tier, then by the digest of their document, then by position: never by file name.
        tier: of the document.
        issuer: of the document.
        document: what messages call it, a file name as a rule.
        id: the rule's own, or "rules[3]".
        scope: for whom it holds, as words; "" for everybody.
        refuses: whether a request that it would change is refused instead of clamped.
        internal_reason: for the issuer's own people; never part of a grant.
        key: all that tells rules apart and sorts them, ready to compare.
    """

    rank: tuple[int, str, int]
    tier: str
    issuer: str
    document: str
    id: str
    scope: str = field(default="", compare=False)
    refuses: bool = field(default=False, compare=False)
    public_reason: str | None = field(default=None, compare=False)
    internal_reason: str | None = field(default=None, compare=False)
    key: tuple[object, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", (self.rank, self.tier, self.issuer, self.document, self.id))

    @property
    def is_default(self) -> bool:
        """Whether it is one of the built-in defaults."""
        return self.tier == BUILT_IN

    def __str__(self) -> str:
        return f"{BUILT_IN} {self.id}" if self.is_default else f"{self.document} ({self.tier}) {self.id}"

    def __repr__(self) -> str:
        return f"<RuleRef {self}>"


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

    def ref(self, name: str) -> DocumentRef:
        """Which document it is; `name` is what messages call it."""
        return DocumentRef(name, self.tier, self.issuer, self.version, f"sha256:{self.digest()}")

    def placed(self, name: str) -> tuple[tuple[Rule, RuleRef], ...]:
        """Every rule with where it stands; `name` is what messages call the document."""
        digest = self.digest()
        return tuple(
            (
                rule,
                RuleRef(
                    rank=(TIERS.index(self.tier), digest, index),
                    tier=self.tier,
                    issuer=self.issuer,
                    document=name,
                    id=rule.id or f"rules[{index}]",
                    scope=_in_words(self.scope, rule.scope),
                    refuses=rule.mode == "refuse",
                    public_reason=rule.public_reason,
                    internal_reason=rule.internal_reason,
                ),
            )
            for index, rule in enumerate(self.rules)
        )


def _in_words(*scopes: Scope) -> str:
    parts = [f"{key} {' or '.join(values)}" for scope in scopes for key, values in scope.given().items()]
    return f" for {', '.join(parts)}" if parts else ""


def document_schema() -> dict[str, Any]:
    """The schema of a document as people write it; numbers may be text, as soupmix reads every scalar as text."""
    made = Document.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "soupmix policy document"} | {
        key: value for key, value in made.items() if key != "title"
    }
