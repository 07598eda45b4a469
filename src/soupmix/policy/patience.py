"""How long a clamp may take: whoever computes looks at the clock in every loop, and a clamp that takes too long is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic

from soupmix.errors import PolicyRefusal

__all__ = ["check_time", "within"]

_UNTIL: ContextVar[tuple[float, float] | None] = ContextVar("soupmix_clamp_until", default=None)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Allow so many seconds for what is computed inside, in this thread; `check_time` counts them."""
    before = _UNTIL.set((monotonic() + seconds, seconds))
    try:
        yield
    finally:
        _UNTIL.reset(before)


def check_time() -> None:
    """Raise PolicyRefusal (reason "too-slow") if the time that is allowed is over."""
    until = _UNTIL.get()
    if until is not None and monotonic() > until[0]:
        raise PolicyRefusal(
            f"the policy could not be applied to these weights within {until[1]:g} seconds, so nothing is granted; ask for "
            "fewer adapters, or have the policy's combinations and overlapping groups made fewer",
            reason="too-slow",
        )
