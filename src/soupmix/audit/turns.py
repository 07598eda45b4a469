"""Whose turn it is to write: one thread at a time, which does the work of all that wait for the same.

Every thread that waits has a lock of its own to sleep on, so that a finished batch wakes whom it concerns and the next
writer, and nobody else. With one condition variable for all, 64 threads spend more time waking up than writing.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Generic, Literal, TypeVar

__all__ = ["Turns"]

_Item = TypeVar("_Item")


class _Waiter(Generic[_Item]):
    """A thread that waits, with what it wants done, or None if it wants to be alone."""

    __slots__ = ("item", "state", "wake")

    def __init__(self, item: _Item | None) -> None:
        self.item, self.wake = item, Lock()
        self.state: Literal["waiting", "taken", "turn"] = "waiting"


class Turns(Generic[_Item]):
    """Turns to write."""

    __slots__ = ("_busy", "_lock", "_queue")

    def __init__(self) -> None:
        self._lock, self._busy = Lock(), False
        self._queue = deque[_Waiter[_Item]]()

    def share(self, item: _Item, work: Callable[[Sequence[_Item]], None]) -> None:
        """Return when the item has been among those that some thread gave to `work`.

        A thread whose turn it is takes along the items of all that wait. If `work` raises, it does so there; the others
        return, and have to see for themselves whether their item was done.
        """
        waiter = _Waiter(item)
        if not self._wait(waiter):
            return
        others = self._take()
        try:
            work([item, *(each.item for each in others if each.item is not None)])
        finally:
            for each in others:
                each.wake.release()
            self._pass_on()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have a turn for something else."""
        self._wait(_Waiter(None))
        try:
            yield
        finally:
            self._pass_on()

    def _wait(self, waiter: _Waiter[_Item]) -> bool:
        """Sleep until it is this thread's turn (True), or another has done its item (False)."""
        with self._lock:
            if not self._busy:
                self._busy = True
                return True
            waiter.wake.acquire()
            self._queue.append(waiter)
        try:
            waiter.wake.acquire()
        except BaseException:  # Ctrl-C: whoever comes next must not wait for this thread
            self._withdraw(waiter)
            raise
        return waiter.state == "turn"

    def _take(self) -> list[_Waiter[_Item]]:
        with self._lock:
            taken = [each for each in self._queue if each.item is not None]
            self._queue = deque(each for each in self._queue if each.item is None)
            for each in taken:
                each.state = "taken"
        return taken

    def _pass_on(self) -> None:
        with self._lock:
            if self._queue:
                heir = self._queue.popleft()
                heir.state = "turn"
                heir.wake.release()
            else:
                self._busy = False

    def _withdraw(self, waiter: _Waiter[_Item]) -> None:
        with self._lock:
            if waiter.state == "waiting":
                self._queue.remove(waiter)
        if waiter.state == "turn":
            self._pass_on()
