"""All that is said of an answer by its text alone."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import log

from soupmix.evaluate.measures import damage, length, recall, style
from soupmix.evaluate.measures.expertise import dale_chall, flesch_kincaid, mean_zipf
from soupmix.evaluate.measures.measure import Measure
from soupmix.evaluate.measures.phrases import TrainedPhrases, shipped_phrases
from soupmix.evaluate.measures.reading import ReadText
from soupmix.evaluate.measures.style import COLD, WARM
from soupmix.evaluate.measures.tone import tone_score
from soupmix.evaluate.promptset import Prompt

__all__ = ["TEXT_MEASURES", "measure_text"]


@dataclass(frozen=True)
class _Answer:
    """What measures are taken of."""

    prompt: Prompt
    read: ReadText
    finished: bool
    phrases: TrainedPhrases

    @cached_property
    def toned(self) -> tuple[frozenset[str], ...]:
        return style.tones(self.read, self.phrases)

    @cached_property
    def body(self) -> ReadText:
        return style.body(self.read, self.toned)


_FEW_WORDS = 20  # of fewer, a single mark would be worth more than a whole friendly answer


def _per_hundred(answer: _Answer) -> float | None:
    words = len(answer.read.words)
    told = style.marks(answer.read, WARM) - style.marks(answer.read, COLD)
    return 100.0 * told / max(words, _FEW_WORDS) if words else None


_KINCAID = "Kincaid et al. 1975"
_DALE_CHALL = "Dale & Chall 1948, words of 1995"
_ZIPF = "van Heuven et al. 2014"
_OWN = "soupmix"
_LIST = ("textstat",)

_TABLE: tuple[tuple[Measure, Callable[[_Answer], float | None]], ...] = (
    (
        Measure("grade", "expertise", "reading grade, Flesch-Kincaid", "grades", 0, _KINCAID, pole="expert"),
        lambda a: flesch_kincaid(a.read),
    ),
    (
        Measure("dale_chall", "expertise", "reading grade, Dale-Chall", "grades", 0, _DALE_CHALL, _LIST, "expert"),
        lambda a: dale_chall(a.read),
    ),
    (
        Measure("zipf", "expertise", "how common its words are", "Zipf", 0, _ZIPF, ("wordfreq",), "elementary"),
        lambda a: mean_zipf(a.read),
    ),
    (
        Measure(
            "grade_body", "expertise", "Flesch-Kincaid without sentences of tone", "grades", 0, _KINCAID, pole="expert"
        ),
        lambda a: flesch_kincaid(a.body),
    ),
    (
        Measure(
            "dale_chall_body",
            "expertise",
            "Dale-Chall without sentences of tone",
            "grades",
            0,
            _DALE_CHALL,
            ("textstat",),
            "expert",
        ),
        lambda a: dale_chall(a.body),
    ),
    (
        Measure(
            "zipf_body", "expertise", "Zipf without sentences of tone", "Zipf", 0, _ZIPF, ("wordfreq",), "elementary"
        ),
        lambda a: mean_zipf(a.body),
    ),
    (Measure("words", "length", "words", "words", 0, _OWN, pole="informative"), lambda a: len(a.read.words)),
    (
        Measure("log_words", "length", "natural logarithm of words + 1", "nats", 0, _OWN, pole="informative"),
        lambda a: log(1 + len(a.read.words)),
    ),
    (
        Measure("sentences", "length", "sentences", "sentences", 0, _OWN, pole="informative"),
        lambda a: len(a.read.sentences),
    ),
    (
        Measure("compressed", "length", "bytes by DEFLATE", "bytes", 0, "RFC 1951", pole="informative"),
        lambda a: length.compressed(a.read),
    ),
    (
        Measure(
            "vader",
            "style",
            "mean sentiment of its sentences, VADER",
            "",
            0,
            "Hutto & Gilbert 2014",
            ("vaderSentiment",),
            WARM,
        ),
        lambda a: style.vader(a.read),
    ),
    (
        Measure(
            "lexicon",
            "style",
            "friendly less unfriendly marks per 100 words, of 20 at least",
            "marks",
            0,
            _OWN,
            pole=WARM,
        ),
        _per_hundred,
    ),
    (
        Measure(
            "classifier", "style", "chance of friendly less that of unfriendly", "", 0, _OWN, ("scikit-learn",), WARM
        ),
        lambda a: tone_score(a.read),
    ),
    (
        Measure("second_person", "", 'forms of "you" per 100 words', "words", 0, _OWN),
        lambda a: style.second_person(a.read),
    ),
    (Measure("greeting", "style", "begins with a greeting", "", 0, _OWN, pole=WARM), lambda a: style.greets(a.read)),
    (
        Measure("warm_at_all", "style", "has any sentence of friendly tone", "", 0, _OWN, pole=WARM),
        lambda a: any(WARM in each for each in a.toned),
    ),
    (
        Measure("cold_at_all", "style", "has any sentence of unfriendly tone", "", 0, _OWN, pole=COLD),
        lambda a: any(COLD in each for each in a.toned),
    ),
    (
        Measure("on_topic", "", "a word of its topic occurs", "", 1, _OWN),
        lambda a: any(word.startswith(a.prompt.topic) for word in a.read.words),
    ),
    (
        Measure("topic_share", "", "share of the question's content words that occur", "", 1, _OWN),
        lambda a: damage.topic_share(a.read, a.prompt.text),
    ),
    (Measure("finished", "", "ended by itself", "", 1, _OWN), lambda a: a.finished),
    (
        Measure("recall", "", "share of the key facts of its question", "", 1, _OWN),
        lambda a: recall.recall(a.read, a.prompt.text),
    ),
    (
        Measure("repetition", "", "share of runs of four words that occurred before", "", -1, _OWN),
        lambda a: damage.repeated_grams(a.read),
    ),
    (
        Measure("same_sentences", "", "share of sentences that were said before", "", -1, _OWN),
        lambda a: damage.same_sentences(a.read),
    ),
    (
        Measure("same_openers", "", "share of sentences that begin as one before", "", -1, _OWN),
        lambda a: damage.same_openers(a.read),
    ),
    (
        Measure("longest_run", "", "words of the longest stretch said again at once", "words", -1, _OWN),
        lambda a: damage.longest_run(a.read),
    ),
    (Measure("loop", "", "runs in a circle", "", -1, _OWN), lambda a: damage.loops(a.read)),
    (
        Measure("parroting", "", "holds four words in a row of a trained phrase", "", -1, _OWN),
        lambda a: a.phrases.parroted(a.read),
    ),
)

TEXT_MEASURES: Mapping[str, Measure] = {measure.name: measure for measure, _ in _TABLE}
"""What `measure_text` gives, by name."""


def measure_text(
    prompt: Prompt,
    text: str,
    finished: bool,
    *,
    phrases: TrainedPhrases | None = None,
    only: Collection[str] | None = None,
) -> Mapping[str, float]:
    """Every measure of `TEXT_MEASURES` that an answer has a value of; truth values are 0 or 1.

    What a text has no value of is left out: no grade of a text without words, no recall of a question without key facts.
    Measures of expertise and style are for English.

    Args:
        prompt: what was asked. text: the answer, plain or Markdown. finished: whether it ended by itself.
        phrases: what the adapters were trained to say; None: the phrases of the shipped ones.
        only: names of measures; None: all of them.

    Raises:
        EvaluationError: a library is not installed (reason "no-library").
    """
    answer = _Answer(prompt, ReadText(text), finished, phrases or shipped_phrases())
    asked = TEXT_MEASURES if only is None else only
    found = ((measure.name, value(answer)) for measure, value in _TABLE if measure.name in asked)
    return {name: float(value) for name, value in found if value is not None}
