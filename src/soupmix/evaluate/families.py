"""Families of arms: by what means they steer, and which poles an arm asks for."""

from collections.abc import Mapping

from soupmix.evaluate.record import EvaluationRecord
from soupmix.evaluate.soups import Arm

__all__ = ["asked_of", "family_of"]


def asked_of(arm: Arm, record: EvaluationRecord) -> Mapping[str, str]:
    """Dimension -> pole that an arm asks for; empty for one that asks for nobody's preferences in particular.

    A soup asks by its weights. Other arms are called after the adapters whose poles they ask for ("concise+friendly by prompt").
    """
    names = list(arm.weights) or [name for name in arm.name.split(" ")[0].split("+") if name in record.adapters]
    found: dict[str, str] = {}
    for name in names:
        facts = record.adapters[name]
        if found.setdefault(facts.dimension, facts.pole) != facts.pole:
            return {}
    return found


def family_of(arm: Arm, record: EvaluationRecord) -> str:
    """By what means an arm steers: "base", "delta soup", "prompt", "prompt + delta soup", "few-shot", or its way."""
    if arm.way != "soup":
        return arm.way
    asks = asked_of(arm, record)
    parts = ["prompt"] if arm.system else []
    parts += ["few-shot"] if arm.shots else []
    parts += [f"{arm.method} soup" if asks else f"uniform {arm.method} soup"] if arm.weights else []
    return " + ".join(parts) or "base"
