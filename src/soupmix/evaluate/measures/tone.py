"""A classifier of tone: which of three tones a text has, learned from texts that no adapter was trained on.

TF-IDF of words and pairs of words, and logistic regression. The texts (data/tone.jsonl) were written for this,
40 topics in three tones each, on topics and in phrases that no prompt and no frame of the shipped adapters has.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from soupmix.evaluate.measures.measure import missing_library
from soupmix.evaluate.measures.reading import ReadText

__all__ = ["LabelledText", "fit", "labelled_texts", "tone_score"]

_FILE = Path(__file__).parent / "data" / "tone.jsonl"
_INVERSE_PENALTY = 100.0  # of 1, 10 and 100 the best on topics that were left out
_MOST_LETTERS = 20_000  # of an answer; what a hundred thousand more would say of its tone is not worth their time


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text whose tone is known: "friendly", "neutral" or "unfriendly"."""

    topic: str
    tone: str
    text: str


def labelled_texts() -> list[LabelledText]:
    """The texts that the classifier learns from."""
    return [LabelledText(**json.loads(line)) for line in _FILE.read_text("utf-8").splitlines()]


def fit(texts: Sequence[LabelledText]) -> Any:
    """A pipeline of scikit-learn that knows tones from these texts; the same texts give the same.

    Raises:
        EvaluationError: scikit-learn is not there (reason "no-library").
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError as error:
        raise missing_library("the classifier of tone", "scikit-learn") from error
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"[a-z']+|[!?]")
    model = make_pipeline(features, LogisticRegression(C=_INVERSE_PENALTY, max_iter=2000))
    with threadpool_limits(limits=1):  # many threads would wait for one another fifty times as long as one computes
        return model.fit([each.text for each in texts], [each.tone for each in texts])


def tone_score(reading: ReadText) -> float | None:
    """Probability of "friendly" minus that of "unfriendly", [-1, 1]; None of a text without words.

    Raises:
        EvaluationError: scikit-learn is not there (reason "no-library").
    """
    if not reading.words:
        return None
    model = _fitted()
    chances = dict(
        zip(model.classes_, model.predict_proba([" ".join(reading.sentences)[:_MOST_LETTERS]])[0], strict=True)
    )
    return float(chances["friendly"] - chances["unfriendly"])


@lru_cache(maxsize=1)
def _fitted() -> Any:
    return fit(labelled_texts())
