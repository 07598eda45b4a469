"""What a caller may hear of a policy: the rules that can apply to it, and of their scopes nothing about anybody else."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from soupmix.errors import PolicyRefusal
from soupmix.openai.answers import SoupAnswer
from soupmix.policy import Binding, Grant, Policy
from soupmix.policy.assembly import ScopedRule

__all__ = ["Disclosure"]


class Disclosure:
    """A policy as one caller hears of it.

    Args:
        attributes: what is so of the caller, whatever a request says; what is not known may be anything.
    """

    def __init__(self, policy: Policy, attributes: Mapping[str, str]) -> None:
        self._policy, self._attributes = policy, attributes

    def rules(self) -> list[ScopedRule]:
        """The rules that can apply to a request of this caller, in their places."""
        return [each for each in self._policy.rules if each.applies(self._attributes)]

    def values(self) -> dict[str, list[str]]:
        """The values that the scopes of these rules name, by attribute."""
        found: dict[str, set[str]] = {}
        for key, values in (limit for rule in self.rules() for limit in rule.within):
            found.setdefault(key, set()).update(self._own(key, values))
        return {key: sorted(values) for key, values in sorted(found.items())}

    def scope(self, rule: ScopedRule) -> str:
        """For whom a rule holds, as `RuleRef.scope` has it."""
        parts = [f"{key} {' or '.join(self._own(key, values))}" for key, values in rule.within]
        return f" for {', '.join(parts)}" if parts else ""

    def answer(self, answer: SoupAnswer, grant: Grant) -> SoupAnswer:
        """What is said of a grant, in words for this caller."""
        limits, explanation = [self._limit(each) for each in grant.binding], answer.explanation
        said = {each.limit: after for each, after in zip(grant.binding, limits, strict=True)}
        for before in sorted(said, key=len, reverse=True):  # one may begin as another does
            explanation = explanation.replace(before, said[before])
        told = [each.model_copy(update={"limit": limit}) for each, limit in zip(answer.binding, limits, strict=True)]
        return answer.model_copy(update={"binding": told, "explanation": explanation})

    def _limit(self, binding: Binding) -> str:
        """What a rule limits, in words."""
        text, names = binding.limit, (binding.tier, binding.issuer, binding.document, binding.rule)
        for rule in self._policy.rules:
            ref = rule.ref
            if ref.scope and (ref.tier, ref.issuer, ref.document, ref.id) == names:
                text = text.replace(ref.scope, self.scope(rule))
        return text

    def refusal(self, error: PolicyRefusal) -> PolicyRefusal:
        """A refusal in these words."""
        if error.reason == "not-inferred":
            return self._not_inferred(error)
        refusing = {(rule.ref.document, rule.ref.id) for rule in self._policy.rules if rule.ref.refuses}
        first = next(
            (each for each in error.rules if isinstance(each, Binding) and (each.document, each.rule) in refusing), None
        )
        if first is None or error.reason != "refused-by-rule":
            return error
        said = replace(first, limit=self._limit(first))
        text = f"refused, not clamped ({', '.join(first.adapters)}): {said}"
        return PolicyRefusal(text, reason=error.reason, rules=error.rules)

    def _not_inferred(self, error: PolicyRefusal) -> PolicyRefusal:
        text = str(error)
        for rule in error.rules:
            if isinstance(rule, Binding):
                text = text.replace(str(rule), str(replace(rule, limit=self._limit(rule))))
        return PolicyRefusal(text, reason=error.reason, rules=error.rules)

    def withheld(self, bindings: Iterable[Binding]) -> list[Binding]:
        """Rules that keep weights from being inferred, in these words."""
        return [replace(each, limit=self._limit(each)) for each in bindings]

    def _own(self, key: str, values: tuple[str, ...]) -> tuple[str, ...]:
        return (self._attributes[key],) if key in self._attributes else values
