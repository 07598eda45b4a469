"""Families of arms: by what means they steer, and which poles an arm asks for."""

from collections.abc import Mapping

from soupmix.evaluate.record import EvaluationRecord
from soupmix.evaluate.soups import Arm

__all__ = ["asked_of", "family_of"]


def asked_of(arm: Arm, record: EvaluationRecord) -> Mapping[str, str]:
    """Dimension -> pole that an arm asks for; empty for one that asks for nobody's preferences in particular.

    A soup asks by its weights: of a dimension for the pole that has most of them, for none where two have as much. Other arms are
    called after the adapters whose poles they ask for ("concise+friendly by prompt").
    """
    named = (name for name in arm.name.split(" ")[0].split("+") if name in record.adapters)
    weights: Mapping[str, int] = arm.weights or dict.fromkeys(named, 1)
    found: dict[str, dict[str, int]] = {}
    for name, weight in weights.items():
        facts = record.adapters[name]
        of = found.setdefault(facts.dimension, {})
        of[facts.pole] = of.get(facts.pole, 0) + weight
    is_uniform = {*weights} == {*record.adapters} and len({*weights.values()}) == 1
    if is_uniform and any(len(of) > 1 for of in found.values()):
        return {}
    return {dimension: pole for dimension, of in found.items() if (pole := _most(of))}


def _most(of: Mapping[str, int]) -> str:
    """The pole with the largest weight, "" where several have it."""
    poles = [pole for pole, weight in of.items() if weight == max(of.values())]
    return poles[0] if len(poles) == 1 else ""


def family_of(arm: Arm, record: EvaluationRecord) -> str:
    """By what means an arm steers: "base", "delta soup", "prompt", "prompt + delta soup", "few-shot", or its way."""
    if arm.way != "soup":
        return arm.way
    asks = asked_of(arm, record)
    parts = ["prompt"] if arm.system else []
    parts += ["few-shot"] if arm.shots else []
    parts += [f"{arm.method} soup" if asks else f"uniform {arm.method} soup"] if arm.weights else []
    return " + ".join(parts) or "base"
