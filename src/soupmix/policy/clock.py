"""The time that policies are judged by: read once for a load, asked again at every clamp, and never going back."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Self

__all__ = ["Clock", "Reading", "When"]


class Clock:
    """A time (UTC) that does not go back, even if the clock that it asks does. Safe to share between threads.

    It never tells less than the latest time it told plus the seconds that have passed since. So setting a machine's clock back
    neither revives what has ended nor lets anything last longer.

    Args:
        tells: the time. passed: seconds from any beginning, which nobody can set.
    """

    def __init__(self, tells: Callable[[], datetime], passed: Callable[[], float] = time.monotonic) -> None:
        self._tells, self._passed = tells, passed
        self._latest: tuple[datetime, float] | None = None
        self._lock = Lock()

    def __call__(self) -> datetime:
        """The time now."""
        with self._lock:
            told, at = self._tells().astimezone(UTC), self._passed()
            if self._latest is not None:
                latest, since = self._latest
                least = latest + timedelta(seconds=at - since)
                if told <= least:
                    return least
            self._latest = told, at
            return told


_MACHINE = Clock(lambda: datetime.now(UTC))
"""One for the whole process: what has ended by it has ended for a policy that is loaded again, too."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of a clock: whatever is loaded together is judged at the same instant.

    Attributes:
        at: the instant. clock: what is asked from then on.
    """

    at: datetime
    clock: Clock

    @classmethod
    def of(cls, now: "When") -> Self:
        """Read the clock that `now` means, once; see `When`."""
        match now:
            case Reading(at, clock):
                return cls(at, clock)
            case None:
                clock = _MACHINE
            case datetime():
                clock = Clock(lambda: now)
            case _:
                clock = Clock(now, passed=lambda: 0.0)
        return cls(clock(), clock)


When = datetime | Callable[[], datetime] | Reading | None
"""Whose time counts.

None: the machine's. A function: it is asked every time; one that always returns the same time stands still, for tests and to
judge what was merged in the past. A datetime: it is the time now, and goes on from there by the seconds of this process; it does
not stand still, so that nobody makes a policy endless by naming the present."""
