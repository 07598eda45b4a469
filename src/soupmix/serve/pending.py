"""From the engine's thread to the event loop: the answers of one request while they are made."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial

from soupmix.backends import Backend, Delta, Request, Ticket
from soupmix.errors import Overloaded, SoupmixError
from soupmix.serve.metrics import Metrics

__all__ = ["PendingAnswers", "failed"]

# After a busy loop all deltas come at once, and nobody is slow by that: seconds in which a reader has its turn.
_GRACE = 0.25


class PendingAnswers:
    """The answers to one request, as deltas in the order in which they come. Used in one event loop.

    Whoever leaves calls `cancel`: what is not finished then leaves the running batch.
    """

    def __init__(self, backend: Backend, metrics: Metrics, requests: Sequence[Request], deltas: int) -> None:
        """A reader that is more than `deltas` per answer behind, and stays so, is given up."""
        self._backend, self._metrics, self._requests = backend, metrics, requests
        self._most = deltas * len(requests)
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, Delta]] = asyncio.Queue()
        self._tickets: list[Ticket] = []
        self._seen = [time.monotonic()] * len(requests)
        self._begun: set[int] = set()
        self._open = set(range(len(requests)))
        self._left = self._too_slow = self._judging = False
        self._elsewhere = False  # the reader has a delta, and has not come back for the next

    @property
    def count(self) -> int:
        """How many answers."""
        return len(self._requests)

    def submit(self) -> None:
        """Queue all of them, or none; from a thread of its own. Raises as `Backend.submit` does."""
        for number, request in enumerate(self._requests):
            try:
                self._tickets.append(self._backend.submit(request, partial(self._tell, number)))
            except SoupmixError:
                self.cancel()
                raise
        if self._left:  # the client went while this was going on
            self.cancel()

    def cancel(self) -> None:
        """Take what is not finished out of the running batch. Any number of times."""
        self._left = True
        for ticket in self._tickets:
            ticket.cancel()

    async def deltas(self) -> AsyncIterator[tuple[int, Delta]]:
        """(number of the answer, delta) until all are finished.

        Raises:
            Overloaded: the reader was too far behind (reason "slow-reader").
        """
        while self._open or not self._queue.empty():
            self._elsewhere = False
            number, delta = await self._queue.get()
            if self._too_slow:
                raise Overloaded("the answer was given up because it was not read in time", reason="slow-reader")
            self._elsewhere = True
            yield number, delta

    def _tell(self, number: int, delta: Delta) -> None:
        """Called by the engine's thread, which must never wait."""
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(self._take, number, delta)

    def _take(self, number: int, delta: Delta) -> None:
        self._measure(number, delta)
        if delta.finish is not None:
            self._open.discard(number)
        if self._too_slow:
            return
        self._queue.put_nowait((number, delta))
        if self._queue.qsize() > self._most and not self._judging:
            self._judging = True
            self._loop.call_later(_GRACE, self._judge)

    def _judge(self) -> None:
        self._judging = False
        if self._queue.qsize() > self._most and self._elsewhere:
            self._too_slow = True
            self._metrics.slow_readers.inc()
            self.cancel()

    def _measure(self, number: int, delta: Delta) -> None:
        now = time.monotonic()
        if delta.text:
            histogram = self._metrics.between_tokens if number in self._begun else self._metrics.first_token
            histogram.observe(now - self._seen[number])
            self._begun.add(number)
            self._seen[number] = now
        if delta.finish is not None:
            self._metrics.answers.labels(delta.finish).inc()


def failed(delta: Delta) -> SoupmixError | None:
    """Why an answer ended without being whole, if it did."""
    if delta.finish == "error":
        return delta.error or SoupmixError("the answer could not be made", reason="step-failed")
    if delta.finish == "cancelled":
        return Overloaded("the server is closing; ask again in a moment", reason="draining", retry_after=5.0)
    return None
