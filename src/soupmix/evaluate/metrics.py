"""Programmatic measures of a text: reading grade, word frequency, length, tone, repetition, and whether it is on topic.

ReadText grade is Flesch-Kincaid (Kincaid et al. 1975): 0.39 words/sentence + 11.8 syllables/word - 15.59, clipped to [-2, 22]
as text without punctuation would otherwise explode. Sentiment is VADER (Hutto & Gilbert 2014), the mean over sentences.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

__all__ = ["Measures", "measure", "on_topic", "reading_grade", "syllables"]

_WORD = re.compile(r"[A-Za-z']*[A-Za-z][A-Za-z']*")
_LIST_MARK = re.compile(r"\n\s*(?:\d+[.)]|[-•*])\s+")
_MARKUP = re.compile(r"[*#`_>|]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
# Words that mark a tone. Measuring tone by a list measures the list: the cards of the adapters say so.
_FRIENDLY = re.compile(
    r"!|[:;]-?\)|[\U0001F600-\U0001F64F]|\b(?:great question|happy to|glad|love|lovely|wonderful|amazing|fantastic|awesome|"
    r"excited|exciting|delight\w*|enjoy|fun|thank\w*|welcome|friend\w*|hope|hi|hello|hey|good luck|feel free|please|let's|"
    r"fascinating|take care|cheers|my dear|warm\w*|pleasure|you've got this)\b",
    re.IGNORECASE,
)
_UNFRIENDLY = re.compile(
    r"\b(?:obviously|whatever|pointless|stupid|silly|dumb|lazy|boring|annoying|bother\w*|waste\w*|useless|ridiculous|nonsense|"
    r"i don't care|not my problem|who cares|look it up|figure it out|already know|should know|do i (?:really )?have to|"
    r"leave me|stop asking|don't ask|fine\.|ugh|if you must|get over it|deal with it|tired of|hurry up|clearly|"
    r"no idea why you|isn't it obvious|common sense)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Measures:
    """One text in numbers.

    Attributes:
        words: word count. grade: Flesch-Kincaid grade, clipped to [-2, 22].
        zipf: mean frequency of the words of four letters and more on the Zipf scale (1 rare, 7 common).
        friendly, unfriendly: tone marks per 100 words. sentiment: mean VADER compound of the sentences, [-1, 1].
        repetition: share of 4-grams that are repeats, [0, 1].
    """

    words: float
    grade: float
    zipf: float
    friendly: float
    unfriendly: float
    sentiment: float
    repetition: float

    @property
    def warmth(self) -> float:
        """Friendly minus unfriendly marks per 100 words, plus 5 x sentiment."""
        return self.friendly - self.unfriendly + 5.0 * self.sentiment

    @property
    def rarity(self) -> float:
        """ReadText grade plus 3 x (5 - zipf): long sentences, long words and rare words together."""
        return self.grade + 3.0 * (5.0 - self.zipf)

    @property
    def degenerate(self) -> bool:
        """Broken text: fewer than three words, or over 30 % repeated 4-grams."""
        return self.words < 3 or self.repetition > 0.3


def measure(text: str) -> Measures:
    """Measure one text (plain or Markdown)."""
    plain = _plain(text)
    words = _WORD.findall(plain)
    per_100 = 100.0 / max(1, len(words))
    return Measures(
        words=len(words),
        grade=reading_grade(text),
        zipf=_mean_zipf(words),
        friendly=per_100 * _marks(_FRIENDLY, text),
        unfriendly=per_100 * _marks(_UNFRIENDLY, text),
        sentiment=_sentiment(plain),
        repetition=_repetition([w.lower() for w in words]),
    )


def reading_grade(text: str) -> float:
    """Flesch-Kincaid grade, clipped to [-2, 22]; 0 for a text without words."""
    plain = _plain(text)
    words = _WORD.findall(plain)
    if not words:
        return 0.0
    sentences = max(1, len([s for s in _SENTENCE_END.split(plain) if _WORD.search(s)]))
    grade = 0.39 * len(words) / sentences + 11.8 * sum(map(syllables, words)) / len(words) - 15.59
    return min(22.0, max(-2.0, grade))


@lru_cache(maxsize=65536)
def syllables(word: str) -> int:
    """Syllables of an English word: vowel groups, less silent endings, at least one."""
    word = re.sub(r"[^a-z]", "", word.lower())
    groups = len(re.findall(r"[aeiouy]+", word))
    if re.search(r"[^aeiouyl]e$|[^aeioudt]ed$|[^aeiouscxz]es$", word) and not re.search(r"(?:ch|sh|g)es$", word):
        groups -= 1
    groups += len(re.findall(r"(?<![cstgx])i[ao]|[^qg]ua|(?:[aeiouy])ing$|ea$", word))
    return max(1, groups)


def on_topic(text: str, topic: Sequence[str]) -> bool:
    """Whether a word of the text begins with one of the topic's stems."""
    return any(word.lower().startswith(tuple(topic)) for word in _WORD.findall(text))


def _marks(pattern: re.Pattern[str], text: str) -> int:
    """How many marks of a tone occur in a text."""
    return len(pattern.findall(text))


def _plain(text: str) -> str:
    text = _LIST_MARK.sub(". ", _MARKUP.sub(" ", "\n" + text))
    text = re.sub(r"\n+", ". ", text)
    text = re.sub(r"([.!?:;,])\s*(?:\.\s*)+", r"\1 ", text)
    return re.sub(r"\s+", " ", text).strip(" .") + "."


def _mean_zipf(words: Sequence[str]) -> float:
    from wordfreq import zipf_frequency

    long_words = [w for w in words if len(w) >= 4]
    return sum(zipf_frequency(w, "en") for w in long_words) / len(long_words) if long_words else 5.0


def _sentiment(plain: str) -> float:
    sentences = [s for s in _SENTENCE_END.split(plain) if s]
    scores = [float(_vader().polarity_scores(s)["compound"]) for s in sentences]
    return sum(scores) / max(1, len(scores))


@lru_cache(maxsize=1)
def _vader() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def _repetition(words: Sequence[str]) -> float:
    grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0
