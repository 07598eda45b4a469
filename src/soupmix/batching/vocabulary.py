"""What single tokens are called: text, bytes, and log probabilities as they are told to clients."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers.convert_slow_tokenizer import bytes_to_unicode

from soupmix.batching.request import Token

__all__ = ["Vocabulary"]

_BYTES = {letter: byte for byte, letter in bytes_to_unicode().items()}


class Vocabulary:
    """The tokens of a tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._is_bytes = "ByteLevel" in str(tokenizer.backend_tokenizer.decoder)
        self.name = lru_cache(maxsize=65536)(self._name)

    def told(self, logits: Tensor, chosen: int, likeliest: int) -> Token:
        """A chosen token under its logits [vocabulary], with so many of the likeliest."""
        logprobs = torch.log_softmax(logits.float(), -1)
        values, ids = logprobs.topk(likeliest)
        beside = tuple(
            (token, *self.name(token), value) for token, value in zip(ids.tolist(), values.tolist(), strict=True)
        )
        return Token(chosen, *self.name(chosen), float(logprobs[chosen]), beside)

    def _name(self, token: int) -> tuple[str, bytes]:
        """Text and bytes of one token; several tokens may share a character, and then its text is a replacement mark."""
        written = self._tokenizer.convert_ids_to_tokens(token)
        if self._is_bytes and written is not None and all(letter in _BYTES for letter in written):
            data = bytes(_BYTES[letter] for letter in written)
            return data.decode("utf-8", "replace"), data
        text = self._tokenizer.decode([token])
        return text, text.encode()
