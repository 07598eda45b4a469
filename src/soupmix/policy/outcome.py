"""What is told of a clamp, ready for every grant of the same request: what is let through, what bound, how far it moved."""

from collections.abc import Sequence
from dataclasses import dataclass

from soupmix.errors import PolicyRefusal
from soupmix.policy.grant import seal_of
from soupmix.policy.known import Known
from soupmix.policy.recorded import Binding
from soupmix.policy.region import Clamped, Pull
from soupmix.weights import Weights, decimal_text

__all__ = ["Outcome"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a `Grant` says of a clamp; see there.

    Attributes:
        refused: the first binding of a rule that refuses instead of clamping, or None.
        seal: of all this, as it was clamped; see `seal_of`.
    """

    granted: Weights
    adapter_digests: tuple[tuple[str, str], ...]
    binding: tuple[Binding, ...]
    distance: str
    refused: Binding | None
    seal: bytes

    @classmethod
    def of(cls, clamped: Clamped, known: Sequence[Known]) -> "Outcome":
        """A clamp over these adapters, in words."""
        used = {adapter.name: micro for adapter, micro in zip(known, clamped.granted, strict=True) if micro}
        granted, distance = Weights.unchecked(used), decimal_text(clamped.distance)
        digests = tuple(sorted([(adapter.name, adapter.digest) for adapter in known if adapter.name in used]))
        binding = tuple([_binding(pull, known) for pull in clamped.pulls])
        refused = next((b for b, pull in zip(binding, clamped.pulls, strict=True) if pull.rule.refuses), None)
        return cls(granted, digests, binding, distance, refused, seal_of(granted, digests, binding, distance))

    def check(self) -> None:
        """Raise PolicyRefusal (reason "refused-by-rule") if a rule that refuses would have changed the request."""
        if self.refused is not None:
            names = ", ".join(self.refused.adapters)
            raise PolicyRefusal(
                f"refused, not clamped ({names}): {self.refused}", reason="refused-by-rule", rules=self.binding
            )


def _binding(pull: Pull, known: Sequence[Known]) -> Binding:
    rule = pull.rule
    return Binding(
        tuple(sorted({known[index].name for index in pull.adapters})),
        rule.id,
        rule.issuer,
        rule.tier,
        rule.source,
        pull.text,
        rule.public_reason,
        decimal_text(pull.multiplier),
    )
