"""What adapters do to a model: answers to held-out prompts, measured, with bootstrap intervals over prompts."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from soupmix.base import chat_text
from soupmix.engine import Completion, Engine, Sampling
from soupmix.policy import Grant
from soupmix.train.metrics import Measures, measure, on_topic
from soupmix.train.pairs import Pair
from soupmix.train.promptset import TrainPrompt
from soupmix.train.sample import messages

__all__ = ["ANSWER_CAP", "METRICS", "Answer", "Interval", "answers", "interval", "margin", "perplexity", "summary"]

ANSWER_CAP = 256
_NEUTRAL = Path(__file__).parent / "prompts" / "neutral.txt"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its measures; `on_topic` says whether it names what was asked about."""

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


METRICS: dict[str, Callable[[Answer], float]] = {
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


def answers(
    engine: Engine,
    grant: Grant,
    prompts: Sequence[TrainPrompt],
    *,
    method: str = "delta",
    system: str = "",
    seed: int = 1234,
) -> list[Answer]:
    """Answer every prompt under one grant, at temperature 0.7, perhaps with a system prompt; in prompt order.

    The random stream belongs to the prompt, so that grants are compared under the same luck.
    """
    made = engine.complete(
        [messages(p.text, system) for p in prompts],
        [grant] * len(prompts),
        sampling=Sampling(max_new_tokens=ANSWER_CAP, temperature=0.7, seed=seed),
        method=method,
    )
    return [_answer(p, c) for p, c in zip(prompts, made, strict=True)]


def _answer(prompt: TrainPrompt, made: Completion) -> Answer:
    return Answer(
        prompt.text, prompt.kind, made.text, measure(made.text), on_topic(made.text, prompt.topic), made.finished
    )


def interval(values: Sequence[float], *, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean and 95 % percentile bootstrap interval (Efron 1979)."""
    draw = random.Random(seed)
    n = len(values)
    means = sorted(sum(draw.choices(values, k=n)) / n for _ in range(resamples))
    return Interval(sum(values) / n, means[int(0.025 * resamples)], means[int(0.975 * resamples)])


def summary(found: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """Every metric's mean and interval over one arm's answers, rounded for a card."""
    return {
        name: {k: round(v, 3) for k, v in asdict(interval([float(metric(a)) for a in found])).items()}
        for name, metric in METRICS.items()
    }


def perplexity(engine: Engine, grant: Grant, *, method: str = "delta") -> float:
    """Perplexity of neutral prose under a grant: exp of the mean negative log-likelihood per token."""
    total, count = 0.0, 0
    for paragraph in _NEUTRAL.read_text("utf-8").strip().split("\n\n"):
        ids = engine.tokenizer(paragraph, return_tensors="pt", add_special_tokens=False)["input_ids"]
        log_p = _log_likelihood(engine.logits(ids, [grant], method=method), ids)
        total, count = total - float(log_p.sum()), count + log_p.numel()
    return math.exp(total / count)


def margin(engine: Engine, grant: Grant, pairs: Sequence[Pair], *, method: str = "delta", most: int = 96) -> float:
    """Teacher-forced margin: mean over pairs of log p(chosen) - log p(rejected), each per token, in nats."""
    gaps = [
        _answer_log_p(engine, grant, method, pair, pair.chosen.text, most)
        - _answer_log_p(engine, grant, method, pair, pair.rejected.text, most)
        for pair in pairs
    ]
    return sum(gaps) / len(gaps)


def _answer_log_p(engine: Engine, grant: Grant, method: str, pair: Pair, answer: str, most: int) -> float:
    conversation = messages(pair.prompt.text, pair.system)
    context = chat_text(engine.tokenizer, conversation)
    start = len(engine.tokenizer(context, add_special_tokens=False)["input_ids"])
    ids = engine.tokenizer(context + answer, return_tensors="pt", add_special_tokens=False)["input_ids"][
        :, : start + most
    ]
    log_p = _log_likelihood(engine.logits(ids, [grant], method=method), ids)
    return float(log_p[:, start - 1 :].mean())


def _log_likelihood(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of every next token, [rows, length - 1]."""
    log_p = torch.log_softmax(logits[:, :-1].float(), -1)
    return log_p.gather(-1, ids[:, 1:, None])[..., 0]
