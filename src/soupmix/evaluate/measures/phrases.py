"""Phrases that adapters were trained to say: to see whether answers say them again, and to look at answers without them."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from soupmix.evaluate.measures.reading import ReadText, empty_words, words_of

__all__ = ["TrainedPhrases", "grams", "shipped_frames", "shipped_phrases"]

Frame = Mapping[str, Sequence[str]]

_Said = TypeVar("_Said")

_GRAM = 4
_LONG = 4  # letters of a word that can tell one tone from another
_FILE = Path(__file__).parent / "data" / "frames.json"


@dataclass(frozen=True, slots=True)
class TrainedPhrases:
    """The phrases of the poles of a store.

    Attributes:
        openers: by pole, how answers were begun.
        grams: by pole, all runs of four words in its phrases, not all of them empty.
        sentences: by pole, all whole sentences of its phrases.
        words: by pole, all words of its phrases.
    """

    openers: Mapping[str, tuple[str, ...]]
    grams: Mapping[str, frozenset[tuple[str, ...]]]
    sentences: Mapping[str, frozenset[tuple[str, ...]]]
    words: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, frames: Mapping[str, Frame]) -> "TrainedPhrases":
        """From a frame by pole: "openers", and phrases of any other place."""
        said = {
            pole: [words_of(phrase) for place in frame.values() for phrase in place] for pole, frame in frames.items()
        }
        whole = {
            pole: frozenset(
                words for place in frame.values() for phrase in place for words in ReadText(phrase).sentence_words
            )
            for pole, frame in frames.items()
        }
        return cls(
            {pole: tuple(frame["openers"]) for pole, frame in frames.items()},
            {pole: frozenset(gram for words in all_ for gram in _telling(words)) for pole, all_ in said.items()},
            whole,
            {pole: frozenset(word for words in all_ for word in words) for pole, all_ in said.items()},
        )

    def parroted(self, reading: ReadText) -> bool:
        """Whether a text holds four words in a row of a phrase."""
        said = grams(reading.words)
        return any(not known.isdisjoint(said) for known in self.grams.values())

    def poles(self, words: Sequence[str]) -> set[str]:
        """Whose a sentence is.

        It is one of a phrase that only one pole has, or holds four words in a row that only phrases of one have, or no word but
        those of one, one of them its alone.
        """
        read, said = tuple(words), frozenset(grams(tuple(words)))
        return {
            pole
            for pole in self.grams
            if read in _own(self.sentences, pole) or said & _own(self.grams, pole) or self._only(pole, words)
        }

    def _only(self, pole: str, words: Iterable[str]) -> bool:
        own = _own(self.words, pole)
        return self.words[pole].issuperset(words) and any(len(word) >= _LONG and word in own for word in words)


def _own(of: Mapping[str, frozenset[_Said]], pole: str) -> frozenset[_Said]:
    """What no other pole has."""
    return of[pole].difference(*(said for name, said in of.items() if name != pole))


def grams(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """All runs of four words, in order."""
    return [words[start : start + _GRAM] for start in range(len(words) - _GRAM + 1)]


def _telling(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Without runs that anybody may say of anything, such as "one of the most"."""
    return (gram for gram in grams(words) if not empty_words().issuperset(gram))


def shipped_frames() -> dict[str, dict[str, tuple[str, ...]]]:
    """What `soupmix train` weaves around answers: pole -> place ("openers", "learned_openers", ...) -> phrases."""
    read = json.loads(_FILE.read_text("utf-8"))
    return {pole: {place: tuple(said) for place, said in frame.items()} for pole, frame in read.items()}


@lru_cache(maxsize=1)
def shipped_phrases() -> TrainedPhrases:
    """Those of the shipped adapters, from the file that `soupmix.train` weaves them from."""
    return TrainedPhrases.of(shipped_frames())
