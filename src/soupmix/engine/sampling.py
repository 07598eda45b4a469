"""From logits to tokens, each row by its own random stream, so that no row depends on its neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from soupmix.errors import RecipeError

__all__ = ["MOST_SEEDS", "Sampling", "choose", "stream"]


MOST_SEEDS = 2**62


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
            "seed": (0 <= self.seed < MOST_SEEDS, "between 0 and 2**62"),
        }
        for name, (valid, allowed) in checks.items():
            if not valid:
                raise RecipeError(
                    f"{name} = {getattr(self, name)} is not allowed; it must be {allowed}", reason="sampling"
                )


def stream(sampling: Sampling) -> Tensor:
    """The uniform numbers [max_new_tokens] that decide an answer, drawn in advance from its seed alone."""
    return torch.rand(sampling.max_new_tokens, generator=torch.Generator().manual_seed(sampling.seed))


def choose(logits: Tensor, samplings: Sequence[Sampling], uniform: Tensor) -> Tensor:
    """Next token of every row, each by its own sampling.

    Args:
        logits: [rows, vocabulary]. uniform: one number of each row's stream [rows].

    Returns:
        Token ids [rows] int64.
    """
    chosen = logits.argmax(-1)
    drawn = [row for row, each in enumerate(samplings) if each.temperature]
    if drawn:
        rows = torch.tensor(drawn, device=logits.device)
        some = [samplings[row] for row in drawn]
        chosen[rows] = _drawn(logits[rows].float(), some, uniform[drawn].to(logits.device))
    return chosen


def _drawn(logits: Tensor, samplings: Sequence[Sampling], uniform: Tensor) -> Tensor:
    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=logits.device)[:, None]

    size = logits.shape[-1]
    most = column([min(each.top_k or size, size) for each in samplings])
    values, tokens = logits.topk(int(most.max()), dim=-1)
    values = values.masked_fill(torch.arange(values.shape[-1], device=logits.device) >= most, -torch.inf)
    mass = torch.softmax(values / column([each.temperature for each in samplings]), -1).cumsum(-1)
    last = torch.searchsorted(mass, column([each.top_p for each in samplings])).minimum(most - 1)
    pick = torch.searchsorted(mass, uniform[:, None] * mass.gather(1, last), right=True).minimum(last)
    return tokens.gather(1, pick)[:, 0]
