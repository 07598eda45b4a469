"""What is told of a clamp: which rules bound and how hard, how far it moved, and whether one of them refuses."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import isqrt

from soupmix.errors import PolicyRefusal
from soupmix.policy.grant import Binding
from soupmix.policy.known import Known
from soupmix.policy.pieces import RuleRef
from soupmix.policy.region import Pull, Space
from soupmix.policy.rows import Exact
from soupmix.weights import decimal_text

__all__ = ["bindings", "check_refusal", "root_text"]


def check_refusal(pulls: Sequence[Pull], binding: Sequence[Binding]) -> None:
    """Raise PolicyRefusal (reason "refused-by-rule") if a rule that refuses would have changed the request."""
    refusing = {(pull.rule.source, pull.rule.id) for pull in pulls if pull.rule.refuses}
    for each in binding:
        if (each.source, each.rule) in refusing:
            names = ", ".join(each.adapters)
            raise PolicyRefusal(f"refused, not clamped ({names}): {each}", reason="refused-by-rule", rules=binding)


def bindings(pulls: Iterable[Pull], known: Sequence[Known], changed: set[str]) -> tuple[Binding, ...]:
    """One binding per rule and text, over the adapters that changed; outer tiers first."""
    names: dict[tuple[RuleRef, str], set[str]] = {}
    hardest: dict[tuple[RuleRef, str], Exact] = {}
    for pull in pulls:
        key = pull.rule, pull.text
        names.setdefault(key, set()).update({known[index].name for index in pull.adapters} & changed)
        hardest[key] = max(hardest.get(key, 0), pull.multiplier)
    return tuple(
        Binding(
            tuple(sorted(found)),
            ref.id,
            ref.issuer,
            ref.tier,
            ref.source,
            text,
            ref.public_reason,
            decimal_text(round(hardest[ref, text])),
        )
        for (ref, text), found in sorted(names.items())
    )


def root_text(square: Exact, space: Space) -> str:
    """The root of a squared distance, in units of weight with six digits, rounded down."""
    unit = 1 if space.metric is None else max(row[index] for index, row in enumerate(space.metric))
    value = Fraction(square) / unit
    return decimal_text(isqrt(value.numerator // value.denominator))
