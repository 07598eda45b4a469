"""Whose turn it is to compute what a person wants: each computation keeps a processor busy for some tenths of a second.

What one person asks for comes one after the other; of a tenant two are computed at once, whoever else is busy; and few wait.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from soupmix.errors import Overloaded

__all__ = ["MOST_OF_ALL", "MOST_OF_ONE", "PersonQueues"]

MOST_OF_ONE: Final = 8
"""Computations of one tenant that run and wait."""

MOST_OF_ALL: Final = 24
"""Computations of all tenants: each holds a thread from other requests."""

_AT_ONCE, _PATIENCE = 2, 10.0


@dataclass(slots=True)
class _Queue:
    """Of a tenant or of a person: how many are here, and who may compute."""

    gate: threading.Semaphore
    here: int = 0


@dataclass(frozen=True, slots=True)
class PersonQueues:
    """Queues by tenant and by person, which exist while somebody is in them. Safe to share between threads."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _queues: dict[tuple[str, ...], _Queue] = field(default_factory=dict)

    @contextmanager
    def turn(self, tenant: str, profile: str) -> Iterator[None]:
        """Wait for the turn of a person of a tenant, for ten seconds at most.

        Raises:
            Overloaded: too many of this tenant or of all are here already, or none of them ended in time (reason "queue-full").
        """
        keys: tuple[tuple[str, ...], ...] = ((tenant, profile), (tenant,))
        queues = self._entered(keys)
        passed: list[_Queue] = []
        try:
            until = time.monotonic() + _PATIENCE
            for queue in queues:  # the person's first: whoever waits for himself holds no place of the tenant
                if not queue.gate.acquire(timeout=max(until - time.monotonic(), 0.0)):
                    raise _full()
                passed.append(queue)
            yield
        finally:
            for queue in passed:
                queue.gate.release()
            self._left(keys)

    def _entered(self, keys: tuple[tuple[str, ...], ...]) -> list[_Queue]:
        with self._lock:
            own = self._queues.get(keys[-1])
            everybody = sum(queue.here for key, queue in self._queues.items() if len(key) == 1)
            if everybody >= MOST_OF_ALL or (own is not None and own.here >= MOST_OF_ONE):
                raise _full()
            for key in keys:
                gate = threading.Semaphore(_AT_ONCE if len(key) == 1 else 1)
                self._queues.setdefault(key, _Queue(gate)).here += 1
            return [self._queues[key] for key in keys]

    def _left(self, keys: tuple[tuple[str, ...], ...]) -> None:
        with self._lock:
            for key in keys:
                self._queues[key].here -= 1
                if not self._queues[key].here:
                    del self._queues[key]


def _full() -> Overloaded:
    return Overloaded("too many weights are inferred at once; ask again", reason="queue-full")
