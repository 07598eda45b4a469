"""What one soup does to a model: answers to prompts, measured, with bootstrap intervals; perplexity; margins."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch

from soupmix.engine import Completion, Engine, Sampling
from soupmix.engine import Prompt as Prompted
from soupmix.evaluate.likelihood import text_log_p, token_log_p
from soupmix.evaluate.metrics import Measures, measure, on_topic
from soupmix.evaluate.promptset import Prompt, conversation, neutral_paragraphs
from soupmix.methods import DEFAULT
from soupmix.policy import Grant

__all__ = [
    "METRICS",
    "Contrast",
    "Interval",
    "MeasuredAnswer",
    "answer_prompts",
    "interval",
    "margin",
    "perplexity",
    "summary",
]

_MOST_NEW_TOKENS = 256


@dataclass(frozen=True, slots=True)
class MeasuredAnswer:
    """An answer with its measures.

    Attributes:
        prompt, kind: text and kind of the prompt. text: of the answer. measures: of that text.
        on_topic: whether it names what was asked about. finished: whether the model ended it by itself.
    """

    prompt: str
    kind: str
    text: str
    measures: Measures
    on_topic: bool
    finished: bool


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % bootstrap interval over prompts."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two answers to the same question, of which the first is the wanted one.

    Attributes:
        asked: a conversation, or a text: one question, and for a base without a chat template a text to go on with.
        chosen, rejected: the texts of the answers.
    """

    asked: Prompted
    chosen: str
    rejected: str


METRICS: dict[str, Callable[[MeasuredAnswer], float]] = {
    "grade": lambda a: a.measures.grade,
    "zipf": lambda a: a.measures.zipf,
    "rarity": lambda a: a.measures.rarity,
    "words": lambda a: a.measures.words,
    "friendly": lambda a: a.measures.friendly,
    "unfriendly": lambda a: a.measures.unfriendly,
    "sentiment": lambda a: a.measures.sentiment,
    "warmth": lambda a: a.measures.warmth,
    "on_topic": lambda a: a.on_topic,
    "repetition": lambda a: a.measures.repetition,
    "degenerate": lambda a: a.measures.degenerate,
    "finished": lambda a: a.finished,
}
"""What is said of an answer, by the name that it has in effect.json; units are those of `Measures`, truth values are 0 or 1."""


def answer_prompts(
    engine: Engine,
    grant: Grant,
    prompts: Sequence[Prompt],
    *,
    method: str = DEFAULT,
    system: str = "",
    seed: int = 1234,
) -> list[MeasuredAnswer]:
    """Answer every prompt under one grant: temperature 0.7, at most 256 tokens, perhaps a system prompt; in prompt order.

    The random numbers of an answer depend on the seed and on the place of its prompt among `prompts`, not on the grant: grants
    are compared under the same luck.

    Args:
        method: how the soup is merged, one of `soupmix.methods.served`. system: system prompt, "" for none.
    """
    made = engine.complete(
        [conversation(p.text, system) for p in prompts],
        [grant] * len(prompts),
        sampling=Sampling(max_new_tokens=_MOST_NEW_TOKENS, temperature=0.7, seed=seed),
        method=method,
    )
    return [_measured(p, c) for p, c in zip(prompts, made, strict=True)]


def _measured(prompt: Prompt, made: Completion) -> MeasuredAnswer:
    text = made.text.strip()
    return MeasuredAnswer(prompt.text, prompt.kind, text, measure(text), on_topic(text, prompt.topic), made.finished)


def interval(values: Sequence[float], *, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean and 95 % percentile bootstrap interval (Efron 1979) of at least one value."""
    draw = random.Random(seed)
    n = len(values)
    means = sorted(sum(draw.choices(values, k=n)) / n for _ in range(resamples))
    return Interval(sum(values) / n, means[int(0.025 * resamples)], means[int(0.975 * resamples)])


def summary(found: Sequence[MeasuredAnswer]) -> dict[str, dict[str, float]]:
    """Metric -> {"mean", "low", "high"} over one arm's answers, rounded to three digits."""
    return {
        name: {k: round(v, 3) for k, v in asdict(interval([float(metric(a)) for a in found])).items()}
        for name, metric in METRICS.items()
    }


def perplexity(engine: Engine, grant: Grant, *, method: str = DEFAULT) -> float:
    """Perplexity of neutral prose under a grant: exp of the mean negative log-likelihood per token."""
    (found,) = text_log_p(engine, neutral_paragraphs(), [grant], method=method)
    total = -sum(float(each.sum()) for each in found)
    return math.exp(total / sum(each.numel() for each in found))


def margin(
    engine: Engine, grant: Grant, contrasts: Sequence[Contrast], *, method: str = DEFAULT, most: int = 96
) -> float:
    """Teacher-forced margin: mean over contrasts of log p(chosen) - log p(rejected), each per token, in nats.

    Args:
        most: tokens of an answer that count, from its beginning.
    """
    gaps = [
        _answer_log_p(engine, grant, method, each.asked, each.chosen, most)
        - _answer_log_p(engine, grant, method, each.asked, each.rejected, most)
        for each in contrasts
    ]
    return sum(gaps) / len(gaps)


def _answer_log_p(engine: Engine, grant: Grant, method: str, asked: Prompted, answer: str, most: int) -> float:
    """Per token, of an answer that is read together with its prompt, as training reads it (`answer_log_p` reads them apart)."""
    is_plain = isinstance(asked, str) and engine.tokenizer.chat_template is None
    context = str(asked) if is_plain else engine.prompts.rendered(asked)
    count = len(engine.tokenizer(context, add_special_tokens=False)["input_ids"])
    begun = engine.plain_tokens(context)[:-count] if is_plain and count else ()
    both, start = engine.tokenizer(context + answer, add_special_tokens=False)["input_ids"], len(begun) + count
    ids = [*begun, *both][: start + most]
    (logits,) = engine.logits(torch.tensor([ids]), [grant], method=method)
    return float(token_log_p(logits[start - 1 :], ids[start:]).mean())
