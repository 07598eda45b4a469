"""From logits to tokens, each row by its own random stream, so that no row depends on its neighbours."""

from dataclasses import dataclass

import torch
from torch import Tensor

from soupmix.errors import RecipeError

__all__ = ["Sampling", "Streams"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        max_new_tokens: at most this many tokens per answer.
        temperature: 0 is greedy; otherwise logits are divided by it.
        top_k: only the k likeliest tokens; 0 means all. top_p: the smallest set of tokens with this much probability.
        seed: row i of a call draws from its own stream, seeded by `seed + i`.

    Raises:
        RecipeError: a value out of its range.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "temperature": (0.0 <= self.temperature <= 10.0, "between 0 and 10"),
            "top_k": (self.top_k >= 0, "0 (all) or more"),
            "top_p": (0.0 < self.top_p <= 1.0, "above 0 and at most 1"),
            "seed": (0 <= self.seed < 2**62, "between 0 and 2**62"),
        }
        for name, (valid, allowed) in checks.items():
            if not valid:
                raise RecipeError(
                    f"{name} = {getattr(self, name)} is not allowed; it must be {allowed}", reason="sampling"
                )


class Streams:
    """One random stream per row, drawn in advance: uniform numbers [rows, max_new_tokens]."""

    def __init__(self, sampling: Sampling, rows: list[int]) -> None:
        self._sampling = sampling
        self._uniform = torch.stack([self._stream(sampling.seed + row) for row in rows])

    def _stream(self, seed: int) -> Tensor:
        return torch.rand(self._sampling.max_new_tokens, generator=torch.Generator().manual_seed(seed))

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only (indices [kept])."""
        self._uniform = self._uniform[rows.cpu()]

    def choose(self, logits: Tensor, step: int) -> Tensor:
        """Next token of every row: logits [rows, vocabulary] -> [rows] int64."""
        s = self._sampling
        if s.temperature == 0.0:
            return logits.argmax(-1)
        k = min(s.top_k or logits.shape[-1], logits.shape[-1])
        values, tokens = logits.float().topk(k, dim=-1)
        mass = torch.softmax(values / s.temperature, -1).cumsum(-1)
        last = torch.searchsorted(mass, torch.full_like(mass[:, :1], s.top_p)).clamp(max=k - 1)
        target = self._uniform[:, step : step + 1].to(logits.device) * mass.gather(1, last)
        pick = torch.searchsorted(mass, target, right=True).minimum(last)
        return tokens.gather(1, pick)[:, 0]
