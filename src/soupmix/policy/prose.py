"""A policy document in sentences, for people who do not read YAML."""

from collections.abc import Iterator

from soupmix.policy.documents import Document
from soupmix.policy.obligations import Disclose, Log, Obligation, Offer
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
    Scope,
    SourceRule,
)
from soupmix.weights import decimal_text

__all__ = ["prose"]


def prose(document: Document, name: str) -> tuple[str, ...]:
    """What a document says, a line for each rule and each obligation, under a first line that says whose it is.

    Args:
        name: what people call it, such as the name of its file.
    """
    days = document.valid
    term = "".join(f", {word} {day}" for word, day in (("from", days.start), ("until", days.until)) if day is not None)
    whose = f"{name}: {document.tier}, by {document.issuer}, version {document.version}"
    lines = [f"{whose}{term}{_whom(document.scope)}; sha256:{document.digest()}"]
    for rule, ref in document.placed(name):
        end = "" if rule.mode == "clamp" else " Else the request is refused."
        why = f" Told to people: {rule.public_reason}." if rule.public_reason else ""
        lines.append(f"- {ref.id}: {_rule(rule)}{_whom(rule.scope)}.{end}{why}")
    lines += [f"- obliges to {_duty(each)}{_whom(each.scope)}." for each in document.obligations]
    if not document.rules and not document.obligations:
        lines.append("- says nothing.")
    return tuple(lines)


def _whom(scope: Scope) -> str:
    """For whom, as the words behind a sentence; a request that does not say counts as one of them."""
    parts = [f"{key} {' or '.join(values)}" for key, values in scope.given().items()]
    return f", where {' and '.join(parts)} or not said" if parts else ""


def _rule(rule: Rule) -> str:
    match rule:
        case Approve():
            listed = ", ".join(_approved(each.name, each.evidence and each.evidence.until) for each in rule.adapters)
            return f"only these adapters may be used, by digest: {listed or 'none'}"
        case Deny():
            return f"{_which(rule)} may not be used"
        case Bounds():
            return f"{_which(rule)} has a weight of {_limits(rule.at_least, rule.at_most)}"
        case Require():
            return f"{_which(rule)} has a weight of at least {decimal_text(rule.at_least)}"
        case Group():
            return f"{_members(rule)} together have weights of {_limits(rule.at_least, rule.at_most)}"
        case Budget():
            return f"all weights together are at most {decimal_text(rule.at_most)}"
        case Fix():
            weights = ", ".join(f"{name} {decimal_text(micro)}" for name, micro in rule.weights.items())
            return f"nothing is personalised, and the weights are {weights or '0'}"
        case SourceRule():
            allowed = " or ".join(rule.allow) or "none"
            return f"{_which(rule)} counts only with a weight from this source: {allowed}"
        case Infer():
            if not rule.dimensions:
                return "no weight may be inferred, and no evidence is kept of what anybody wants"
            return (
                f"only weights of {', '.join(rule.dimensions)} may be inferred; those of all others have to be chosen"
            )
        case Exclusive():
            return f"only one of {_members(rule)} is used at a time"
        case Combinations():
            return f"only these are used together, or part of them: {'; '.join(_together(rule)) or 'none'}"
        case Evidence():
            return f"{_which(rule)} may not be used without an evaluation report that still counts"
        case Norm():  # pragma: no branch  # mypy knows that there is no other rule
            share = decimal_text(rule.at_most)
            return f"the merged change is at most {share} of the norm of the base's weights that it changes"


def _approved(name: str, until: object) -> str:
    return name if until is None else f"{name} (its report counts until {until})"


def _together(rule: Combinations) -> Iterator[str]:
    for each in rule.allow:
        most = "" if each.at_most is None else f" (at most {decimal_text(each.at_most)} in all)"
        yield f"{' + '.join(each.adapters)}{most} until {each.evidence.until}"


def _which(rule: Deny | Bounds | Require | SourceRule | Evidence) -> str:
    parts = [("adapter", rule.adapter), ("dimension", rule.dimension), ("pole", rule.pole), ("tag", rule.tag)]
    said = " and ".join(f"{label} {word}" for label, word in parts if word is not None)
    return f"what has {said}" if said else "every adapter"


def _members(rule: Group | Exclusive) -> str:
    return " + ".join(rule.adapters) if rule.adapters else f"the poles of {rule.dimension}"


def _limits(least: int | None, most: int | None) -> str:
    texts = [
        f"{word} {decimal_text(micro)}" for word, micro in (("at least", least), ("at most", most)) if micro is not None
    ]
    return " and ".join(texts)


def _duty(each: Obligation) -> str:
    match each:
        case Disclose():
            what = {"ai": "that it is a machine", "personalisation": "that its answers are personalised"}[each.what]
            return f"tell the person {what}"
        case Log():
            return f"keep an audit record of {each.level}"
        case Offer():
            return f"offer {each.what}"
    return f"keep records and profiles for at most {each.days} days"
