"""How much of the queue one tenant may fill, so that the others get their turn."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from soupmix.errors import Overloaded

__all__ = ["Shares"]


class Shares:
    """Answers under way by tenant. Safe to share between threads."""

    def __init__(self, most: int | None) -> None:
        """A tenant has at most `most` answers under way, waiting or running; None is no limit."""
        self._most, self._lock = most, threading.Lock()
        self._held: Counter[str] = Counter()

    @contextmanager
    def held(self, tenant: str, count: int) -> Iterator[None]:
        """Hold a share while answers are made.

        Raises:
            Overloaded: the tenant has too many under way already (reason "share-full").
        """
        with self._lock:
            if self._most is not None and self._held[tenant] + count > self._most:
                raise Overloaded(
                    f"{self._held[tenant]} answers are being made for you already, and {self._most} is the most at once; "
                    f"ask again when some are done",
                    reason="share-full",
                )
            self._held[tenant] += count
        try:
            yield
        finally:
            with self._lock:
                self._held[tenant] -= count
                if not self._held[tenant]:
                    del self._held[tenant]
