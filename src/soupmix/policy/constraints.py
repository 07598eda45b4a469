"""From rules to integer linear constraints; every rule becomes constraints that only remove points."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from soupmix.policy.documents import TIERS, Approve, Bounds, Budget, Deny, Document, Group, Rule, Scope
from soupmix.policy.known import Known
from soupmix.weights import MILLION, decimal_text

__all__ = ["BUILT_IN", "Constraint", "RuleRef", "built_in", "place", "translate"]

BUILT_IN = "built-in"
"""Tier and source of the default rules that hold under every policy."""


@dataclass(frozen=True, slots=True, order=True)
class RuleRef:
    """Where a rule stands.

    Attributes:
        rank: sorts rules by tier, then by the digest of their document, then by position: never by file name.
        scope: for whom it holds, as words; "" for everybody.
    """

    rank: tuple[int, str, int]
    tier: str
    issuer: str
    source: str
    id: str
    scope: str = field(default="", compare=False)
    public_reason: str | None = field(default=None, compare=False)

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
    """

    coefs: tuple[int, ...]
    bound: int
    rule: RuleRef
    text: str


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
                public_reason=rule.public_reason,
            ),
        )
        for index, rule in enumerate(document.rules)
    )


def built_in(known: Sequence[Known], total_budget: int | None) -> list[Constraint]:
    """The defaults: every weight in [0, 1], the poles of a dimension at most 1 together, all at most the budget.

    Args:
        known: the adapters.
        total_budget: millionths, or None for no bound on the total.
    """
    unit, poles, total, missing = (
        RuleRef((-1, "", index), BUILT_IN, "soupmix", BUILT_IN, name)
        for index, name in enumerate(("unit-interval", "one-dimension", "total-budget", "not-in-store"))
    )
    found: list[Constraint] = []
    for index, adapter in enumerate(known):
        alone = [index]
        found += _limit(known, alone, 0, MILLION, unit, "every weight ")
        if not adapter.available:
            found += _limit(known, alone, None, 0, missing, "approved, but not in this store")
    for dimension in sorted({adapter.dimension for adapter in known if adapter.dimension}):
        members = [index for index, adapter in enumerate(known) if adapter.dimension == dimension]
        found += _limit(known, members, None, MILLION, poles, f"the poles of {dimension} together ")
    if total_budget is not None:
        found += _limit(known, range(len(known)), None, total_budget, total, "all weights together ")
    return found


def translate(rule: Rule, ref: RuleRef, known: Sequence[Known]) -> list[Constraint]:
    """The constraints of one rule; none if no known adapter is concerned and nothing is required."""
    match rule:
        case Approve():
            return _approve(rule, ref, known)
        case Deny():
            return [
                constraint
                for index in _selected(rule, known)
                for constraint in _limit(known, [index], None, 0, ref, f"denied{ref.scope}")
            ]
        case Bounds():
            chosen = _selected(rule, known)
            groups: list[list[int]] = [[index] for index in chosen] or [[]]
            return [each for group in groups for each in _limit(known, group, rule.at_least, rule.at_most, ref, "")]
        case Group():
            listed = rule.adapters or [adapter.name for adapter in known if adapter.dimension == rule.dimension]
            members = [index for index, adapter in enumerate(known) if adapter.name in listed]
            names = " + ".join(sorted(known[index].name for index in members))
            prefix = f"{rule.dimension} ({names}) " if rule.dimension else f"{names} ".lstrip()
            return _limit(known, members, rule.at_least, rule.at_most, ref, prefix)
        case Budget():
            return _limit(known, range(len(known)), None, rule.at_most, ref, "all weights together ")


def _approve(rule: Approve, ref: RuleRef, known: Sequence[Known]) -> list[Constraint]:
    listed = {approved.name: approved for approved in rule.adapters}
    found: list[Constraint] = []
    for index, adapter in enumerate(known):
        approved = listed.get(adapter.name)
        why = adapter.mismatch(approved) if approved else f"not approved{ref.scope}"
        if why:
            found += _limit(known, [index], None, 0, ref, why)
    return found


def _limit(
    known: Sequence[Known], members: Sequence[int], least: int | None, most: int | None, ref: RuleRef, text: str
) -> list[Constraint]:
    """Sum bounds over `members`. A text that ends in a space, or is empty, is completed with the bound."""
    chosen = set(members)
    up = tuple(int(index in chosen) for index in range(len(known)))
    found = []
    if most is not None and (chosen or most < 0):
        found.append(Constraint(up, most, ref, _completed(text, "at most", most, ref)))
    if least is not None and (chosen or least > 0):
        down = tuple(-coef for coef in up)
        found.append(Constraint(down, -least, ref, _completed(text, "at least", least, ref)))
    return found


def _completed(text: str, limit: str, bound: int, ref: RuleRef) -> str:
    return f"{text}{limit} {decimal_text(bound)}{ref.scope}" if not text or text.endswith(" ") else text


def _selected(rule: Deny | Bounds, known: Sequence[Known]) -> list[int]:
    return [
        index
        for index, adapter in enumerate(known)
        if rule.adapter in (None, adapter.name)
        and rule.dimension in (None, adapter.dimension)
        and rule.pole in (None, adapter.pole)
        and (rule.tag is None or rule.tag in adapter.tags)
    ]


def _scope_text(*scopes: Scope) -> str:
    parts = [f"{key} {' or '.join(values)}" for scope in scopes for key, values in scope.given().items()]
    return f" for {', '.join(parts)}" if parts else ""
