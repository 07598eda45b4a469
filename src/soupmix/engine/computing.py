"""Who computes the logits of rows: compiled steps where the engine has them, torch elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from soupmix.engine.compiled import EngineStep
from soupmix.engine.decode import KeptRows, PaddedBatch, left_padded
from soupmix.engine.rows import ActiveBatch, BatchWeights
from soupmix.engine.slot_rows import SlotRows

__all__ = ["Computing", "Soups"]


@dataclass(frozen=True, slots=True)
class Soups:
    """What the rows of a batch are computed with.

    Attributes:
        weights: of every row [rows, K] fp32. bare: how many tokens of each prompt run on the bare base. method: of merging.
    """

    weights: Tensor
    bare: Sequence[int]
    method: str

    @classmethod
    def everywhere(cls, weights: Tensor, method: str) -> "Soups":
        """Soups that act on every token."""
        return cls(weights, [0] * len(weights), method)

    def of_prompts(self, prompts: Sequence[Sequence[int]]) -> BatchWeights:
        """While prompts are computed."""
        return BatchWeights.of_prompts(self.weights, prompts, self.bare, method=self.method)

    def of_answers(self) -> BatchWeights:
        """While answers are."""
        return BatchWeights(self.weights, method=self.method)


@dataclass(frozen=True, slots=True)
class Computing:
    """How rows of an engine are computed.

    Attributes:
        model: that of transformers, with soup layers. batch: the batch that it serves. step: who computes, once it was tried.
    """

    model: Any
    batch: ActiveBatch
    step: EngineStep

    def rows(self, prompts: Sequence[Sequence[int]], soups: Soups, more: int) -> KeptRows:
        """Rows behind prompts while they are decoded, inside `serving`.

        Args:
            prompts: token ids of every row. more: how many tokens each may have beyond its prompt.
        """
        if self.step.library is None:
            return PaddedBatch(self.model, *left_padded(prompts, self.model.device))
        return self._in_slots(prompts, soups, max(map(len, prompts)) + more)

    def logits(self, ids: Tensor, weights: Tensor, method: str) -> Tensor:
        """Logits of token ids without padding, [rows, length, vocabulary]; weights of every row [rows, K] fp32."""
        soups = Soups.everywhere(weights, method)
        with torch.inference_mode(), self.batch.serving(soups.of_answers()):
            if self.step.library is None:
                result: Tensor = self.model(input_ids=ids).logits
                return result
            rows = self._in_slots(ids.tolist(), soups, ids.shape[1])
            return rows.logits_of_prompts().view(*ids.shape, -1)

    def _in_slots(self, prompts: Sequence[Sequence[int]], soups: Soups, most: int) -> SlotRows:
        weighted = partial(BatchWeights, method=soups.method)
        return SlotRows(self.step, self.batch, prompts, most, soups.weights, soups.bare, weighted)
