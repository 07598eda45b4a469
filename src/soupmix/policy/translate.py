"""From rules to constraints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from soupmix.policy.adapters import KnownAdapter
from soupmix.policy.documents import BUILT_IN, TIERS, RuleRef
from soupmix.policy.rules import (
    Approve,
    Bounds,
    Budget,
    Combinations,
    Deny,
    Evidence,
    Exclusive,
    Fix,
    Group,
    Infer,
    Norm,
    Require,
    Rule,
    SourceRule,
)
from soupmix.projection import AnyConstraint, Ball, Choice, Constraint
from soupmix.weights import MILLION, decimal_text

__all__ = ["Setting", "built_in", "own_bounds", "translate"]


@dataclass(frozen=True, slots=True)
class Setting:
    """What rules are read against.

    Attributes:
        known: the adapters; adapter i has coordinate i. today: the day (UTC) that reports must still count on.
        unproved: names of adapters with an approval that has no report that counts.
    """

    known: tuple[KnownAdapter, ...]
    today: date
    unproved: frozenset[str] = frozenset()


def built_in(known: Sequence[KnownAdapter], total_budget: int | None) -> list[Constraint]:
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


def own_bounds(known: Sequence[KnownAdapter], bounds: Mapping[str, tuple[int, int]]) -> list[Constraint]:
    """What a person says of their own weights, as constraints: least and most in millionths, by name."""
    whose = RuleRef((len(TIERS), "", 0), "person", "the person", "person", "own")
    return [
        each
        for index, adapter in enumerate(known)
        if adapter.name in bounds
        for each in _limit(known, [index], *bounds[adapter.name], whose, "")
    ]


def translate(rule: Rule, ref: RuleRef, setting: Setting) -> list[AnyConstraint]:
    """The constraints of one rule; none if no known adapter is concerned and nothing is required."""
    known = setting.known
    match rule:
        case Approve():
            return [*_approve(rule, ref, setting)]
        case Deny():
            return [*_none_of(_selected(rule, known), ref, known, f"denied{ref.scope}")]
        case Bounds() | Require():
            most = rule.at_most if isinstance(rule, Bounds) else None
            groups: list[list[int]] = [[index] for index in _selected(rule, known)] or [[]]
            return [each for group in groups for each in _limit(known, group, rule.at_least, most, ref, "")]
        case Group():
            members = _listed(rule, known)
            names = " + ".join(sorted(known[index].name for index in members))
            prefix = f"{rule.dimension} ({names}) " if rule.dimension else f"{names} ".lstrip()
            return [*_limit(known, members, rule.at_least, rule.at_most, ref, prefix)]
        case Budget():
            return [*_limit(known, range(len(known)), None, rule.at_most, ref, "all weights together ")]
        case Fix():
            return [*_fix(rule, ref, known)]
        case SourceRule():
            text = f"a weight that is not {' or '.join(rule.allow) or 'allowed from any source'} is 0{ref.scope}"
            return [*_none_of(_selected(rule, known), ref, known, text)]
        case Infer():
            others = [index for index, adapter in enumerate(known) if adapter.dimension not in rule.dimensions]
            text = f"a weight that nobody chose is 0, except of {', '.join(rule.dimensions) or 'nothing'}{ref.scope}"
            return [*_none_of(others, ref, known, text)]
        case Evidence():
            missing = [index for index in _selected(rule, known) if known[index].name in setting.unproved]
            return [*_none_of(missing, ref, known, f"approved without an evaluation report that counts{ref.scope}")]
        case Exclusive():
            return [*_exclusive(rule, ref, known)]
        case Combinations():
            return [*_combinations(rule, ref, setting)]
        case Norm():  # pragma: no branch  # mypy knows that there is no other rule
            share = decimal_text(rule.at_most)
            return [Ball(rule.at_most, ref, f"the merged delta has at most {share} of the base's norm{ref.scope}")]


def _approve(rule: Approve, ref: RuleRef, setting: Setting) -> list[Constraint]:
    listed = {approved.name: approved for approved in rule.adapters}
    found: list[Constraint] = []
    for index, adapter in enumerate(setting.known):
        approved = listed.get(adapter.name)
        why = adapter.mismatch(approved) if approved else f"not approved{ref.scope}"
        if approved and not why and approved.evidence and not approved.evidence.counts(setting.today):
            why = f"its evaluation report counted until {approved.evidence.until}"
        if why:
            found += _none_of([index], ref, setting.known, why)
    return found


def _none_of(members: Sequence[int], ref: RuleRef, known: Sequence[KnownAdapter], text: str) -> list[Constraint]:
    return [each for index in members for each in _limit(known, [index], None, 0, ref, text)]


def _fix(rule: Fix, ref: RuleRef, known: Sequence[KnownAdapter]) -> list[Constraint]:
    missing = sorted(set(rule.weights) - {adapter.name for adapter in known})
    if missing:
        text = f"fixes {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not known"
        return [Constraint((0,) * len(known), -1, ref, text)]
    ats = [rule.weights.get(adapter.name, 0) for adapter in known]
    texts = [f"fixed at {decimal_text(at)}{ref.scope}" for at in ats]
    numbered = enumerate(zip(ats, texts, strict=True))
    return [each for index, (at, text) in numbered for each in _limit(known, [index], at, at, ref, text)]


def _exclusive(rule: Exclusive, ref: RuleRef, known: Sequence[KnownAdapter]) -> list[Choice]:
    members, everybody = set(_listed(rule, known)), set(range(len(known)))
    if len(members) < 2:
        return []
    supports = tuple((frozenset(everybody - members | {one}), None) for one in sorted(members))
    names = ", ".join(sorted(known[index].name for index in members))
    return [Choice(supports, ref, f"only one of {names} at a time{ref.scope}")]


def _combinations(rule: Combinations, ref: RuleRef, setting: Setting) -> list[Choice]:
    index_of = {adapter.name: index for index, adapter in enumerate(setting.known)}
    live = [each for each in rule.allow if each.evidence.counts(setting.today)]
    supports = [(frozenset(index_of[n] for n in each.adapters if n in index_of), each.at_most) for each in live]
    return [Choice(tuple(supports), ref, f"not approved in this combination{ref.scope}")]


def _listed(rule: Group | Exclusive, known: Sequence[KnownAdapter]) -> list[int]:
    """Indices of the adapters that a rule lists, or of a dimension."""
    names = rule.adapters or [adapter.name for adapter in known if adapter.dimension == rule.dimension]
    return [index for index, adapter in enumerate(known) if adapter.name in names]


def _limit(
    known: Sequence[KnownAdapter], members: Sequence[int], least: int | None, most: int | None, ref: RuleRef, text: str
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


def _selected(rule: Deny | Bounds | Require | SourceRule | Evidence, known: Sequence[KnownAdapter]) -> list[int]:
    return [
        index
        for index, adapter in enumerate(known)
        if rule.adapter in (None, adapter.name)
        and rule.dimension in (None, adapter.dimension)
        and rule.pole in (None, adapter.pole)
        and (rule.tag is None or rule.tag in adapter.tags)
    ]
