"""One line of a batch, whatever file it stands in: as it is read, while it is answered, and what became of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from soupmix.backends import Request
from soupmix.errors import RecipeError, SoupmixError
from soupmix.openai.forms import AnswerSoFar
from soupmix.openai.wire import Ask
from soupmix.policy import Grant

__all__ = ["CHAT", "COMPLETIONS", "Answered", "Begun", "Line", "LineResult", "bounded_lines"]

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Line:
    """What one line of the input asks.

    Attributes:
        number: its place, from 0. custom_id: what its result is found by, if it said so.
        url: which of OpenAI's endpoints. body: the request, not yet checked.
        error: why it cannot be read; then the rest means nothing.
    """

    number: int
    custom_id: str | None = None
    url: str = CHAT
    body: Mapping[str, Any] = field(default_factory=dict)
    error: RecipeError | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """A line that was understood and allowed: one request for each of its answers.

    Attributes:
        merge: identity of the soup that its answers are made with.
    """

    line: Line
    ask: Ask
    grant: Grant
    merge: str
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """A line with all of its answers."""

    begun: Begun
    made: tuple[AnswerSoFar, ...]


@dataclass(frozen=True, slots=True)
class LineResult:
    """What became of a line: its answers, or why there are none."""

    line: Line
    outcome: Answered | SoupmixError


def bounded_lines(file: BinaryIO, limit: int) -> Iterator[bytes | None]:
    """The lines of a file without their line feeds; None for one of more than `limit` bytes, which is never held."""
    while raw := file.readline(limit + 1):
        if raw.endswith(b"\n") or len(raw) <= limit:
            yield raw.removesuffix(b"\n")
            continue
        while raw and not raw.endswith(b"\n"):
            raw = file.readline(_CHUNK)
        yield None
