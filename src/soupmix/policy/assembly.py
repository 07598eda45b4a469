"""What a policy is assembled from: rules in their places, evidence, measures of a store."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from itertools import groupby, pairwise

from soupmix.errors import PolicyError
from soupmix.policy.adapters import AdapterRef, KnownAdapter
from soupmix.policy.documents import TIERS, Document, RuleRef
from soupmix.policy.obligations import Obligation
from soupmix.policy.recorded import DocumentRef, RecordedGrant
from soupmix.policy.rules import CHOSEN, Approve, Infer, Rule, SourceRule, Within, applies, within
from soupmix.policy.translate import Setting, translate
from soupmix.projection import AnyConstraint, Matrix, Space
from soupmix.public import public

__all__ = [
    "PlacedRule",
    "ScopedRule",
    "check_order",
    "duties",
    "in_order",
    "internal_reasons",
    "measured",
    "named",
    "placed",
    "total_budget",
    "unproved",
]

_METRICS = ("weights", "delta")
_METRIC_DIGITS = 6
_GRAM_DIGITS = 40  # of the largest inner product; all are recorded to ten, and numbers further apart overflow floats


@public
@dataclass(frozen=True, slots=True)
class ScopedRule:
    """A rule of a policy: where it stands, and for whom it holds.

    Attributes:
        within: (attribute, values) that a request must not contradict; nothing stands for everybody.
    """

    ref: RuleRef
    within: Within

    def applies(self, attributes: Mapping[str, str]) -> bool:
        """Whether the rule holds for a request with these attributes."""
        return applies(self.within, attributes)

    def __repr__(self) -> str:
        return f"<ScopedRule {self.ref}>"


@dataclass(frozen=True, slots=True)
class PlacedRule:
    """A rule with the constraints that it becomes, which clamping reads.

    Attributes:
        ref, within: as of `ScopedRule`.
        exempt: sources of weights; a weight that comes from one of these is free of the constraints of this rule.
        of_sources: whether it is a rule about where weights come from.
    """

    ref: RuleRef
    within: Within
    constraints: tuple[AnyConstraint, ...]
    exempt: tuple[str, ...] = ()
    of_sources: bool = False

    def of(self, kind: type[AnyConstraint]) -> bool:
        """Whether any of its constraints is of this kind."""
        return any(isinstance(each, kind) for each in self.constraints)

    def shown(self) -> ScopedRule:
        """What others may see of the rule: a copy, with nothing in it that clamping reads."""
        return ScopedRule(replace(self.ref), self.within)


def check_order(documents: Sequence[tuple[str, Document]]) -> None:
    """Raise PolicyError unless outer tiers come first."""
    for (outer, before), (inner, after) in pairwise(documents):
        if TIERS.index(before.tier) > TIERS.index(after.tier):
            raise PolicyError(
                f"{inner} ({after.tier}) comes after {outer} ({before.tier}); give documents in the order "
                f"{', '.join(TIERS)}",
                reason="tier-order",
            )


def placed(documents: Sequence[tuple[str, Document]], setting: Setting) -> tuple[tuple[PlacedRule, ...], list[str]]:
    """All rules of all documents, and notes on those that concern nobody."""
    rules, notes = [], []
    for name, document in documents:
        for rule, ref in document.placed(name):
            found = tuple(translate(rule, ref, setting))
            rules.append(PlacedRule(ref, within(document.scope, rule.scope), found, *_sources(rule)))
            if not found and not isinstance(rule, Approve):
                notes.append(f"{ref} concerns no known adapter, so it has no effect")
    return tuple(rules), notes


def _sources(rule: Rule) -> tuple[tuple[str, ...], bool]:
    match rule:
        case SourceRule():
            return rule.allow, True
        case Infer():
            return CHOSEN, True
    return (), False


def duties(documents: Sequence[Document]) -> tuple[tuple[Within, Obligation], ...]:
    """All obligations of all documents, and for whom they hold."""
    return tuple((within(said.scope, each.scope), each) for said in documents for each in said.obligations)


def named(documents: Sequence[Document]) -> dict[str, frozenset[str]]:
    """Attribute -> all values that a scope names, of those of which any is named."""
    found: dict[str, set[str]] = {}
    for said in documents:
        for each in (*said.rules, *said.obligations):
            for key, values in within(said.scope, each.scope):
                found.setdefault(key, set()).update(values)
    return {key: frozenset(values) for key, values in sorted(found.items())}


def unproved(documents: Sequence[Document], today: date) -> frozenset[str]:
    """Names of adapters that some approve rule lists without a report that counts: one such approval is enough.

    Were one with a report enough to heal it, a document could add points by bringing the report along.
    """
    return frozenset(
        approved.name
        for document in documents
        for rule in document.rules
        if isinstance(rule, Approve)
        for approved in rule.adapters
        if approved.evidence is None or not approved.evidence.counts(today)
    )


def total_budget(adapters: Iterable[AdapterRef]) -> int | None:
    """The budget that a store measured, in millionths. Raises PolicyError if it is no such number."""
    budget = getattr(adapters, "total_budget", None)
    if budget is not None and (not isinstance(budget, int) or isinstance(budget, bool) or budget < 0):
        raise PolicyError(
            f"the store's total_budget is {budget!r}; it must be a whole number of millionths, 0 or more",
            reason="bad-adapter",
        )
    return budget


def measured(known: Sequence[KnownAdapter], adapters: Iterable[AdapterRef], metric: str) -> Space:
    """The space of these adapters with the inner products that the store records.

    Raises:
        PolicyError: the metric "delta" was asked for, and the store does not record them, or not of all (reason "no-norms"); a
            metric that does not exist ("metric").
    """
    if metric not in _METRICS:
        raise PolicyError(f"unknown metric {metric!r:.80}; known are {', '.join(_METRICS)}", reason="metric")
    names = tuple(adapter.name for adapter in known)
    product, norm = getattr(adapters, "inner_product", None), getattr(adapters, "base_norm", None)
    if product is None or not all(adapter.available for adapter in known):
        if metric == "delta":
            raise PolicyError(
                "the metric 'delta' needs a store that records the inner products of all adapters that are approved; "
                "use one, or the metric 'weights'",
                reason="no-norms",
            )
        return Space(names)
    exact = [[_exact(product(a, b)) for b in names] for a in names]
    values = [abs(value) for row in exact for value in row] or [Fraction(0)]
    scale = Fraction(10) ** min(max(map(_digits, values)), _GRAM_DIGITS - _exponent(max(values)))
    gram = tuple(tuple(int(value * scale) for value in row) for row in exact)
    base = None if norm is None else _exact(norm) ** 2 * scale
    return Space(names, _metric(gram) if metric == "delta" else None, gram, base)


def _metric(gram: Matrix) -> Matrix:
    """The Gram matrix to six digits of its largest norm, with as much added to the diagonal as rounding may have taken."""
    largest, size = max((row[index] for index, row in enumerate(gram)), default=1) or 1, len(gram)
    rounded = [[round(Fraction(value * 10**_METRIC_DIGITS, largest)) for value in row] for row in gram]
    return tuple(tuple(value + (size + 1) * (i == j) for j, value in enumerate(row)) for i, row in enumerate(rounded))


def _exact(value: float) -> Fraction:
    return Fraction(f"{value:.10g}")


def _digits(value: Fraction) -> int:
    """How many decimals a decimal fraction has."""
    digits = 0
    while value.denominator > 1:
        value, digits = value * 10, digits + 1
    return digits


def _exponent(value: Fraction) -> int:
    """About how many digits a number has before its point; negative if it is small."""
    return len(str(value.numerator)) - len(str(value.denominator))


def internal_reasons(rules: Iterable[PlacedRule], grant: RecordedGrant) -> dict[str, str]:
    """Internal reasons of the rules that bound, by "document rule"; several where two documents have one name."""
    bound = {(each.tier, each.issuer, each.document, each.rule) for each in grant.binding}
    found: dict[str, list[str]] = {}
    for ref in [each.ref for each in rules]:
        if (ref.tier, ref.issuer, ref.document, ref.id) in bound and ref.internal_reason:
            found.setdefault(f"{ref.document} {ref.id}", []).append(ref.internal_reason)
    return {rule: "; ".join(reasons) for rule, reasons in found.items()}


def in_order(documents: Sequence[tuple[str, Document]]) -> tuple[DocumentRef, ...]:
    """References to documents that are in order of their tiers; those of one tier commute, so they are sorted."""
    tiers = groupby((document.ref(name) for name, document in documents), lambda each: each.tier)
    return tuple(each for _, alike in tiers for each in sorted(alike, key=lambda ref: (ref.digest, ref.document)))
