"""What a soup must not do to answers: leave the topic, repeat itself, run in circles."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from soupmix.evaluate.measures.phrases import grams
from soupmix.evaluate.measures.reading import ReadText, empty_words, words_of

__all__ = ["content_stems", "longest_run", "loops", "repeated_grams", "same_openers", "same_sentences", "topic_share"]

_OPENER = 4  # words
_LEAST_SENTENCE = 3  # words: "Yes." twice is no loop
_LONGEST_PERIOD = 60  # words of what is said in a circle
_LOOP = 3  # times
_LEAST_RUN = 9  # words


@lru_cache(maxsize=4096)
def content_stems(question: str) -> tuple[str, ...]:
    """The beginnings of the words of a question that say what it is about; its longest word where none does."""
    words = dict.fromkeys(words_of(question))
    told = [word for word in (each.split("'")[0] for each in words) if word not in empty_words() and len(word) > 2]
    return tuple(dict.fromkeys(_stem(word) for word in told or sorted(words, key=len)[-1:]))


def topic_share(reading: ReadText, question: str) -> float:
    """Share of the content words of the question that begin a word of the answer, [0, 1]; 1 for a question without words."""
    stems, said = content_stems(question), set(reading.words)
    return sum(any(word.startswith(stem) for word in said) for stem in stems) / len(stems) if stems else 1.0


def repeated_grams(reading: ReadText) -> float:
    """Share of the runs of four words that occurred before, [0, 1]."""
    runs = grams(reading.words)
    return 1.0 - len(set(runs)) / len(runs) if runs else 0.0


def same_sentences(reading: ReadText) -> float:
    """Share of the sentences of three words and more that were said before, [0, 1]."""
    return _said_before([words for words in reading.sentence_words if len(words) >= _LEAST_SENTENCE])


def same_openers(reading: ReadText) -> float:
    """Share of the sentences whose first four words began a sentence before, [0, 1]."""
    return _said_before([words[:_OPENER] for words in reading.sentence_words if len(words) >= _OPENER])


def longest_run(reading: ReadText) -> int:
    """Words of the longest stretch that has a period of at most 60 words, and holds it twice at least; 0 where there is none.

    "no no no" has 3, "round and round and round" has 5: its period is two words.
    """
    numbers: dict[str, int] = {}
    said = np.array([numbers.setdefault(word, len(numbers)) for word in reading.words], dtype=np.int64)
    return max((_run(said, period) for period in range(1, min(_LONGEST_PERIOD, len(said) // 2) + 1)), default=0)


def loops(reading: ReadText) -> bool:
    """Whether a sentence is said three times, or nine words and more are three periods of the same."""
    sentences = Counter(words for words in reading.sentence_words if len(words) >= _LEAST_SENTENCE)
    if max(sentences.values(), default=0) >= _LOOP:
        return True
    numbers: dict[str, int] = {}
    said = np.array([numbers.setdefault(word, len(numbers)) for word in reading.words], dtype=np.int64)
    periods = range(1, min(_LONGEST_PERIOD, len(said) // _LOOP) + 1)
    return any(_run(said, period) >= max(_LEAST_RUN, _LOOP * period) for period in periods)


def _run(said: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]", period: int) -> int:
    """Words of the longest stretch with this period that holds it twice at least; 0 for none."""
    same = np.concatenate([[False], said[period:] == said[:-period], [False]])
    edges = np.flatnonzero(same[1:] != same[:-1])
    longest = int((edges[1::2] - edges[::2]).max(initial=0))
    return longest + period if longest >= period else 0


def _said_before(said: Sequence[tuple[str, ...]]) -> float:
    return 1.0 - len(set(said)) / len(said) if said else 0.0


def _stem(word: str) -> str:
    return word[: max(4, len(word) - 2)] if len(word) > 4 else word
