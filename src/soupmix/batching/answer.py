"""One answer while it is made: its job, its random stream, its text, and who is told."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from soupmix.batching.request import Delta, Request, Token
from soupmix.batching.schedule import Job
from soupmix.batching.writer import Writer
from soupmix.errors import SoupmixError

__all__ = ["Answer", "Chosen"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The next token of an answer: its id, whether it ends the answer, and what was asked about it."""

    id: int
    ends: bool
    told: Token | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Answer(Job):
    """A job with everything that its answer needs.

    Attributes:
        weights: [K] in the engine's order. uniform: numbers [max_new_tokens] that decide what is drawn.
        sink: is told every delta, from the batcher's thread.
    """

    request: Request
    weights: Tensor
    uniform: Tensor
    writer: Writer
    sink: Callable[[Delta], None]
    cancelled: bool = False
    _taken: int = field(default=0)

    @property
    def steps(self) -> int:
        """Tokens chosen so far."""
        return self._taken

    def accept(self, chosen: Chosen) -> Delta:
        """One more token, and what is to be told of it."""
        self._taken += 1
        text = ""
        if not chosen.ends:
            self.answer.append(chosen.id)
            text = self.writer.add(chosen.id)
        finish = self._finish(chosen)
        if finish and not self.writer.stopped:
            text += self.writer.rest()
        return self._delta(text, (chosen.told,) if chosen.told and not chosen.ends else (), finish)

    def end(self, finish: str, error: SoupmixError | None = None) -> None:
        """Tell that the answer ends without a further token: "cancelled" or "error"."""
        self.sink(self._delta("", (), finish, error))

    def _finish(self, chosen: Chosen) -> str | None:
        if chosen.ends or self.writer.stopped:
            return "stop"
        return "length" if self._taken >= self.request.sampling.max_new_tokens else None

    def _delta(
        self, text: str, tokens: tuple[Token, ...], finish: str | None, error: SoupmixError | None = None
    ) -> Delta:
        return Delta(text, tokens, finish, len(self.prompt), self.cached, len(self.answer), error)
