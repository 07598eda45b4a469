"""Cues in words by the model's own log-probabilities: what somebody would say who wants it shorter, simpler, warmer, ...

A remark is read backwards (a noisy channel, as in Brown et al. 1993; for few-shot classes Min et al. 2022, arXiv 2108.04106): of
every way to be dissatisfied the bare base is asked for such a remark, and the way under which the very words that were said are
likeliest is what was meant, if it is clearly likelier than a remark about something else, and than the opposite. Small models
know better how a sentence goes on than which class it is of.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from soupmix.engine import Engine
from soupmix.evaluate.likelihood import choice_log_p
from soupmix.policy import Grant
from soupmix.preference.cues import MOST_WORDS, kind_of, told
from soupmix.preference.traits import Traits

__all__ = ["CueModel"]

_MARGIN: Final = 1.0
"""Nats by which a way must be likelier than no cue, and than its opposite."""

_WAYS: Final[Mapping[str, tuple[str, str]]] = {
    "long": (
        "found the answer too short and wants to know much more",
        "found the answer too long and wants a shorter one",
    ),
    "hard": (
        "found the answer too simple and wants an expert's",
        "did not understand the answer and wants simpler words",
    ),
    "warm": (
        "found the answer cold and wants a friendlier one",
        "found the answer too friendly and wants only the facts",
    ),
}
"""Kind of trait -> what somebody thinks who wants more of it, and less of it."""

_OTHERS: Final = ("asks about something else", "tells something about their day")
_ASKED: Final = "Somebody {} after reading an answer. Write the one short sentence that this person says."


@dataclass(frozen=True, slots=True)
class CueModel:
    """Reads what is said of an answer as directions of traits, as `soupmix.preference.cues.cued` does.

    Attributes:
        engine: whose bare base reads. bare: a grant of nothing.
        margin: nats by which a way must be likelier than no cue, and than its opposite.
    """

    engine: Engine
    bare: Grant
    margin: float = _MARGIN

    def __call__(self, text: str, traits: Traits) -> dict[str, float]:
        """Which trait a text asks to have more (1.0) or less (-1.0) of: one at most; nothing of a text that is no cue.

        Raises:
            RecipeError, PolicyRefusal, PolicyError, AdapterError, BaseModelError: as `choice_log_p`.
        """
        said = text.strip()
        if (
            not said
            or not told(traits)
            or len(said.split()) > MOST_WORDS
            or self.engine.prompts.marker(said) is not None
        ):
            return {}
        return self.read(self.scores([said], traits)[0])

    def read(self, scores: Mapping[tuple[str, float], float]) -> dict[str, float]:
        """What follows from scores: the likeliest way, if it is by a margin likelier than no cue, and than its opposite."""
        (name, way), best = max(scores.items(), key=lambda each: (each[1], each[0]))
        clear = min(best, best - scores[name, -way]) >= self.margin
        return {name: way} if clear else {}

    def scores(self, texts: list[str], traits: Traits) -> list[dict[tuple[str, float], float]]:
        """Of every text: (trait, 1 or -1) -> by how many nats it is likelier as a remark of who wants that than as no cue."""
        wanted = {(each.name, way): _thought(kind_of(each), way) for each in told(traits) for way in (1.0, -1.0)}
        asked = [_ASKED.format(each) for each in (*wanted.values(), *_OTHERS)]
        found = choice_log_p(self.engine, asked, [self.bare] * len(asked), [texts] * len(asked))
        neither = [max(each) for each in zip(*found[len(wanted) :], strict=True)]
        return [
            {key: found[row][place] - neither[place] for row, key in enumerate(wanted)} for place in range(len(texts))
        ]


def _thought(kind: tuple[str, int], way: float) -> str:
    named, sign = kind
    more, less = _WAYS.get(named, (f"wants more {named} in the answer", f"wants less {named} in the answer"))
    return more if sign * way > 0 else less
