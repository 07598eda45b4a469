"""A stop that cannot get lost: Ctrl-C and SIGTERM raise an exception, and raise it again where somebody swallowed it.

Python raises a KeyboardInterrupt wherever the program happens to be. Inside a callback of a C library nobody can pass it
on, so Python prints it and goes on; an `except` around an import may make another error of it. Neither may turn a stop
into a command that runs to its end.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = ["Terminated", "exit_code", "stoppable"]

# seconds after which a stop that nobody is acting on is raised again
_REPEAT = 0.3


class Terminated(KeyboardInterrupt):
    """Somebody sent SIGTERM."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGINT and `Terminated` on SIGTERM, whatever becomes of the exception on its way.

    A second SIGTERM does not wait. A signal that is ignored or handled otherwise stays so.

    Raises:
        KeyboardInterrupt: a stop was asked for; also in place of any error that was raised after it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stop = _Stop()
    handlers = {
        signal.SIGINT: (signal.default_int_handler, stop.interrupt),
        signal.SIGTERM: (signal.SIG_DFL, stop.terminate),
        signal.SIGALRM: (signal.SIG_DFL, stop.repeat),
    }
    ours = {number: before for number, (before, _) in handlers.items() if signal.getsignal(number) is before}
    unraisable, sys.unraisablehook = sys.unraisablehook, _quiet(sys.unraisablehook)
    for number in ours:
        signal.signal(number, handlers[number][1])
    try:
        yield
    except Exception as error:
        if stop.asked is None:
            raise
        raise stop.asked from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, before in ours.items():
            signal.signal(number, before)
        sys.unraisablehook = unraisable


def exit_code(stop: BaseException) -> int:
    """What a shell expects of a program that was stopped so: 128 and the number of the signal."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


class _Stop:
    """What was asked for, and the alarm that reminds of it."""

    def __init__(self) -> None:
        self.asked: type[KeyboardInterrupt] | None = None

    def interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        self._ask(KeyboardInterrupt)

    def terminate(self, _signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._ask(Terminated)

    def repeat(self, _signal: int, _frame: FrameType | None) -> None:
        if self.asked is not None and not _is_handled():
            raise self.asked

    def _ask(self, kind: type[KeyboardInterrupt]) -> None:
        self.asked = kind
        signal.setitimer(signal.ITIMER_REAL, _REPEAT, _REPEAT)
        raise kind


def _is_handled() -> bool:
    """Whether somebody is cleaning up after a stop at this moment: to raise it there again would break that."""
    error = sys.exception()
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _quiet(hook: Callable[["UnraisableHookArgs"], object]) -> Callable[["UnraisableHookArgs"], object]:
    """The same without a traceback for a stop: it is raised again, and told then."""

    def tell(what: "UnraisableHookArgs") -> None:
        if not issubclass(what.exc_type, KeyboardInterrupt):
            hook(what)

    return tell
