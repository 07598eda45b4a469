"""One answer while it is made: its job, its text as it comes, and what is told of its tokens."""

from codecs import getincrementaldecoder
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from soupmix.backends.protocol import Delta, Request, Token
from soupmix.batching.schedule import Job
from soupmix.engine.detokenizer import Continuation, Detokenizer
from soupmix.engine.grammar import Grammar
from soupmix.errors import SoupmixError

__all__ = ["Answer", "Chosen", "TokenNames", "W", "WeightedJob", "Writer"]


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
class WeightedJob(Job):
    """A job of the scheduler with its soup.

    Attributes:
        weights: one per adapter [K] fp32, in the engine's order, on its device.
    """

    weights: Tensor


W = TypeVar("W", bound=WeightedJob)


@dataclass(slots=True, eq=False, kw_only=True)
class Answer(WeightedJob):
    """A job with everything else that making its answer needs.

    Attributes:
        request: what was asked.
        uniform: random numbers [max_new_tokens] fp32 in [0, 1), one per token that is drawn.
        writer: turns token ids into text. grammar: what it is held to; None: nothing.
        sink: called with every `Delta`, from the batcher's thread.
        cancelled: whether the answer is to end before the next step.
    """

    request: Request
    uniform: Tensor
    writer: "Writer"
    sink: Callable[[Delta], None]
    grammar: Grammar | None = None
    cancelled: bool = False
    _steps: int = field(default=0)

    @property
    def steps(self) -> int:
        """Tokens chosen so far, a token that ends the answer included."""
        return self._steps

    def accept(self, chosen: Chosen) -> Delta:
        """Add one more token, and return what the client is told of it. Raises as `Grammar.accept`, and as a tokenizer fails."""
        self._steps += 1
        text, tokens = "", tuple[Token, ...]()
        if not chosen.ends:
            self.answer.append(chosen.id)
            text, tokens = self.writer.add(chosen.id, chosen.token)
            if self.grammar is not None:
                self.grammar.accept(chosen.id)
        finish = self._finish(chosen)
        if finish and not self.writer.stopped:
            last = self.writer.rest()
            text, tokens, finish = text + last[0], tokens + last[1], "stop" if self.writer.stopped else finish
        return self._delta(text, tokens, finish)

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
    """The text of one answer as it comes, and its tokens: whole characters, and nothing that could still become a stop text.

    A token is told once all of its text is shown. What a stop text takes from the text it takes from the tokens too, so that
    their bytes are those of the text; a token that reaches into the stop text is told as far as it was shown.

    Args:
        continuation: the text of the answer's tokens. stop: texts before which the answer ends.

    Attributes:
        stopped: whether a stop text came. The answer ends before it.
    """

    def __init__(self, continuation: Continuation, stop: Sequence[str]) -> None:
        self._continuation, self._stop = continuation, tuple(stop)
        self._held, self._shown = "", 0  # text that was not shown yet, and characters that were
        self._tokens = _Tokens()
        self.stopped = False

    def add(self, token: int, told: Token | None = None) -> tuple[str, tuple[Token, ...]]:
        """The text that may be shown after one more token, and the tokens that may be told; both may be empty.

        Args:
            told: the token as clients are told of it, if they are.
        """
        self._held += self._continuation.add(token)
        if told is not None:
            self._tokens.add(told)
        return self._show(len(self._held) - self._could_stop())

    def rest(self) -> tuple[str, tuple[Token, ...]]:
        """What was held back, for an answer that ends; it may turn out to end at a stop text.

        Bytes at the end that make no whole character are shown as replacement marks.
        """
        self._held += self._continuation.rest()
        return self._show(len(self._held), last=True)

    def _show(self, safe: int, *, last: bool = False) -> tuple[str, tuple[Token, ...]]:
        ends = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        self.stopped = bool(ends)
        safe = min(ends, default=safe)
        if not self._continuation.is_open:
            self._tokens.align(self._shown + len(self._held))
        shown, self._held = self._held[:safe], "" if ends else self._held[safe:]
        self._shown += len(shown)
        if self.stopped:
            return shown, self._tokens.cut(self._shown)
        return shown, self._tokens.all() if last else self._tokens.whole(self._shown)

    def _could_stop(self) -> int:
        """How many of the last held characters are the beginning of a stop text; the most, if there are several."""
        longest = max(map(len, self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0


class _Tokens:
    """Tokens that were not told yet, and where in the text each of them ends, by its own bytes.

    The text can be shorter than the bytes are: a decoder may take the space of the first token.
    """

    def __init__(self) -> None:
        self._waiting: list[
            tuple[Token, int, bool]
        ] = []  # with the whole characters up to its end, and whether no more began
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._count, self._told, self._more = (
            0,
            0,
            0,
        )  # characters of all tokens, of those told, and more than the text has

    def add(self, token: Token) -> None:
        """The next token."""
        self._count += len(self._decoder.decode(token.data))
        self._waiting.append((token, self._count, not self._decoder.getstate()[0]))

    def align(self, characters: int) -> None:
        """Note that all tokens so far have become so many characters of text."""
        if not self._decoder.getstate()[0]:
            self._more = self._count - characters

    def whole(self, shown: int) -> tuple[Token, ...]:
        """The tokens whose characters are all among the first so many of the text."""
        ready = 0
        for number, (_, end, is_whole) in enumerate(self._waiting):
            if end - self._more > shown:
                break
            ready = number + 1 if is_whole else ready
        return self._take(ready)

    def all(self) -> tuple[Token, ...]:
        """All tokens."""
        return self._take(len(self._waiting))

    def cut(self, shown: int) -> tuple[Token, ...]:
        """The tokens that made the text up to there, the last one cut where the text is."""
        left = _size(b"".join(token.data for token, *_ in self._waiting), shown + self._more - self._told)
        kept = []
        for token in self.all():
            if left <= 0:
                break
            data = token.data[:left]
            kept.append(
                token if data == token.data else replace(token, data=data, text=data.decode("utf-8", "replace"))
            )
            left -= len(data)
        return tuple(kept)

    def _take(self, count: int) -> tuple[Token, ...]:
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        if taken:
            self._told = taken[-1][1]
        return tuple(token for token, *_ in taken)


def _size(data: bytes, characters: int) -> int:
    """How many bytes make so many characters."""
    decoder, made = getincrementaldecoder("utf-8")("replace"), 0
    for size, byte in enumerate(data):
        after = made + len(decoder.decode(bytes([byte])))
        if made >= characters or after > characters:  # a byte can make two: of what it breaks off a mark, and its own
            return size
        made = after
    return len(data)


class TokenNames:
    """Tokens as clients are told of them: by text, bytes and log probability instead of ids."""

    def __init__(self, detokenizer: Detokenizer) -> None:
        self._detokenizer = detokenizer

    def token(self, logits: Tensor, chosen: int, likeliest: int) -> Token:
        """The chosen token with its natural log probability under `logits` [vocabulary], and so many of the likeliest."""
        logprobs = torch.log_softmax(logits.float(), -1)
        values, ids = logprobs.topk(min(likeliest, len(logprobs)))
        beside = tuple(
            (token, *self._name(token), value) for token, value in zip(ids.tolist(), values.tolist(), strict=True)
        )
        return Token(chosen, *self._name(chosen), float(logprobs[chosen]), beside)

    def _name(self, token: int) -> tuple[str, bytes]:
        return self._detokenizer.name(token), self._detokenizer.data(token)
