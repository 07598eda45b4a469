"""Compute one step: the tokens of a plan, each with the soup of its own answer, and the next token of every answer."""

from collections.abc import Sequence
from math import isfinite
from typing import Protocol

import torch
from torch import Tensor

from soupmix.backends.protocol import Token
from soupmix.batching.answer import Answer, Chosen, TokenNames, W
from soupmix.batching.schedule import Plan
from soupmix.engine import Engine
from soupmix.engine.sampling import choose

__all__ = ["Loop", "Runner"]


class Loop(Protocol):
    """Who computes the steps of a running batch."""

    def forget(self, slot: int) -> None:
        """Nothing that was computed in this slot may be read again: it may be NaN."""

    def logits(self, plan: Plan[W]) -> Tensor:
        """Compute a step: the logits of the last token of every complete feed [complete, vocabulary], in order."""


class Runner:
    """Computes steps by a loop, and chooses tokens."""

    def __init__(self, engine: Engine, loop: Loop) -> None:
        self._loop, self._none = loop, torch.empty(0)
        self._names, self._ends = TokenNames(engine.detokenizer), engine.ends

    def forget(self, slot: int) -> None:
        """See `Loop.forget`."""
        self._loop.forget(slot)

    @torch.inference_mode()
    def step(self, plan: Plan[Answer]) -> list[tuple[Answer, Chosen | None]]:
        """Compute a step, and choose the next token of every feed that completes its prompt or goes on with its answer.

        Returns:
            (answer, token) of every complete feed, in the order of the plan; None for a token whose logits are not finite.
        """
        logits = self._loop.logits(plan)
        asked = [feed.job for feed in plan.feeds if feed.complete]
        if not asked:
            return []
        samplings, said = [each.request.sampling for each in asked], [each.answer for each in asked]
        draws = any(each.temperature for each in samplings)
        uniform = torch.stack([each.uniform[each.steps] for each in asked]) if draws else self._none
        allowed = [None if each.grammar is None else each.grammar.allowed for each in asked]
        chosen = choose(logits, samplings, uniform, said, allowed)
        finite = map(isfinite, logits.amax(-1).tolist())
        tokens = self._tokens(logits, chosen, asked)
        ends = self._ends
        made = (Chosen(token, token in ends, tokens.get(row)) for row, token in enumerate(chosen.tolist()))
        return [(each, token if sound else None) for each, token, sound in zip(asked, made, finite, strict=True)]

    def _tokens(self, logits: Tensor, chosen: Tensor, asked: Sequence[Answer]) -> dict[int, Token]:
        """The chosen token with its log probability, for the rows whose request asks for them."""
        tokens = {}
        for row, each in enumerate(asked):
            if each.request.logprobs is not None:
                tokens[row] = self._names.token(logits[row], int(chosen[row]), each.request.logprobs)
        return tokens
