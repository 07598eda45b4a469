"""Whether a policy lets anything be concluded from somebody's behaviour, and of what: asked before any evidence is kept.

The clamp keeps an inferred weight at 0 where a rule says so; this says beforehand where that is, with the rules that do.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from soupmix.errors import PolicyRefusal
from soupmix.policy.assembly import PlacedRule
from soupmix.policy.policy import Policy
from soupmix.policy.recorded import Binding
from soupmix.policy.rules import applies, check_attributes
from soupmix.projection import Constraint

__all__ = ["Inferring", "inferring"]


@dataclass(frozen=True, slots=True)
class Inferring:
    """What may be inferred for requests that say the same of themselves.

    Attributes:
        allowed: names of the adapters whose weights may be, sorted.
        withheld: the rules that keep others from it, in their order, each with the adapters that it keeps.
    """

    allowed: tuple[str, ...]
    withheld: tuple[Binding, ...]

    def check(self) -> None:
        """Raise PolicyRefusal (reason "not-inferred") if nothing may be inferred: then no evidence is kept either."""
        if not self.allowed:
            why = f": {self.withheld[0]}" if self.withheld else ""
            raise PolicyRefusal(
                f"nothing may be concluded from behaviour here{why}; choose the weights",
                reason="not-inferred",
                rules=self.withheld,
            )


def inferring(policy: Policy, attributes: Mapping[str, str]) -> Inferring:
    """What a policy lets be inferred, by its rules `infer` and `source`.

    Args:
        policy: the policy in force.
        attributes: what a request says of itself; of what it does not say every rule holds.

    Raises:
        RecipeError: an attribute that does not exist, or a value that none can have.
    """
    check_attributes(attributes)
    names = policy._regions.space.names
    rules = [
        each
        for each in policy._regions.rules
        if each.of_sources and "inferred" not in each.exempt and applies(each.within, attributes)
    ]
    kept = [(rule, _names(rule, names)) for rule in rules]
    withheld = {name for _, found in kept for name in found}
    allowed = tuple(sorted(name for name in names if name not in withheld))
    return Inferring(allowed, tuple(_binding(rule, found) for rule, found in kept if found))


def _names(rule: PlacedRule, names: tuple[str, ...]) -> tuple[str, ...]:
    places = {each.coefs.index(1) for each in rule.constraints if isinstance(each, Constraint)}
    return tuple(sorted(names[place] for place in places))


def _binding(rule: PlacedRule, adapters: tuple[str, ...]) -> Binding:
    ref = rule.ref
    text = next(each.text for each in rule.constraints)
    return Binding(adapters, ref.id, ref.issuer, ref.tier, ref.document, text, ref.public_reason)
