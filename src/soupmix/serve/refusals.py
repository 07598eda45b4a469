"""How many refusals a key has written down one by one: what comes faster is counted, and the count is on record."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from soupmix.audit import Record

__all__ = ["Refusals"]

_WINDOW: Final = 60.0


@dataclass(slots=True)
class _Window:
    """A minute of one key: refusals that were written, and those that were counted, by what their record will say."""

    since: float
    written: int = 0
    counted: Counter[tuple[str | None, str | None, bool, bool]] = field(default_factory=Counter)


class Refusals:
    """Writes refusals to an audit log. Safe to share between threads."""

    def __init__(
        self, append: Callable[[Record], object], most: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Of one key at most `most` are written in a minute; all others of it are one record for each reason."""
        self._append, self._most, self._clock = append, most, clock
        self._lock = threading.Lock()
        self._windows: dict[str, _Window] = {}

    def record(self, key: str, record: Record) -> None:
        """Write a refusal, or count it. Raises as `AuditLog.append` does."""
        self.flush()
        with self._lock:
            window = self._windows.setdefault(key, _Window(self._clock()))
            window.written += 1
            if window.written > self._most:
                window.counted[record.reason, record.policy, record.is_open, record.is_signed] += 1
                return
        self._append(record)

    def flush(self, *, everything: bool = False) -> None:
        """Write the counts of minutes that are over, or all of them. Raises as `AuditLog.append` does; no count is lost."""
        with self._lock:
            now = self._clock()
            over = [key for key, each in self._windows.items() if everything or now - each.since >= _WINDOW]
            for key in over:
                counted = self._windows[key].counted
                while counted:
                    kind, count = next(iter(counted.items()))
                    self._append(_summary(*kind, count))
                    del counted[kind]
                del self._windows[key]


def _summary(reason: str | None, policy: str | None, is_open: bool, is_signed: bool, count: int) -> Record:
    return Record("refusal", policy=policy, is_open=is_open, is_signed=is_signed, reason=reason, repeated=count)
