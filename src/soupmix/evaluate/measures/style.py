"""The tone of a text: sentiment, marks of either tone, how it turns to its reader; and its body without all that."""

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from soupmix.evaluate.measures.measure import missing_library
from soupmix.evaluate.measures.phrases import TrainedPhrases
from soupmix.evaluate.measures.reading import ReadText, words_of

__all__ = ["COLD", "WARM", "body", "greets", "marks", "second_person", "tones", "vader"]

WARM, COLD = "friendly", "unfriendly"
_MARKS = Path(__file__).parent / "data" / "marks.json"
_FACES = {
    WARM: re.compile(
        "[\U0001f600-\U0001f60b\U0001f60d\U0001f60e\U0001f642\U0001f917\U0001f929\U0001f970\u263a\u2764\U0001f44d]|[:;]-?\\)"
    ),
    COLD: re.compile("[\U0001f612\U0001f620\U0001f621\U0001f624\U0001f644\U0001f92c\U0001f595\U0001f44e]|:-?\\("),
}
_YOU = frozenset({"you", "your", "yours", "yourself", "yourselves", "you're", "you've", "you'll", "you'd"})
_GREETINGS = frozenset({"hello", "hi", "hey", "hiya", "howdy", "greetings", "welcome", "dear"})
_GREETED = re.compile(r"good (?:morning|afternoon|evening|day)\b", re.IGNORECASE)
_AT_ONCE = 60  # words that VADER sees at once: some of its rules take time in proportion to the square of them


def vader(reading: ReadText) -> float | None:
    """Mean over sentences of VADER's compound sentiment (Hutto & Gilbert 2014), [-1, 1]; None of a text without words.

    Not of the whole text, where it only grows with length.

    Raises:
        EvaluationError: vaderSentiment is not there (reason "no-library").
    """
    parts = [part for each in reading.sentences for part in _parts(each)]
    known = {part: float(_analyser().polarity_scores(part)["compound"]) for part in dict.fromkeys(parts)}
    return sum(known[part] for part in parts) / len(parts) if parts else None


def marks(reading: ReadText, pole: str) -> int:
    """Words, phrases and faces that mark a tone; none is a word or phrase that the shipped adapters were trained to say."""
    words, known = reading.words, _known(pole)
    said = sum(words[start : start + size] in known for size in _sizes(pole) for start in range(len(words) - size + 1))
    return said + len(_FACES[pole].findall(reading.text))


def second_person(reading: ReadText) -> float | None:
    """Forms of "you" per 100 words; None of a text without words."""
    words = reading.words
    return 100.0 * sum(word in _YOU for word in words) / len(words) if words else None


def greets(reading: ReadText) -> bool:
    """Whether the first sentence begins with a greeting."""
    if not reading.sentences:
        return False
    return not _GREETINGS.isdisjoint(reading.sentence_words[0][:2]) or bool(_GREETED.match(reading.sentences[0]))


def tones(reading: ReadText, phrases: TrainedPhrases) -> tuple[frozenset[str], ...]:
    """The tones of each sentence, by marks, faces, greetings, "!" or a trained phrase: a wide net, for what is left without."""
    known = {each: _tones_of(each, phrases) for each in dict.fromkeys(reading.sentences)}
    return tuple(known[each] for each in reading.sentences)


def body(reading: ReadText, toned: Sequence[frozenset[str]]) -> ReadText:
    """The sentences that have no tone: is a lower grade that of the frame around an answer, or of what it says?"""
    return ReadText.of([each for each, found in zip(reading.sentences, toned, strict=True) if not found])


def _tones_of(sentence: str, phrases: TrainedPhrases) -> frozenset[str]:
    read = ReadText(sentence)
    found = {pole for pole in (WARM, COLD) if marks(read, pole)} | phrases.poles(read.words)
    if ("!" in sentence and not found) or greets(read):
        found.add(WARM)
    return frozenset(found)


def _parts(sentence: str) -> Iterator[str]:
    words = sentence.split()
    yield from (" ".join(words[start : start + _AT_ONCE]) for start in range(0, len(words), _AT_ONCE))


@lru_cache(maxsize=1)
def _read_marks() -> dict[str, frozenset[tuple[str, ...]]]:
    read = json.loads(_MARKS.read_text("utf-8"))
    return {pole: frozenset(words_of(mark) for mark in said) for pole, said in read.items()}


def _known(pole: str) -> frozenset[tuple[str, ...]]:
    return _read_marks()[pole]


@lru_cache(maxsize=4)
def _sizes(pole: str) -> Sequence[int]:
    return sorted({len(mark) for mark in _known(pole)})


@lru_cache(maxsize=1)
def _analyser() -> Any:
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ModuleNotFoundError as error:
        raise missing_library("sentiment", error.name) from error
    return SentimentIntensityAnalyzer()
