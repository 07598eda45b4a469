"""Many answers at once, and their results in the order of the lines, whichever ends first."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from soupmix.backends import Backend, Delta, Ticket
from soupmix.batch.line import Answered, Begun, Line, LineResult
from soupmix.errors import BaseModelError, Overloaded, PolicyRefusal, RecipeError, SoupmixError, WeightError
from soupmix.openai.forms import AnswerSoFar

__all__ = ["in_order", "waiting_room"]

_AHEAD = 2  # answers that run or wait for a row, per row: a row that becomes free finds the next one waiting
_WINDOW = 16  # lines per row that one long answer may hold back
_PATIENCE = 0.2  # seconds after which to look whether to stop


def waiting_room(rows: int, answers: int) -> int:
    """How many requests `in_order` may have waiting at once, for `Limits`, if a line has at most so many answers."""
    return _AHEAD * rows + answers


def in_order(
    lines: Iterator[Line], begin: Callable[[Line], Begun], backend: Backend, *, stopping: Callable[[], bool]
) -> Iterator[LineResult]:
    """Answer lines as rows become free, and give their results in order.

    Args:
        begin: what a line asks, checked and allowed; WeightError, RecipeError and PolicyRefusal are the line's result,
            but that the policy has ended (reason "ended") is no line's; and so is a BaseModelError of a chat template that
            asks too much for this conversation (reason "template-limit").
        stopping: asked now and then; once it says so nothing further is given.

    Raises:
        SoupmixError: the engine stopped (reason "stopped"), the policy ended (reason "ended"); whatever else `begin` raises,
            and `Backend.submit`, but for a RecipeError, which is the line's result too.
    """
    flow, more = _Flow(begin, backend), True
    while not stopping():
        while more and flow.has_room:
            line = next(lines, None)
            if line is None:
                more = False
            else:
                flow.start(line)
        yield from flow.ready()
        if flow.is_idle and not more:
            return
        flow.wait()


@dataclass(slots=True)
class _Running:
    """A line that is being answered."""

    begun: Begun
    answers: tuple[AnswerSoFar, ...]
    left: int
    tickets: list[Ticket] = field(default_factory=list)


class _Flow:
    """Lines that are being answered, and results that wait for those before them."""

    def __init__(self, begin: Callable[[Line], Begun], backend: Backend) -> None:
        self._begin, self._backend = begin, backend
        self._inbox: SimpleQueue[tuple[int, int, Delta]] = SimpleQueue()
        self._running: dict[int, _Running] = {}
        self._results: dict[int, LineResult] = {}
        self._places: deque[int] = deque()  # numbers of the lines whose results were not given yet, in order

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being answered."""
        return not self._running

    @property
    def has_room(self) -> bool:
        """Whether to start another line: rows wait for it, and not too much waits for the first one."""
        rows = self._backend.limits.rows
        return (
            sum(running.left for running in self._running.values()) < _AHEAD * rows
            and len(self._places) < _WINDOW * rows
        )

    def start(self, line: Line) -> None:
        """Begin to answer a line, or know at once why not."""
        self._places.append(line.number)
        try:
            begun = self._begin(line)
        except (WeightError, RecipeError, PolicyRefusal) as error:
            if error.reason == "ended":
                raise
            self._results[line.number] = LineResult(line, error)
        except BaseModelError as error:
            if error.reason != "template-limit":
                raise
            self._results[line.number] = LineResult(line, error)
        else:
            self._submit(begun)

    def ready(self) -> Iterator[LineResult]:
        """Results that are next in order."""
        while self._places and self._places[0] in self._results:
            yield self._results.pop(self._places.popleft())

    def wait(self) -> None:
        """Take in what the engine says, once it says something or some time has passed."""
        if self._running:
            try:
                self._take(*self._inbox.get(timeout=_PATIENCE))
            except Empty:
                self._check_alive()
        while not self._inbox.empty():
            self._take(*self._inbox.get())

    def _submit(self, begun: Begun) -> None:
        number, count = begun.line.number, len(begun.requests)
        running = _Running(begun, tuple(AnswerSoFar() for _ in range(count)), count)
        self._running[number] = running
        for place, request in enumerate(begun.requests):
            try:
                running.tickets.append(self._backend.submit(request, self._sink(number, place)))
            except Overloaded:
                self._check_alive()  # a backend that has stopped takes nothing, either; that is what is to be said then
                raise
            except RecipeError as error:
                self._fail(running, error)
                return

    def _sink(self, number: int, place: int) -> Callable[[Delta], None]:
        return lambda delta: self._inbox.put((number, place, delta))

    def _take(self, number: int, place: int, delta: Delta) -> None:
        running = self._running.get(number)
        if running is None:  # another answer of the line has failed
            return
        running.answers[place].add(delta)
        if delta.finish == "cancelled":
            raise _stopped()
        if delta.error is not None:
            self._fail(running, delta.error)
        elif delta.finish is not None:
            running.left -= 1
            if running.left == 0:
                del self._running[number]
                self._results[number] = LineResult(running.begun.line, Answered(running.begun, running.answers))

    def _fail(self, running: _Running, error: SoupmixError) -> None:
        if error.reason == "stopped":
            raise _stopped() from error
        for ticket in running.tickets:
            ticket.cancel()
        del self._running[running.begun.line.number]
        self._results[running.begun.line.number] = LineResult(running.begun.line, error)

    def _check_alive(self) -> None:
        if not self._backend.state().alive:
            raise _stopped()


def _stopped() -> SoupmixError:
    return SoupmixError("the engine has stopped; start the batch again to go on with it", reason="stopped")
