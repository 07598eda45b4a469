"""What answers cost, in tokens."""

from collections.abc import Sequence
from typing import Any

from soupmix.evaluate.samples import ArmSample

__all__ = ["costs"]


def costs(samples: Sequence[ArmSample]) -> dict[str, Any]:
    """Temperature -> arm -> means over its answers: "tokens", and "decoded", how many were decoded for them in all rows."""
    counted: dict[str, dict[str, list[tuple[int, int]]]] = {}
    for each in samples:
        decoded = each.tokens if each.decoded is None else each.decoded
        counted.setdefault(f"{each.temperature:g}", {}).setdefault(each.arm.name, []).append((each.tokens, decoded))
    return {
        temperature: {
            arm: dict(zip(("tokens", "decoded"), map(_mean, zip(*pairs, strict=True)), strict=True))
            for arm, pairs in arms.items()
        }
        for temperature, arms in counted.items()
    }


def _mean(values: Sequence[int]) -> float:
    return float(f"{sum(values) / len(values):.6g}")
