"""The specification: which weights are feasible under which documents, exact and slow. Tests hold the rest of this room to it.

A document is what its YAML says, every scalar a text. Nothing here is shared with how documents are parsed and compiled.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from typing import Any

from soupmix.weights import MILLION

__all__ = ["is_feasible"]

_Said = Mapping[str, Any]


def is_feasible(
    weights: Mapping[str, int],
    documents: Sequence[_Said],
    store: Iterable[Any] = (),
    *,
    today: date,
    attributes: Mapping[str, str] = {},
    sources: Mapping[str, str] = {},
) -> bool:
    """Whether weights (millionths by name, 0 where there is none) satisfy the defaults and every rule that applies.

    Args:
        store: adapters with name, digest, dimension, pole and tags; may have total_budget, inner_product and base_norm.
        today: the day (UTC) that reports must still count on.
        attributes, sources: what the request says of itself, and of its weights by name.
    """
    approvals = [
        each for said in documents for rule in said["rules"] if rule["rule"] == "approve" for each in rule["adapters"]
    ]
    known, stored, budget = (
        _known(store, approvals),
        {each.name for each in store},
        getattr(store, "total_budget", None),
    )
    w = {name: weights.get(name, 0) for name in known}
    defaults = (
        all(name in known for name, value in weights.items() if value)
        and all(0 <= value <= MILLION for value in w.values())
        and all(sum(poles) <= MILLION for poles in _by_dimension(w, known))
        and (budget is None or sum(w.values()) <= budget)
        and all(not w[name] or name in stored for name in known if stored)
    )
    request = _Request(w, known, store, approvals, today, sources)
    return defaults and all(
        _obeys(rule, request)
        for said in documents
        for rule in said["rules"]
        if _applies(said.get("scope", {}), attributes) and _applies(rule.get("scope", {}), attributes)
    )


def _obeys(rule: _Said, request: "_Request") -> bool:
    w, known = request.w, request.known
    least, most = (Fraction(rule.get(key, end)) * MILLION for key, end in (("at_least", "-9999"), ("at_most", "9999")))
    matching = [a.name for a in known.values() if _matches(rule, a)]
    used = {name for name, value in w.items() if value}
    match rule["rule"]:
        case "approve":
            listed = {each["name"]: each for each in rule["adapters"] if request.counts(each)}
            return all(name in listed and _is(listed[name], known[name]) for name in used)
        case "deny":
            return not used & set(matching)
        case "bounds" | "require":  # a demand on adapters of which there is none is not met
            return all(least <= value <= most for value in [w[name] for name in matching] or [0])
        case "group":
            return least <= sum(w[name] for name in matching) <= most
        case "budget":
            return sum(w.values()) <= most
        case "fix":
            fixed = {name: Fraction(number) * MILLION for name, number in rule["weights"].items()}
            return fixed.keys() <= w.keys() and all(value == fixed.get(name, 0) for name, value in w.items())
        case "source":
            return all(request.sources.get(name) in rule["allow"] for name in used & set(matching))
        case "infer":
            inferable = {name for name, a in known.items() if a.dimension in rule["dimensions"]}
            return all(request.sources.get(name) in {"explicit", "stored"} for name in used - inferable)
        case "evidence":
            proved = [each["name"] for each in request.approvals if "evidence" in each and request.counts(each)]
            every = [each["name"] for each in request.approvals]
            return all(proved.count(name) == every.count(name) for name in used & set(matching))
        case "exclusive":
            return len(used & set(matching)) <= 1
        case "combinations":
            live = [each for each in rule["allow"] if request.counts(each)]
            totals = [Fraction(each.get("at_most", "9999")) * MILLION for each in live if used <= set(each["adapters"])]
            return any(sum(w.values()) <= total for total in totals) if live else not used
        case "norm":
            return request.squared_norm() <= most**2 * Fraction(f"{request.store.base_norm:.10g}") ** 2
    raise ValueError(f"there is no rule {rule['rule']!r}")


@dataclass(frozen=True)
class _Adapter:
    name: str
    digest: str
    dimension: str | None
    pole: str | None
    tags: frozenset[str]


@dataclass(frozen=True)
class _Request:
    w: Mapping[str, int]
    known: Mapping[str, _Adapter]
    store: Any
    approvals: Sequence[_Said]
    today: date
    sources: Mapping[str, str]

    def counts(self, listed: _Said) -> bool:
        """Whether an approval has no report, or one that still counts."""
        return "evidence" not in listed or self.today <= date.fromisoformat(listed["evidence"]["until"])

    def squared_norm(self) -> Fraction:
        """Of the weighted sum of deltas, in squared millionths."""
        products = {(a, b): Fraction(f"{self.store.inner_product(a, b):.10g}") for a in self.w for b in self.w}
        return sum((self.w[a] * self.w[b] * product for (a, b), product in products.items()), Fraction(0))


def _known(store: Iterable[Any], approvals: Sequence[_Said]) -> dict[str, _Adapter]:
    """The adapters of the store, or else of the approvals; a label that the store does not say is taken from them."""
    known = {a.name: _Adapter(a.name, a.digest, a.dimension, a.pole, frozenset(a.tags)) for a in store}
    for said in approvals:
        a = known.get(said["name"], _Adapter(said["name"], said["digest"], None, None, frozenset()))
        dimension, pole = a.dimension or said.get("dimension"), a.pole or said.get("pole")
        known[a.name] = replace(a, dimension=dimension, pole=pole, tags=a.tags | {*said.get("tags", ())})
    return known


def _by_dimension(w: Mapping[str, int], known: Mapping[str, _Adapter]) -> list[list[int]]:
    dimensions = {a.dimension for a in known.values() if a.dimension}
    return [[w[a.name] for a in known.values() if a.dimension == each] for each in dimensions]


def _is(approved: _Said, adapter: _Adapter) -> bool:
    """Whether an adapter is the approved one: the digest, and the labels that are given."""
    return all(
        approved.get(key, getattr(adapter, key)) == getattr(adapter, key) for key in ("digest", "dimension", "pole")
    )


def _matches(rule: _Said, a: _Adapter) -> bool:
    named = rule.get("adapter", a.name) == a.name and a.name in rule.get("adapters", [a.name])
    labelled = rule.get("dimension", a.dimension) == a.dimension and rule.get("pole", a.pole) == a.pole
    return named and labelled and rule.get("tag") in {None, *a.tags}


def _applies(scope: Mapping[str, Sequence[str]], attributes: Mapping[str, str]) -> bool:
    """Unless the request states something else: what is not said counts as "applies"."""
    return all(attributes.get(key, values[0]) in values for key, values in scope.items())
