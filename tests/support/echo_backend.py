"""A test double of a backend that says every prompt back. It has what `soupmix.backends.Backend` names and nothing else.

It is no model: a token is a byte, every token is certain, and of a request's sampling only the length counts. Stop texts,
weights and sharing change nothing of an answer.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Self

from soupmix.backends import CallForm, Delta, Limits, Message, Request, State, Token, Tool, ToolUse, Vocabulary
from soupmix.errors import Overloaded, RecipeError
from soupmix.files import digest_parts
from soupmix.modes import FULL, Mode, check_mode
from soupmix.policy import Grant
from soupmix.policy.grant import check_grant

__all__ = ["EchoBackend"]


class EchoBackend:
    """Answers each request in a thread of its own, a byte at a time."""

    methods = ("delta",)
    unserved: Mapping[str, RecipeError] = MappingProxyType({})
    modes: tuple[Mode, ...] = (FULL,)
    vocabulary = Vocabulary(size=256, longest=1)
    tool_use = ToolUse(told=True, answered=True, form=CallForm("<tool_call>", "</tool_call>", "arguments"))

    def __init__(self, limits: Limits = Limits(rows=4, length=256)) -> None:  # noqa: B008  # frozen
        self.limits, self.shared = limits, list[tuple[int, ...]]()
        self._answers: list[_Echo] = []
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_schema(self) -> None:
        raise RecipeError("the echo is held to no schema; leave it out", reason="schema")

    def tokens(self, said: str | Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        text = said if isinstance(said, str) else "".join(f"{each['role']}: {each['content']}\n" for each in said)
        return tuple(text.encode())

    def marker(self, text: str) -> str | None:
        return "<|end|>" if "<|end|>" in text else None

    def identity(self, grant: Grant, method: str, tenant: str = "", mode: Mode = FULL) -> str:
        said = {"weights": str(grant.granted), "method": method, "tenant": tenant, "mode": mode}
        return digest_parts("echo", said)

    def share(self, prefix: tuple[int, ...]) -> None:
        self.shared.append(prefix)

    def check_room(self) -> None:
        if self._closed.is_set():
            raise Overloaded("the server is closing; ask again in a moment", reason="draining", retry_after=5.0)

    def submit(self, request: Request, sink: Callable[[Delta], None]) -> "_Echo":
        check_grant(request.grant, "the echo")
        if not request.prompt:
            raise RecipeError("the prompt is empty; say something", reason="empty-prompt")
        if len(request.prompt) + request.sampling.max_new_tokens > self.limits.length:
            raise RecipeError("prompt and answer do not fit", reason="too-long")
        if request.method not in {None, *self.methods}:
            raise RecipeError(f"method '{request.method}' is not one of the echo's", reason="method")
        check_mode(request.mode, self.modes)
        self.check_room()
        self._answers.append(_Echo(request, sink))
        self._answers[-1].start()
        return self._answers[-1]

    def state(self) -> State:
        running = sum(each.is_alive() for each in self._answers)
        made = sum(each.made for each in self._answers)
        return State(alive=not self._closed.is_set(), running=running, generated_tokens=made)

    def close(self, *, drain: float = 0.0) -> None:
        self._closed.set()
        for each in self._answers:
            each.join(drain)
            each.cancel()
            each.join()


class _Echo(threading.Thread):
    """One answer, which is also its own ticket."""

    def __init__(self, request: Request, sink: Callable[[Delta], None]) -> None:
        super().__init__(daemon=True)
        self._request, self._sink, self._cancelled, self.made = request, sink, threading.Event(), 0

    def cancel(self) -> None:
        self._cancelled.set()

    def run(self) -> None:
        prompt, most = self._request.prompt, self._request.sampling.max_new_tokens
        for byte in prompt[:most]:
            if self._cancelled.is_set():
                return self._tell("cancelled")
            self.made += 1
            self._tell(None, byte)
        return self._tell("stop" if len(prompt) < most else "length")

    def _tell(self, finish: str | None, byte: int | None = None) -> None:
        data = b"" if byte is None else bytes([byte])
        text = data.decode("ascii", "replace")
        is_told = self._request.logprobs is not None and byte is not None
        told = (Token(byte or 0, text, data, 0.0),) if is_told else ()
        self._sink(Delta(text, told, finish, len(self._request.prompt), 0, self.made))
