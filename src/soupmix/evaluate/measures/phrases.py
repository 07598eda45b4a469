"""Phrases that adapters were trained to say: to see whether answers say them again, and to look at answers without them."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from soupmix.evaluate.measures.reading import ReadText, empty_words, words_of

__all__ = ["TrainedPhrases", "grams", "shipped_frames", "shipped_phrases"]

Frame = Mapping[str, Sequence[str]]

_GRAM = 4
_LONG = 4  # letters of a word that can tell one tone from another
_FILE = Path(__file__).parent / "data" / "frames.json"


@dataclass(frozen=True, slots=True)
class _Said:
    """What phrases are made of: their runs of four words, not all of them empty, whole sentences, and words."""

    grams: frozenset[tuple[str, ...]] = frozenset()
    sentences: frozenset[tuple[str, ...]] = frozenset()
    words: frozenset[str] = frozenset()

    @classmethod
    def of(cls, phrases: Iterable[str]) -> "_Said":
        all_ = list(phrases)
        said = [words_of(phrase) for phrase in all_]
        return cls(
            frozenset(gram for words in said for gram in _telling(words)),
            frozenset(words for phrase in all_ for words in ReadText(phrase).sentence_words),
            frozenset(word for words in said for word in words),
        )

    def without(self, others: Iterable["_Said"]) -> "_Said":
        """What the others have not."""
        rest = list(others)
        return _Said(
            self.grams.difference(*(each.grams for each in rest)),
            self.sentences.difference(*(each.sentences for each in rest)),
            self.words.difference(*(each.words for each in rest)),
        )


@dataclass(frozen=True, slots=True)
class TrainedPhrases:
    """The phrases of the poles of a store.

    Attributes:
        openers: by pole, how answers were begun.
        said: by pole, what its phrases are made of. own: by pole, what no other pole has of that.
    """

    openers: Mapping[str, tuple[str, ...]]
    said: Mapping[str, _Said]
    own: Mapping[str, _Said]

    @classmethod
    def of(cls, frames: Mapping[str, Frame]) -> "TrainedPhrases":
        """From a frame by pole: "openers", and phrases of any other place."""
        said = {
            pole: _Said.of(phrase for place in frame.values() for phrase in place) for pole, frame in frames.items()
        }
        own = {pole: each.without(said[other] for other in said if other != pole) for pole, each in said.items()}
        return cls({pole: tuple(frame["openers"]) for pole, frame in frames.items()}, said, own)

    def parroted(self, reading: ReadText) -> bool:
        """Whether a text holds four words in a row of a phrase."""
        heard = grams(reading.words)
        return any(not each.grams.isdisjoint(heard) for each in self.said.values())

    def poles(self, words: Sequence[str]) -> set[str]:
        """Whose a sentence is.

        It is one of a phrase that only one pole has, or holds four words in a row that only phrases of one have, or no word but
        those of one, one of them its alone.
        """
        read, heard = tuple(words), grams(tuple(words))
        return {
            pole
            for pole, own in self.own.items()
            if read in own.sentences or not own.grams.isdisjoint(heard) or self._only(pole, words)
        }

    def _only(self, pole: str, words: Sequence[str]) -> bool:
        own = self.own[pole].words
        return self.said[pole].words.issuperset(words) and any(len(word) >= _LONG and word in own for word in words)


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
    """Those that adapters of `soupmix.train` may say again, the shipped ones among them."""
    return TrainedPhrases.of(shipped_frames())
