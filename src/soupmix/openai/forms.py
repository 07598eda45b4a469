"""Answers written down as OpenAI's choices: of a chat, and of a plain completion."""

from codecs import getincrementaldecoder
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from soupmix.backends import Backend, Delta, Token
from soupmix.openai.answers import Usage
from soupmix.openai.calls import CallReader, reader_of
from soupmix.openai.wire import ChatAsk

__all__ = ["AnswerSoFar", "ChatForm", "CompletionForm", "Form", "usage"]


@dataclass(slots=True)
class AnswerSoFar:
    """An answer as far as it is known; its counts are those of its last delta.

    Attributes:
        characters: whole characters of its tokens, and the bytes of one that has begun.
    """

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    last: Delta | None = None
    characters: tuple[int, bytes] = (0, b"")

    def add(self, delta: Delta) -> None:
        """The next delta."""
        self.text += delta.text
        self.tokens += delta.tokens
        self.last = delta
        _, self.characters = _offsets(delta.tokens, self.characters)


class Form(Protocol):
    """How an answer is written down."""

    prefix: str
    whole: str
    chunk: str

    def choice(self, number: int, made: AnswerSoFar) -> dict[str, Any]:
        """A whole answer as a choice."""

    def opening(self, number: int) -> dict[str, Any] | None:
        """The choice that begins a stream, if there is one."""

    def delta(self, number: int, made: AnswerSoFar, delta: Delta) -> dict[str, Any]:
        """A delta as a choice; `made` is what came before it."""


class ChatForm:
    """Answers as messages, and the calls of tools in them.

    Args:
        name: makes the ids of calls. reader: makes what takes the calls out of one answer; None: they stay text.
    """

    prefix, whole, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, name: str = "", reader: Callable[[], CallReader] | None = None) -> None:
        self._name, self._reader = name, reader
        self._readers: dict[int, CallReader] = {}

    @classmethod
    def of(cls, ask: ChatAsk, backend: Backend, name: str) -> "ChatForm":
        """As a request asks for it."""
        return cls(name, reader_of(backend, ask))

    def choice(self, number: int, made: AnswerSoFar) -> dict[str, Any]:
        """A whole message."""
        finish = made.last.finish if made.last else None
        text, calls, finish = self._read(number, made.text, finish or "stop")
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if calls:
            message |= {"content": text or None, "tool_calls": calls}
        return {"index": number, "message": message, "logprobs": _chat_told(made.tokens), "finish_reason": finish}

    def _read(self, number: int, text: str, finish: str | None) -> tuple[str, list[dict[str, Any]], str | None]:
        """What is to be shown of more text, the calls in it, and how it ends."""
        if self._reader is None:
            return text, [], finish
        if (reader := self._readers.get(number)) is None:
            reader = self._readers[number] = self._reader()
        before = reader.count
        shown, calls = reader.feed(text, last=finish is not None)
        told = [call.told(self._name, number, before + place) for place, call in enumerate(calls)]
        return shown, told, "tool_calls" if finish == "stop" and reader.count else finish

    def opening(self, number: int) -> dict[str, Any]:
        """Who speaks."""
        delta = {"role": "assistant", "content": ""}
        return {"index": number, "delta": delta, "logprobs": None, "finish_reason": None}

    def delta(self, number: int, made: AnswerSoFar, delta: Delta) -> dict[str, Any]:
        """What is added."""
        before = self._readers[number].count if number in self._readers else 0
        text, calls, finish = self._read(number, delta.text, delta.finish)
        message: dict[str, Any] = {"content": text} if text else {}
        if calls:
            message["tool_calls"] = [{"index": before + place, **call} for place, call in enumerate(calls)]
        return {"index": number, "delta": message, "logprobs": _chat_told(delta.tokens), "finish_reason": finish}


class CompletionForm:
    """Answers as text."""

    prefix, whole, chunk = "cmpl", "text_completion", "text_completion"

    def choice(self, number: int, made: AnswerSoFar) -> dict[str, Any]:
        """A whole text."""
        finish = made.last.finish if made.last else None
        return {"index": number, "text": made.text, "logprobs": _plain_told(made.tokens), "finish_reason": finish}

    def opening(self, number: int) -> None:
        """Nothing: a text begins with its first delta."""

    def delta(self, number: int, made: AnswerSoFar, delta: Delta) -> dict[str, Any]:
        """What is added."""
        told = _plain_told(delta.tokens, made.characters)
        return {"index": number, "text": delta.text, "logprobs": told, "finish_reason": delta.finish}


def usage(made: Sequence[AnswerSoFar]) -> Usage:
    """Tokens of all answers of a request."""
    last = [each.last for each in made if each.last is not None]
    return Usage.of(
        sum(delta.prompt_tokens for delta in last),
        sum(delta.completion_tokens for delta in last),
        sum(delta.cached_tokens for delta in last),
    )


def _chat_told(tokens: Sequence[Token]) -> dict[str, Any] | None:
    return {"content": [_token(each) for each in tokens]} if tokens else None


def _token(token: Token) -> dict[str, Any]:
    return {
        "token": token.text,
        "logprob": token.logprob,
        "bytes": list(token.data),
        "top_logprobs": [
            {"token": text, "logprob": logprob, "bytes": list(data)} for _, text, data, logprob in token.likeliest
        ],
    }


def _plain_told(tokens: Sequence[Token], before: tuple[int, bytes] = (0, b"")) -> dict[str, Any] | None:
    if not tokens:
        return None
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{text: logprob for _, text, _, logprob in reversed(token.likeliest)} for token in tokens],
        "text_offset": _offsets(tokens, before)[0],
    }


def _offsets(tokens: Sequence[Token], before: tuple[int, bytes]) -> tuple[list[int], tuple[int, bytes]]:
    """How many whole characters stand before each token, and `AnswerSoFar.characters` behind the last of them."""
    decoder, offsets = getincrementaldecoder("utf-8")("replace"), list[int]()
    made, begun = before
    decoder.setstate((begun, 0))
    for token in tokens:
        offsets.append(made)
        made += len(decoder.decode(token.data))
    return offsets, (made, bytes(decoder.getstate()[0]))
