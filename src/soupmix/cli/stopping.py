"""SIGTERM is a Ctrl-C that ends with another code, so that what cleans up after the one cleans up after the other."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Terminated", "exit_code", "terminable"]


class Terminated(KeyboardInterrupt):
    """Somebody sent SIGTERM."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` on the first SIGTERM; a second one does not wait. Where it is handled otherwise, it stays so."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def exit_code(stop: BaseException | None) -> int:
    """What a shell expects of a program that was stopped so: 128 and the number of the signal."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated
