"""Activated soups by PEFT: the prompt with all adapters disabled, the KV cache kept, the answer with them active."""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from soupmix.base import Base
from soupmix.store import Store

__all__ = ["Activated"]


class Activated:
    """A model of transformers with the adapters of a store, by PEFT, unmerged.

    Args:
        weights: of every adapter; what PEFT scales by is multiplied by it.
    """

    def __init__(self, base: Base, store: Store, weights: Mapping[str, float]) -> None:
        from peft import PeftModel

        model = AutoModelForCausalLM.from_pretrained(base.folder)
        first, *more = weights
        self._model: Any = PeftModel.from_pretrained(model, str(store.path(first)), adapter_name=first).eval()
        for name in more:
            self._model.load_adapter(str(store.path(name)), adapter_name=name)
        self._model.base_model.set_adapter(list(weights))
        for module in self._model.modules():
            scaling = getattr(module, "scaling", {})
            for name in scaling if isinstance(scaling, dict) else ():
                scaling[name] *= weights[name]

    @torch.inference_mode()
    def greedy(self, prompt: Sequence[int], bare: int, tokens: int) -> tuple[list[int], Tensor]:
        """The likeliest tokens, and the log probabilities at their places [tokens, vocabulary].

        Args:
            bare: so many tokens of the prompt, the first, are computed without any adapter.
        """
        past, left, found, logprobs = None, list(prompt), list[int](), list[Tensor]()
        if bare:
            with self._model.disable_adapter():
                out = self._model(input_ids=torch.tensor([left[:bare]]), use_cache=True)
            past, left = self._past(out), left[bare:]
        while len(found) < tokens:
            out = self._model(input_ids=torch.tensor([left[:1]]), use_cache=True, **(past or {}))
            past, left = self._past(out), left[1:]
            if not left:
                logprobs.append(torch.log_softmax(out.logits[0, -1].float(), -1))
                found.append(int(logprobs[-1].argmax()))
                left = [found[-1]]
        return found, torch.stack(logprobs)

    def _past(self, out: Any) -> dict[str, Any]:
        held = next(out[name] for name in ("past_key_values", "cache_params", "cache") if name in out)
        known = signature(self._model.base_model.model.forward).parameters
        return {"cache" if "cache" in known else "past_key_values": held}
