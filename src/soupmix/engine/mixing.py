"""Answers that several rows make together: their logits are mixed, one token is drawn of the mix, and all of them get it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

__all__ = ["Mixture", "mixed"]


@dataclass(frozen=True, slots=True)
class Mixture:
    """Which rows of a batch make which answer, and how.

    The rows of an answer lie one behind the other, and answers in their order.

    Attributes:
        shares: of every answer, what the log-probabilities of each of its rows are multiplied by before they are summed. The sum
            is not normalised, so shares that sum to 1 give a geometric mean; a row without a share only goes along.
        cuts: of every answer, how likely a token must be in its first row, as a share of the likeliest one; 0: any is possible.
    """

    shares: tuple[tuple[float, ...], ...]
    cuts: tuple[float, ...]

    @classmethod
    def plain(cls, answers: int) -> "Mixture":
        """Every answer is made by a row of its own."""
        return cls(((1.0,),) * answers, (0.0,) * answers)

    def logits(self, of_rows: Tensor) -> Tensor:
        """Logits of every answer [answers, vocabulary], of those of all rows [rows, vocabulary].

        A sum of logits is one of log-probabilities but for a constant, which is the same for all tokens.
        """
        if all(each == (1.0,) for each in self.shares) and not any(self.cuts):
            return of_rows
        parts = of_rows.split([len(each) for each in self.shares])
        return torch.stack([mixed(*each) for each in zip(parts, self.shares, self.cuts, strict=True)])

    def to_rows(self, values: Tensor) -> Tensor:
        """What each answer has [answers], for each of its rows [rows]."""
        counts = torch.tensor([len(each) for each in self.shares], device=values.device)
        return values.repeat_interleave(counts)

    def rows(self, answers: Sequence[int]) -> list[int]:
        """The rows of some answers."""
        starts = [0]
        for each in self.shares:
            starts.append(starts[-1] + len(each))
        return [row for answer in answers for row in range(starts[answer], starts[answer + 1])]

    def subset(self, answers: Sequence[int]) -> "Mixture":
        """That of a batch of the rows of these answers; one that comes twice goes on as two."""
        return Mixture(tuple(self.shares[each] for each in answers), tuple(self.cuts[each] for each in answers))


def mixed(logits: Tensor, shares: Sequence[float], cut: float = 0.0) -> Tensor:
    """The mix of one answer. What any of its rows excludes is impossible.

    Args:
        logits: [rows, ..., vocabulary]. shares: of each row. cut: see `Mixture`.

    Returns:
        Logits [..., vocabulary] fp32.
    """
    used = [row for row, share in enumerate(shares) if share]
    values = logits[used].float()
    factors = torch.tensor([shares[row] for row in used], device=logits.device).view(-1, *[1] * (logits.dim() - 1))
    impossible = values.isneginf().any(0)
    if cut:
        first = logits[0].float()
        impossible |= first < first.max(-1, keepdim=True).values + log(cut)
    return (values * factors).sum(0).masked_fill(impossible, -torch.inf)
