"""A line while it is answered, and what became of it."""

from dataclasses import dataclass, field
from typing import Literal

from soupmix.batching import Piece, Request, Token
from soupmix.errors import SoupmixError
from soupmix.policy import Grant
from soupmix.serve.batch.line import Line
from soupmix.serve.wire import Ask

__all__ = ["Answered", "Begun", "Result"]


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


@dataclass(slots=True)
class Answered:
    """One answer as it comes in: its text, its tokens if they were asked for, and the last piece, which counts them."""

    texts: list[str] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    last: Piece | None = None

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(self.texts)

    @property
    def finish(self) -> Literal["stop", "length"]:
        """How it has ended, once it has."""
        return "length" if self.last is not None and self.last.finish == "length" else "stop"

    def add(self, piece: Piece) -> bool:
        """Add a piece; whether it is the last one."""
        self.texts.append(piece.text)
        self.tokens += piece.tokens
        self.last = piece
        return piece.finish is not None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a line: its answers, or why there are none."""

    line: Line
    begun: Begun | None
    answers: tuple[Answered, ...]
    error: SoupmixError | None
