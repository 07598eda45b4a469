"""One answer while it is made: its job, its text as it comes, and what is told of its tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor
from transformers.convert_slow_tokenizer import bytes_to_unicode

from soupmix.backends.protocol import Delta, Request, Token
from soupmix.batching.schedule import Job
from soupmix.errors import SoupmixError

__all__ = ["Answer", "Chosen", "TokenNames", "Writer"]

_BYTES = {letter: byte for byte, letter in bytes_to_unicode().items()}


@dataclass(frozen=True, slots=True)
class Chosen:
    """The next token of an answer.

    Attributes:
        id: its number in the vocabulary. ends: whether it ends the answer; it is then no part of its text.
        token: its log probability and the likeliest tokens beside it, if the request asks for them.
    """

    id: int
    ends: bool
    token: Token | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Answer(Job):
    """A job of the scheduler with everything else that making its answer needs.

    Attributes:
        request: what was asked.
        weights: one per adapter [K] fp32, in the engine's order, on its device.
        uniform: random numbers [max_new_tokens] fp32 in [0, 1), one per token that is drawn.
        writer: turns token ids into text.
        sink: called with every `Delta`, from the batcher's thread.
        cancelled: whether the answer is to end before the next step.
    """

    request: Request
    weights: Tensor
    uniform: Tensor
    writer: "Writer"
    sink: Callable[[Delta], None]
    cancelled: bool = False
    _steps: int = field(default=0)

    @property
    def steps(self) -> int:
        """Tokens chosen so far, a token that ends the answer included."""
        return self._steps

    def accept(self, chosen: Chosen) -> Delta:
        """Add one more token, and return what the client is told of it."""
        self._steps += 1
        text = ""
        if not chosen.ends:
            self.answer.append(chosen.id)
            text = self.writer.add(chosen.id)
        finish = self._finish(chosen)
        if finish and not self.writer.stopped:
            text += self.writer.rest()
        return self._delta(text, (chosen.token,) if chosen.token and not chosen.ends else (), finish)

    def end(self, finish: str, error: SoupmixError | None = None) -> None:
        """Tell the client that the answer ends without a further token; `finish` is "cancelled" or "error"."""
        self.sink(self._delta("", (), finish, error))

    def _finish(self, chosen: Chosen) -> str | None:
        if chosen.ends or self.writer.stopped:
            return "stop"
        return "length" if self._steps >= self.request.sampling.max_new_tokens else None

    def _delta(
        self, text: str, tokens: tuple[Token, ...], finish: str | None, error: SoupmixError | None = None
    ) -> Delta:
        return Delta(text, tokens, finish, len(self.prompt), self.cached, len(self.answer), error)


class Writer:
    """The text of one answer as it comes: whole characters, and nothing that could still become a stop text.

    Attributes:
        stopped: whether a stop text came. The answer ends before it.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._stream = DecodeStream(skip_special_tokens=True)
        self._tokens: list[int] = []
        self._made, self._held = 0, ""  # characters that were decoded, and those of them that were not shown yet
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that may be shown after one more token; it may be empty."""
        self._tokens.append(token)
        more = self._stream.step(self._tokenizer.backend_tokenizer, token) or ""
        self._made, self._held = self._made + len(more), self._held + more
        ends = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        self.stopped = bool(ends)
        safe = min(ends) if ends else len(self._held) - self._could_stop()
        shown, self._held = self._held[:safe], "" if ends else self._held[safe:]
        return shown

    def rest(self) -> str:
        """The text that was held back, for an answer that ends without a stop text.

        Bytes at the end that make no whole character are shown as a replacement mark.
        """
        whole: str = self._tokenizer.decode(self._tokens, skip_special_tokens=True)
        return self._held + whole[self._made :]

    def _could_stop(self) -> int:
        """How many of the last held characters are the beginning of a stop text; the most, if there are several."""
        longest = max(map(len, self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0


class TokenNames:
    """Tokens as clients are told of them: by text, bytes and log probability instead of ids."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._is_bytes = "ByteLevel" in str(tokenizer.backend_tokenizer.decoder)
        self.name = lru_cache(maxsize=65536)(self._name)

    def token(self, logits: Tensor, chosen: int, likeliest: int) -> Token:
        """The chosen token with its natural log probability under `logits` [vocabulary], and so many of the likeliest."""
        logprobs = torch.log_softmax(logits.float(), -1)
        values, ids = logprobs.topk(likeliest)
        beside = tuple(
            (token, *self.name(token), value) for token, value in zip(ids.tolist(), values.tolist(), strict=True)
        )
        return Token(chosen, *self.name(chosen), float(logprobs[chosen]), beside)

    def _name(self, token: int) -> tuple[str, bytes]:
        """Text and bytes of one token; the text of a token that is a part of a character is a replacement mark."""
        written = self._tokenizer.convert_ids_to_tokens(token)
        if self._is_bytes and written is not None and all(letter in _BYTES for letter in written):
            data = bytes(_BYTES[letter] for letter in written)
            return data.decode("utf-8", "replace"), data
        text = self._tokenizer.decode([token])
        return text, text.encode()
