"""Which merge methods a bound on the norm can hold for: those whose merge is the weighted sum of deltas."""

from typing import Final

from soupmix.errors import PolicyRefusal

__all__ = ["LINEAR", "check_linear"]

LINEAR: Final = ("delta",)
"""Other methods add terms (`factor`: B_i A_j of two adapters) whose size the inner products of deltas do not tell."""


def check_linear(method: str, rule: str | None) -> None:
    """Refuse a method under a rule that bounds the norm.

    Args:
        rule: the rule in words, or None if there is none.

    Raises:
        PolicyRefusal: the method is not linear, so that the rule would bound nothing (reason "norm-not-linear").
    """
    if rule is not None and method not in LINEAR:
        raise PolicyRefusal(
            f"method {method} was asked for, and {rule} bounds the norm of the merged delta, which it can do only where that is "
            f"the weighted sum of the adapters' deltas; use method {' or '.join(LINEAR)}",
            reason="norm-not-linear",
        )
