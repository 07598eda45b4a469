"""An answer as whoever asks has it: whole, or part by part while it is made."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from soupmix.backends.protocol import Sampling
from soupmix.engine.computing import Computing, Soups
from soupmix.engine.decode import decode
from soupmix.engine.detokenizer import Continuation, Detokenizer
from soupmix.engine.grammar import Grammar
from soupmix.engine.sampling import choose, stream
from soupmix.public import public

__all__ = ["Answering", "Completion"]


@public
@dataclass(frozen=True, slots=True)
class Completion:
    """One answer.

    Attributes:
        text: what the answer adds to the prompt's text, without special tokens; with the spaces that it begins or ends with.
        tokens: how many the answer has, without the one that ends it.
        finished: whether it ended by itself, not at `Sampling.max_new_tokens`.
    """

    text: str
    tokens: int
    finished: bool


@dataclass(frozen=True, slots=True)
class Answering:
    """How a model answers prompts that were read, by weights that were granted.

    Attributes:
        computing: the logits of rows. detokenizer: what the model makes of tokens. stop: token ids that end an answer.
    """

    computing: Computing
    detokenizer: Detokenizer
    stop: frozenset[int]

    def whole(
        self,
        prompts: Sequence[Sequence[int]],
        soups: Soups,
        *,
        sampling: Sampling,
        streams: Sequence[int],
        grammars: Sequence[Grammar | None],
    ) -> list[Completion]:
        """The answers of one batch.

        Args:
            prompts: token ids of every row. streams: what is added to the seed, for every row. grammars: what it is held to.
        """
        batch, device = self.computing.batch, self.computing.model.device
        rows = self.computing.rows(prompts, soups, sampling.max_new_tokens)
        how: Any = {"sampling": sampling, "streams": streams, "stop": self.stop, "grammars": grammars}
        begin = partial(batch.change, soups.of_answers())
        with batch.serving(soups.of_prompts(prompts)):
            made = decode(rows, device, keep=batch.keep, begin=begin, **how)
        return [
            Completion(self.detokenizer.added(prompt, each.ids), len(each.ids), each.finished)
            for prompt, each in zip(prompts, made, strict=True)
        ]

    def parts(
        self, prompt: Sequence[int], soups: Soups, *, sampling: Sampling, grammar: Grammar | None
    ) -> Iterator[str]:
        """The text of one answer, as far as no later token can change it; a token may add nothing.

        The batch is taken for a step at a time.
        """
        row = self.computing.rows([prompt], soups, sampling.max_new_tokens)
        weights = soups.of_prompts([prompt])
        text, uniform, taken = Continuation(self.detokenizer, prompt), stream(sampling), list[int]()
        for step in range(sampling.max_new_tokens):
            with torch.inference_mode(), self.computing.batch.serving(weights):
                logits = row.logits()
                allowed = None if grammar is None else grammar.allowed
                chosen = choose(logits, [sampling], uniform[step : step + 1], [taken], [allowed])
                row.add(chosen, torch.ones_like(chosen))
            weights, token = soups.of_answers(), int(chosen)
            if token in self.stop:
                break
            taken.append(token)
            yield text.add(token)
            if grammar is not None:
                grammar.accept(token)
        yield text.rest()
