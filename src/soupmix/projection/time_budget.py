"""The time budget of a projection: every loop checks it, and what takes longer is refused.

What counts is the time that the thread was computing: a busy machine, on which it waits for its turn, refuses nothing for it.
Four times as long by the clock is the end all the same, so that threads that take turns do not hold on for ever.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic, thread_time
from typing import NamedTuple

from soupmix.errors import PolicyRefusal

__all__ = ["check_time", "time_budget"]

_PATIENCE = 4


class _Budget(NamedTuple):
    end: float  # on the clock of this thread's processor time
    earliest: float  # on the monotonic clock, which is cheaper to read: before it the budget cannot be spent
    latest: float  # on the monotonic clock
    seconds: float


_BUDGET: ContextVar[_Budget | None] = ContextVar("soupmix_time_budget", default=None)


@contextmanager
def time_budget(seconds: float) -> Iterator[None]:
    """Give what is computed inside, in this thread, so many seconds of processor time; `check_time` ends it after that.

    Inside another budget it gives no more than is left of that one.
    """
    now = monotonic()
    budget, around = _Budget(thread_time() + seconds, now + seconds, now + _PATIENCE * seconds, seconds), _BUDGET.get()
    before = _BUDGET.set(budget if around is None or budget.end <= around.end else around)
    try:
        yield
    finally:
        _BUDGET.reset(before)


def check_time() -> None:
    """Raise PolicyRefusal (reason "too-slow") if the time budget is spent, if there is one."""
    budget = _BUDGET.get()
    if budget is None or (now := monotonic()) <= budget.earliest:
        return
    if thread_time() > budget.end or now > budget.latest:
        raise PolicyRefusal(
            f"the policy could not be applied to these weights within {budget.seconds:g} seconds, so nothing is granted; ask "
            "for fewer adapters, or have the policy's combinations and overlapping groups made fewer",
            reason="too-slow",
        )
