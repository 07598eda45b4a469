"""Decoding as one would write it down: one answer, no batch, no cache, transformers' own models."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from soupmix.backends.protocol import Sampling
from soupmix.engine.sampling import stream


@dataclass(frozen=True)
class Naive:
    """One member of an ensemble: a model in float64, the ids of its prompt, its share in the mix and in the score."""

    model: Any
    ids: tuple[int, ...]
    share: float
    score: float = 0.0

    def log_p(self, said: Sequence[int]) -> Tensor:
        """Log-probabilities of what comes next [vocabulary]."""
        return _log_p(self.model, (*self.ids, *said))


@lru_cache(maxsize=10_000)
def _log_p(model: Any, ids: tuple[int, ...]) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    return found


def mixed(members: Sequence[Naive], said: Sequence[int], cut: float = 0.0) -> Tensor:
    """The weighted sum of all log-probabilities, where the first member finds a token likely enough."""
    log_p = [each.log_p(said) for each in members]
    mix = torch.stack([each.share * row for each, row in zip(members, log_p, strict=True)]).sum(0)
    if cut:
        mix[log_p[0].exp() < cut * log_p[0].exp().max()] = -torch.inf
    return mix


def drawn(mix: Tensor, sampling: Sampling, number: float) -> int:
    """The likeliest token, or by top-k, softmax, and the inverse of its cumulative sum."""
    if not sampling.temperature:
        return int(mix.argmax())
    best = sorted(range(len(mix)), key=lambda token: -float(mix[token]))[: sampling.top_k]
    chance = (mix[best] / sampling.temperature).softmax(0).cumsum(0)
    return best[min(int((chance <= number).sum()), len(best) - 1)]


def naive(members: Sequence[Naive], sampling: Sampling, stop: frozenset[int], cut: float = 0.0) -> list[int]:
    """The tokens of an answer."""
    said: list[int] = []
    for number in stream(sampling).tolist():
        token = drawn(mixed(members, said, cut), sampling, number)
        if token in stop:
            break
        said.append(token)
    return said


def score(members: Sequence[Naive], said: Sequence[int]) -> float:
    """Mean over tokens of the weighted sum of their log-probabilities."""
    found = [sum(m.score * float(m.log_p(said[:place])[token]) for m in members) for place, token in enumerate(said)]
    return sum(found) / max(len(found), 1)
