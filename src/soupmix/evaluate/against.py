"""What soups are compared with: the same preferences by other means, as arms."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from soupmix.evaluate.soups import Arm, unique
from soupmix.store import ManifestEntry
from soupmix.weights import MILLION, Weights

__all__ = ["AGAINST", "Compared", "compared", "system_prompt"]


@dataclass(frozen=True, slots=True)
class Compared:
    """What other arms are made from.

    Attributes:
        soups: those that they are compared with. adapters: of the store, by name. preferences: pole -> system prompt.
    """

    soups: Sequence[Arm]
    adapters: Mapping[str, ManifestEntry]
    preferences: Mapping[str, str]


def system_prompt(names: Sequence[str], given: Compared) -> str:
    """The preference prompts of adapters in one, or "" where one of them has none."""
    texts = [given.preferences.get(given.adapters[name].pole, "") for name in names]
    return " ".join(texts) if texts and all(texts) else ""


def _prompts(given: Compared) -> list[Arm]:
    """What the poles of a soup are by a system prompt alone; the strength cannot be said in it."""
    found = [tuple(arm.weights) for arm in given.soups if arm.weights]
    made = ((names, system_prompt(names, given)) for names in dict.fromkeys(found))
    return [Arm(f"{'+'.join(names)} by prompt", Weights({}), system=text) for names, text in made if text]


def _prompted_soups(given: Compared) -> list[Arm]:
    """A soup whose preference prompt is said as well."""
    made = ((arm, system_prompt(tuple(arm.weights), given)) for arm in given.soups if arm.weights)
    return [replace(arm, name=f"{arm.name} and prompt", system=text) for arm, text in made if text]


def _uniform(given: Compared) -> list[Arm]:
    """All adapters of the store in equal parts, which sum to 1 at most."""
    names = sorted(given.adapters)
    if not names:
        return []
    return [Arm("uniform", Weights.from_micro(dict.fromkeys(names, MILLION // len(names))))]


AGAINST: Mapping[str, Callable[[Compared], list[Arm]]] = {
    "prompt": _prompts,
    "prompt+soup": _prompted_soups,
    "uniform": _uniform,
}
"""How arms to compare with are made, by the word of `soupmix evaluate --against`."""


def compared(words: Sequence[str], given: Compared) -> tuple[Arm, ...]:
    """The arms of these words, each once."""
    return unique(arm for word in words for arm in AGAINST[word](given))
