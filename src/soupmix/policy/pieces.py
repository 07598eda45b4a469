"""What rules become: integer linear constraints, choices of supports, bounds on a norm. Each only removes points."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

from soupmix.policy.documents import TIERS, Document
from soupmix.policy.known import Known
from soupmix.policy.rules import Rule, Scope

__all__ = ["BUILT_IN", "Ball", "Choice", "Constraint", "Piece", "RuleRef", "Setting", "place", "several"]

BUILT_IN = "built-in"
"""Tier and source of the default rules that hold under every policy."""


@dataclass(frozen=True, slots=True, order=True)
class RuleRef:
    """Where a rule stands.

    Attributes:
        rank: sorts rules by tier, then by the digest of their document, then by position: never by file name.
        scope: for whom it holds, as words; "" for everybody.
        refuses: whether a request that it would change is refused instead of clamped.
        internal_reason: for the issuer's own people; never part of a grant.
        key: all that tells rules apart and sorts them, ready to compare.
    """

    rank: tuple[int, str, int]
    tier: str
    issuer: str
    source: str
    id: str
    scope: str = field(default="", compare=False)
    refuses: bool = field(default=False, compare=False)
    public_reason: str | None = field(default=None, compare=False)
    internal_reason: str | None = field(default=None, compare=False)
    key: tuple[object, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", (self.rank, self.tier, self.issuer, self.source, self.id))

    def __str__(self) -> str:
        return f"{self.source} ({self.tier}) {self.id}" if self.tier != BUILT_IN else f"{BUILT_IN} {self.id}"


@dataclass(frozen=True, slots=True)
class Constraint:
    """sum(coefs * weights) <= bound, in integer millionths.

    Attributes:
        coefs: one per known adapter, in the order of `know`.
        bound: millionths.
        rule: whose constraint it is.
        text: what it limits, for people.
        unless: sources of the one adapter's weight for which it does not hold.
    """

    coefs: tuple[int, ...]
    bound: int
    rule: RuleRef
    text: str
    unless: tuple[str, ...] = ()

    @property
    def minds(self) -> int | None:
        """The index of the adapter on whose source it depends whether this holds, if it does."""
        return self.coefs.index(1) if self.unless and 1 in self.coefs else None


@dataclass(frozen=True, slots=True)
class Choice:
    """The adapters that are not 0 all lie in one of these supports: (adapter indices, most in sum or None)."""

    supports: tuple[tuple[frozenset[int], int | None], ...]
    rule: RuleRef
    text: str


@dataclass(frozen=True, slots=True)
class Ball:
    """The norm of the merged delta is at most this share, in millionths, of the norm of the base weights."""

    share: int
    rule: RuleRef
    text: str


Piece = Constraint | Choice | Ball


@dataclass(frozen=True, slots=True)
class Setting:
    """What rules are read against.

    Attributes:
        known: the adapters. today: the day (UTC) that reports must still count on.
        unproved: names of adapters with an approval that has no report that counts.
    """

    known: tuple[Known, ...]
    today: date
    unproved: frozenset[str] = frozenset()


def place(document: Document, source: str) -> tuple[tuple[Rule, RuleRef], ...]:
    """Every rule of a document with where it stands."""
    digest = document.digest()
    return tuple(
        (
            rule,
            RuleRef(
                rank=(TIERS.index(document.tier), digest, index),
                tier=document.tier,
                issuer=document.issuer,
                source=source,
                id=rule.id or f"rules[{index}]",
                scope=_scope_text(document.scope, rule.scope),
                refuses=rule.mode == "refuse",
                public_reason=rule.public_reason,
                internal_reason=rule.internal_reason,
            ),
        )
        for index, rule in enumerate(document.rules)
    )


def several(rules: Iterable[RuleRef]) -> str:
    """Rules in words, the first three by name."""
    names = sorted({str(rule) for rule in rules})
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _scope_text(*scopes: Scope) -> str:
    parts = [f"{key} {' or '.join(values)}" for scope in scopes for key, values in scope.given().items()]
    return f" for {', '.join(parts)}" if parts else ""
