"""A line while it is answered, and what became of it."""

from dataclasses import dataclass

from soupmix.batch.line import Line
from soupmix.batching import Request
from soupmix.errors import SoupmixError
from soupmix.openai.forms import Made
from soupmix.openai.wire import Ask
from soupmix.policy import Grant

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


@dataclass(frozen=True, slots=True)
class Answered:
    """A line with all of its answers."""

    begun: Begun
    made: tuple[Made, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a line: its answers, or why there are none."""

    line: Line
    outcome: Answered | SoupmixError
