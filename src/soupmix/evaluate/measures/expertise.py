"""How much a text asks of its reader: grades by two formulas, and how common its words are."""

import math
from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from soupmix.evaluate.measures.measure import missing_library
from soupmix.evaluate.measures.reading import ReadText, syllables

__all__ = ["dale_chall", "familiar", "flesch_kincaid", "mean_zipf"]

_GRADES = (-2.0, 22.0)
_LONG = 4  # letters; shorter words are mostly grammar, and equally common in every text
_ENDINGS = ("'s", "s", "es", "d", "ed", "r", "er", "est", "ing", "ly", "n't")
_EASY_WORDS = "textstat/resources/en/easy_words.txt"


def flesch_kincaid(reading: ReadText) -> float | None:
    """0.39 words a sentence + 11.8 syllables a word - 15.59 (Kincaid et al. 1975), within [-2, 22]; None without English words.

    Text without punctuation would have a grade of hundreds.
    """
    words = reading.english
    if not words:
        return None
    grade = 0.39 * len(words) / len(reading.sentences) + 11.8 * sum(map(syllables, words)) / len(words) - 15.59
    return min(_GRADES[1], max(_GRADES[0], grade))


def dale_chall(reading: ReadText) -> float | None:
    """0.1579 times the percentage of unfamiliar words + 0.0496 words a sentence + 3.6365 (Dale & Chall 1948), at most 22.

    The constant belongs to the formula; programs that leave it out below 5 % of unfamiliar words put a step of 3.6 grades there.

    Raises:
        EvaluationError: the list of familiar words, which textstat brings, is not there (reason "no-library").
    """
    words = reading.english
    if not words:
        return None
    unfamiliar = 100.0 * sum(not familiar(word) for word in words) / len(words)
    return min(_GRADES[1], 0.1579 * unfamiliar + 0.0496 * len(words) / len(reading.sentences) + 3.6365)


def mean_zipf(reading: ReadText) -> float | None:
    """Mean frequency of the words of four letters and more on the Zipf scale (van Heuven et al. 2014), from 0 to 8.

    Raises:
        EvaluationError: wordfreq is not there (reason "no-library").
    """
    words = [word for word in reading.english if len(word) >= _LONG]
    return sum(map(_zipf, words)) / len(words) if words else None


@lru_cache(maxsize=65536)
def familiar(word: str) -> bool:
    """Whether a word in lower case is on the list of 3,000, or is a regular form of one that is."""
    easy = _easy_words()
    return word in easy or any(stem in easy for stem in _stems(word[:40]))


def _stems(word: str) -> Sequence[str]:
    found: list[str] = []
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 2:
            stem = word[: -len(ending)]
            found += [stem, stem + "e"]
            if stem[-1] == "i":
                found.append(stem[:-1] + "y")  # berries, tried, easily
            if stem[-1] == stem[-2]:
                found.append(stem[:-1])  # stopped, running
    return found


@lru_cache(maxsize=1)
def _easy_words() -> frozenset[str]:
    """The list of 1995 as textstat has it. Only the file is read: its code imports a package that setuptools has dropped."""
    try:
        path = Path(str(metadata.distribution("textstat").locate_file(_EASY_WORDS)))
        return frozenset(path.read_text("utf-8").split())
    except (metadata.PackageNotFoundError, FileNotFoundError) as error:
        raise missing_library("Dale-Chall's list of familiar words", "textstat") from error


@lru_cache(maxsize=1)
def _frequencies() -> dict[str, float]:
    try:
        from wordfreq import get_frequency_dict
    except ModuleNotFoundError as error:
        raise missing_library("the frequency of words", error.name) from error
    found: dict[str, float] = get_frequency_dict("en")
    return found


@lru_cache(maxsize=65536)
def _zipf(word: str) -> float:
    """What `wordfreq.zipf_frequency` gives for a single word; ten times faster."""
    frequency = _frequencies().get(word, 0.0)
    return round(math.log10(frequency) + 9.0, 2) if frequency else 0.0
