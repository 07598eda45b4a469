"""What soups are compared with: the same preferences by other means, as arms."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from soupmix.evaluate.preferences import Examples, examples_of
from soupmix.evaluate.soups import Arm, unique
from soupmix.store import ManifestEntry
from soupmix.weights import MILLION, Weights

__all__ = ["AGAINST", "Compared", "compared", "system_prompt", "without_examples"]

_CONTRAST = (("alpha", 0.5), ("cut", 0.1))
_BEST_OF_N = (("beams", 2.0), ("candidates", 4.0), ("segment", 16.0))


@dataclass(frozen=True, slots=True)
class Compared:
    """What other arms are made from.

    Attributes:
        soups: those that they are compared with. adapters: of the store, by name. preferences: pole -> system prompt.
        examples: of poles. others: the soups that MOD and activated soups answer for too.
    """

    soups: Sequence[Arm]
    adapters: Mapping[str, ManifestEntry]
    preferences: Mapping[str, str]
    examples: Examples
    others: Sequence[Arm] = ()

    def sets(self) -> list[tuple[str, ...]]:
        """Names of the adapters of every soup, each set once: what says nothing of a strength is made once for all of them."""
        return list(dict.fromkeys(tuple(arm.weights) for arm in self.soups if arm.weights))


def system_prompt(names: Sequence[str], given: Compared) -> str:
    """The preference prompts of adapters in one, or "" where one of them has none."""
    texts = [given.preferences.get(given.adapters[name].pole, "") for name in names]
    return " ".join(texts) if texts and all(texts) else ""


def _prompts(given: Compared) -> list[Arm]:
    """What the poles of a soup are by a system prompt alone; the strength cannot be said in it."""
    made = ((names, system_prompt(names, given)) for names in given.sets())
    return [Arm(f"{'+'.join(names)} by prompt", Weights({}), system=text) for names, text in made if text]


def _few_shot(given: Compared) -> list[Arm]:
    """What the poles of a soup are by examples in the conversation."""
    poles = {names: [given.adapters[name].pole for name in names] for names in given.sets()}
    made = ((names, examples_of(each, given.examples)) for names, each in poles.items())
    return [Arm(f"{'+'.join(names)} by examples", Weights({}), shots=shown) for names, shown in made if shown]


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


def _mod(given: Compared) -> list[Arm]:
    """Soups whose adapters are mixed by their log-probabilities, not by their weights."""
    return [replace(arm, name=f"{arm.name} by mod", way="mod") for arm in given.others if arm.weights]


def _activated(given: Compared) -> list[Arm]:
    """Soups on the answer alone, behind a prompt that the bare base read."""
    return [replace(arm, name=f"{arm.name} activated", way="activated") for arm in given.others if arm.weights]


def _contrast(given: Compared) -> list[Arm]:
    """The preference prompts of a soup, each amplified by its contrast to the opposite one."""
    return [
        Arm(
            f"{'+'.join(names)} by contrast",
            Weights({}),
            system=text,
            way="contrast",
            contrasts=tuple((system_prompt([name], given), _opposite([name], given)) for name in names),
            parameters=_CONTRAST,
        )
        for names in given.sets()
        if (text := system_prompt(names, given))
    ]


def _best_of_n(given: Compared) -> list[Arm]:
    """Answers under the preference prompts of a soup, chosen by their contrast to all opposite ones in one prompt."""
    return [
        Arm(
            f"{'+'.join(names)} by best-of-n",
            Weights({}),
            system=text,
            way="best-of-n",
            contrasts=((text, _opposite(names, given)),),
            parameters=_BEST_OF_N,
        )
        for names in given.sets()
        if (text := system_prompt(names, given))
    ]


def _opposite(names: Sequence[str], given: Compared) -> str:
    """The preference prompts of the opposite poles in one; a pole that has not just one opposite has none."""
    found = []
    for name in names:
        about = given.adapters[name]
        ends = {each.pole for each in given.adapters.values() if each.dimension == about.dimension} - {about.pole}
        found += [given.preferences[pole] for pole in ends if len(ends) == 1 and pole in given.preferences]
    return " ".join(found)


AGAINST: Mapping[str, Callable[[Compared], list[Arm]]] = {
    "prompt": _prompts,
    "prompt+soup": _prompted_soups,
    "few-shot": _few_shot,
    "mod": _mod,
    "activated": _activated,
    "contrast": _contrast,
    "best-of-n": _best_of_n,
    "uniform": _uniform,
}
"""How arms to compare with are made, by the word of `soupmix evaluate --against`."""


def compared(words: Sequence[str], given: Compared) -> tuple[Arm, ...]:
    """The arms of these words, each once."""
    return unique(arm for word in words for arm in AGAINST[word](given))


def without_examples(given: Compared) -> list[str]:
    """Poles of the soups that lack examples, so that no arm can be made of some set that they are in."""
    sets = [frozenset(given.adapters[name].pole for name in names) for names in given.sets()]
    left = {pole for poles in sets if poles not in given.examples for pole in poles}
    return sorted(pole for pole in left if frozenset([pole]) not in given.examples)
