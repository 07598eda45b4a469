"""From logits to tokens. Every row draws from its own random stream, so that no row depends on its neighbours."""

from collections.abc import Sequence

import torch
from torch import Tensor

from soupmix.backends.protocol import Sampling

__all__ = ["choose", "stream"]


def stream(sampling: Sampling) -> Tensor:
    """The random numbers of one answer, one per token: [max_new_tokens] fp32 in [0, 1), on the CPU, from the seed alone."""
    return torch.rand(sampling.max_new_tokens, generator=torch.Generator().manual_seed(sampling.seed))


def choose(
    logits: Tensor,
    samplings: Sequence[Sampling],
    uniform: Tensor,
    answers: Sequence[Sequence[int]] = (),
    allowed: Sequence[Tensor | None] = (),
) -> Tensor:
    """The next token of every row by its own sampling: the likeliest, or drawn by inverting the cumulative distribution.

    Args:
        logits: [rows, vocabulary]. samplings: one per row. uniform: the next number of every row's stream [rows] fp32.
        answers: token ids of every row's answer so far, for penalties; none given: all are empty.
        allowed: which tokens a row may have, [tokens] bool on the CPU; None, or none given: all.

    Returns:
        Token ids [rows] int64.
    """
    logits = _held(_penalised(logits, samplings, answers), allowed)
    chosen = logits.argmax(-1)
    drawn = [row for row, each in enumerate(samplings) if each.temperature]
    if drawn:
        rows = torch.tensor(drawn, device=logits.device)
        some = [samplings[row] for row in drawn]
        chosen[rows] = _drawn(logits[rows].float(), some, uniform[drawn].to(logits.device))
    return chosen


def _penalised(logits: Tensor, samplings: Sequence[Sampling], answers: Sequence[Sequence[int]]) -> Tensor:
    """Logits less the penalties of the tokens that each row has, in fp32; those of rows without penalties as they are.

    logit - count * frequency_penalty - (count > 0) * presence_penalty, as OpenAI's API reference has it.
    """
    rows = [row for row, taken in enumerate(answers) if taken and _penalises(samplings[row])]
    if not rows:
        return logits
    made = logits.float().clone()
    for row in rows:
        how = samplings[row]
        tokens, counts = torch.tensor(answers[row], device=made.device).unique(return_counts=True)
        made[row, tokens] -= counts * how.frequency_penalty + how.presence_penalty
    return made


def _held(logits: Tensor, allowed: Sequence[Tensor | None]) -> Tensor:
    """Logits where what a row may not have is impossible; those of rows that may have everything as they are."""
    if all(each is None for each in allowed):
        return logits
    made = logits.clone()
    for row, each in enumerate(allowed):
        if each is not None:
            made[row, each.numel() :] = -torch.inf
            made[row, : each.numel()].masked_fill_(~each.to(made.device), -torch.inf)
    return made


def _penalises(sampling: Sampling) -> bool:
    return bool(sampling.frequency_penalty or sampling.presence_penalty)


def _drawn(logits: Tensor, samplings: Sequence[Sampling], uniform: Tensor) -> Tensor:
    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=logits.device)[:, None]

    size = logits.shape[-1]
    most = column([min(each.top_k or size, size) for each in samplings])
    values, tokens = logits.topk(int(most.max()), dim=-1)
    values = values.masked_fill(torch.arange(values.shape[-1], device=logits.device) >= most, -torch.inf)
    mass = torch.softmax(values / column([each.temperature for each in samplings]), -1).cumsum(-1)
    possible = (values > -torch.inf).sum(-1, keepdim=True)  # no rounding of the mass may draw what is impossible
    last = torch.searchsorted(mass, column([each.top_p for each in samplings])).minimum(possible - 1)
    pick = torch.searchsorted(mass, uniform[:, None] * mass.gather(1, last), right=True).minimum(last)
    return tokens.gather(1, pick)[:, 0]
