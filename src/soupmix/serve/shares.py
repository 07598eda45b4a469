"""How much one tenant may hold, so that the others get their turn: answers under way, and bytes of bodies."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from soupmix.errors import Overloaded

__all__ = ["Bodies", "BodyShare", "Shares"]


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


class Bodies:
    """Bytes of bodies by tenant, one budget for all that are being read or understood. Used in one event loop."""

    def __init__(self, most: int) -> None:
        """All of them together are at most `most` bytes, and those of one tenant half as many."""
        self._most = most
        self._of: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """Bytes that are held now."""
        return self._of.total()

    @contextmanager
    def share(self, tenant: str) -> Iterator["BodyShare"]:
        """What one request of a tenant holds; given back at the end, if not before."""
        share = BodyShare(self, tenant)
        try:
            yield share
        finally:
            share.give_back()

    def _take(self, tenant: str, size: int) -> None:
        if self.held + size > self._most or self._of[tenant] + size > self._most // 2:
            raise Overloaded(
                "too many bytes of requests are being read at this moment; send this one again",
                reason="bodies-full",
            )
        self._of[tenant] += size

    def _give_back(self, tenant: str, size: int) -> None:
        self._of[tenant] -= size
        if not self._of[tenant]:
            del self._of[tenant]


class BodyShare:
    """What one request holds of a budget."""

    def __init__(self, bodies: Bodies, tenant: str) -> None:
        self._bodies, self._tenant, self._size = bodies, tenant, 0

    def take(self, size: int) -> None:
        """Hold so many more bytes. Raises `Overloaded`: there is no room for them (reason "bodies-full")."""
        self._bodies._take(self._tenant, size)
        self._size += size

    def give_back(self) -> None:
        """Hold none of them any more. Any number of times."""
        self._bodies._give_back(self._tenant, self._size)
        self._size = 0
