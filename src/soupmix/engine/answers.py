"""An answer as whoever asks has it: whole, or part by part while it is made."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from soupmix.backends.protocol import Sampling
from soupmix.engine.compiled import EngineStep
from soupmix.engine.decode import PaddedBatch, decode, left_padded
from soupmix.engine.detokenizer import Continuation, Detokenizer
from soupmix.engine.grammar import Grammar
from soupmix.engine.rows import ActiveBatch, BatchWeights
from soupmix.engine.sampling import choose, stream
from soupmix.engine.slot_rows import SlotRows
from soupmix.public import public

__all__ = ["Answering", "Completion", "Soups"]


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
        model: that of transformers, with soup layers. batch: the batch that it serves. detokenizer: what it makes of tokens.
        stop: token ids that end an answer. step: who computes tokens, once it was tried.
    """

    model: Any
    batch: ActiveBatch
    detokenizer: Detokenizer
    stop: frozenset[int]
    step: EngineStep

    def whole(
        self,
        prompts: Sequence[Sequence[int]],
        soups: "Soups",
        *,
        sampling: Sampling,
        streams: Sequence[int],
        grammars: Sequence[Grammar | None],
    ) -> list[Completion]:
        """The answers of one batch.

        Args:
            prompts: token ids of every row. streams: what is added to the seed, for every row. grammars: what it is held to.
        """
        rows = self._rows(prompts, soups, sampling)
        how: Any = {"sampling": sampling, "streams": streams, "stop": self.stop, "grammars": grammars}
        begin = partial(self.batch.change, soups.of_answers())
        with self.batch.serving(soups.of_prompts(prompts)):
            made = decode(rows, self.model.device, keep=self.batch.keep, begin=begin, **how)
        return [
            Completion(self.detokenizer.added(prompt, each.ids), len(each.ids), each.finished)
            for prompt, each in zip(prompts, made, strict=True)
        ]

    def parts(
        self, prompt: Sequence[int], soups: "Soups", *, sampling: Sampling, grammar: Grammar | None
    ) -> Iterator[str]:
        """The text of one answer, as far as no later token can change it; a token may add nothing.

        The batch is taken for a step at a time.
        """
        row = self._rows([prompt], soups, sampling)
        weights = soups.of_prompts([prompt])
        text, uniform, taken = Continuation(self.detokenizer, prompt), stream(sampling), list[int]()
        for step in range(sampling.max_new_tokens):
            with torch.inference_mode(), self.batch.serving(weights):
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

    def _rows(self, prompts: Sequence[Sequence[int]], soups: "Soups", sampling: Sampling) -> PaddedBatch | SlotRows:
        if self.step.library is None:
            return PaddedBatch(self.model, *left_padded(prompts, self.model.device))
        weighted, most = partial(BatchWeights, method=soups.method), max(map(len, prompts)) + sampling.max_new_tokens
        return SlotRows(self.step, self.batch, prompts, most, soups.weights, soups.bare, weighted)

    def logits(self, ids: Tensor, weights: BatchWeights) -> Tensor:
        """Logits of token ids without padding, [rows, length, vocabulary]."""
        with torch.inference_mode(), self.batch.serving(weights):
            result: Tensor = self.model(input_ids=ids).logits
        return result


@dataclass(frozen=True, slots=True)
class Soups:
    """What the rows of a batch are computed with.

    Attributes:
        weights: of every row [rows, K] fp32. bare: how many tokens of each prompt run on the bare base. method: of merging.
    """

    weights: Tensor
    bare: Sequence[int]
    method: str

    def of_prompts(self, prompts: Sequence[Sequence[int]]) -> BatchWeights:
        """While prompts are computed."""
        return BatchWeights.of_prompts(self.weights, prompts, self.bare, method=self.method)

    def of_answers(self) -> BatchWeights:
        """While answers are."""
        return BatchWeights(self.weights, method=self.method)
