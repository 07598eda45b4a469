"""A reading of policy documents that shares no code with their compilation: is a point in the feasible set?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from soupmix.weights import MILLION

TODAY = "2026-11-24"


@dataclass(frozen=True)
class Ref:
    name: str
    dimension: str
    pole: str
    digest: str
    tags: tuple[str, ...] = ()


class Shelf(tuple[Ref, ...]):
    total_budget: int | None = 1_500_000


def digest_of(text: str) -> str:
    return f"sha256:{sha256(text.encode()).hexdigest()}"


SHELF = Shelf(
    Ref(name, dimension, name, digest_of(name), tags)
    for name, dimension, tags in [
        ("elementary", "expertise", ()),
        ("expert", "expertise", ("technical",)),
        ("concise", "length", ()),
        ("informative", "length", ("technical",)),
        ("friendly", "style", ()),
        ("unfriendly", "style", ("rude",)),
    ]
)
NAMES = [ref.name for ref in SHELF]


def allows(
    documents: Sequence[dict[str, Any]],
    refs: Shelf,
    said: Mapping[str, str],
    micro: Mapping[str, int],
    sources: Mapping[str, str] = {},
) -> bool:
    """Whether a point is in the feasible set, read straight off the documents."""
    w = {ref.name: micro.get(ref.name, 0) for ref in refs}
    dimensions = {ref.dimension for ref in refs}

    def together(dimension: str) -> int:
        return sum(w[ref.name] for ref in refs if ref.dimension == dimension)

    if not all(0 <= x <= MILLION for x in w.values()) or any(together(d) > MILLION for d in dimensions):
        return False
    if refs.total_budget is not None and sum(w.values()) > refs.total_budget:
        return False
    rules = [
        rule
        for document in documents
        for rule in document["rules"]
        if all(
            key not in said or said[key] in values
            for scope in (document.get("scope", {}), rule.get("scope", {}))
            for key, values in scope.items()
        )
    ]
    approvals = [rule for document in documents for rule in document["rules"] if rule["rule"] == "approve"]
    unproved = {each["name"] for rule in approvals for each in rule["adapters"] if not _counts(each)}
    return all(_obeys(rule, refs, w, unproved, sources) for rule in rules)


def _counts(approved: Mapping[str, Any]) -> bool:
    return "evidence" in approved and str(approved["evidence"]["until"]) >= TODAY


def _obeys(
    rule: dict[str, Any], refs: Shelf, w: Mapping[str, int], unproved: set[str], sources: Mapping[str, str]
) -> bool:
    least = round(float(rule.get("at_least", "-1000")) * MILLION)
    most = round(float(rule.get("at_most", "1000")) * MILLION)

    def within(x: int) -> bool:
        return least <= x <= most

    matching = [
        ref
        for ref in refs
        if rule.get("adapter", ref.name) == ref.name
        and rule.get("dimension", ref.dimension) == ref.dimension
        and rule.get("pole", ref.pole) == ref.pole
        and ("tag" not in rule or rule["tag"] in ref.tags)
    ]
    match rule["rule"]:
        case "approve":
            alive = [each for each in rule["adapters"] if "evidence" not in each or _counts(each)]
            listed = {(each["name"], each["digest"]) for each in alive}
            return all(w[ref.name] == 0 for ref in refs if (ref.name, ref.digest) not in listed)
        case "deny":
            return all(w[ref.name] == 0 for ref in matching)
        case "bounds" | "require":
            return all(within(w[ref.name]) for ref in matching)
        case "group":
            members = [ref.name for ref in matching if ref.name in rule.get("adapters", NAMES)]
            return within(sum(w[name] for name in members))
        case "budget":
            return within(sum(map(abs, w.values())))
        case "fix":
            fixed = {name: round(float(number) * MILLION) for name, number in rule["weights"].items()}
            return all(x == fixed.get(name, 0) for name, x in w.items())
        case "source":
            return all(w[ref.name] == 0 for ref in matching if sources.get(ref.name) not in rule["allow"])
        case "evidence":
            return all(w[ref.name] == 0 for ref in matching if ref.name in unproved)
        case "exclusive":
            return sum(w[ref.name] != 0 for ref in matching if ref.name in rule.get("adapters", NAMES)) <= 1
        case "combinations":
            used = {name for name, x in w.items() if x}
            return not used or any(
                used <= set(each["adapters"])
                and sum(w[name] for name in used) <= round(float(each.get("at_most", "1000")) * MILLION)
                for each in rule["allow"]
                if _counts(each)
            )
    raise AssertionError(rule)
