"""The time budget of a projection: every loop checks it, and what takes longer is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic

from soupmix.errors import PolicyRefusal

__all__ = ["check_time", "time_budget"]

_BUDGET: ContextVar[tuple[float, float] | None] = ContextVar("soupmix_time_budget", default=None)
"""(end on the monotonic clock, seconds that were given)"""


@contextmanager
def time_budget(seconds: float) -> Iterator[None]:
    """Give what is computed inside, in this thread, so many seconds; `check_time` ends it after that."""
    before = _BUDGET.set((monotonic() + seconds, seconds))
    try:
        yield
    finally:
        _BUDGET.reset(before)


def check_time() -> None:
    """Raise PolicyRefusal (reason "too-slow") if the time budget is spent, if there is one."""
    budget = _BUDGET.get()
    if budget is not None and monotonic() > budget[0]:
        raise PolicyRefusal(
            f"the policy could not be applied to these weights within {budget[1]:g} seconds, so nothing is granted; ask for "
            "fewer adapters, or have the policy's combinations and overlapping groups made fewer",
            reason="too-slow",
        )
