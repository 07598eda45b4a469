"""Traits of texts by the measures whose libraries are installed here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from soupmix.evaluate.measures.of_text import TEXT_MEASURES, measure_text
from soupmix.evaluate.promptset import Prompt
from soupmix.preference.traits import Traits

__all__ = ["TextMeasuring", "measures_here"]

_MODULES = {"scikit-learn": "sklearn"}


def measures_here() -> frozenset[str]:
    """Names of the measures of a text that can be taken here: those that need no library, or one that is there."""
    return frozenset(
        name
        for name, each in TEXT_MEASURES.items()
        if all(find_spec(_MODULES.get(library, library)) is not None for library in each.needs)
    )


@dataclass(frozen=True, slots=True)
class TextMeasuring:
    """Traits of texts, for a `soupmix.preference.Learner`: every trait is a measure of the text alone."""

    traits: Traits

    def __call__(self, prompt: str, texts: Sequence[str]) -> list[Mapping[str, float] | None]:
        """Of every text the values of all traits; None where one has none, as an empty text.

        Raises:
            EvaluationError: a library is not installed (reason "no-library").
        """
        return [self._values(prompt, text) for text in texts]

    def _values(self, prompt: str, text: str) -> Mapping[str, float] | None:
        keys = {each.name: each.key for each in self.traits.axes}
        found = measure_text(Prompt(prompt, "", ()), text, True, only=set(keys.values()))
        if any(key not in found for key in keys.values()):
            return None
        values = {name: found[key] for name, key in keys.items()}
        return None if any(each.log and values[each.name] <= 0 for each in self.traits.axes) else values
