"""A stop that cannot get lost: Ctrl-C and SIGTERM raise an exception, and raise it again where somebody swallowed it.

Python raises a KeyboardInterrupt wherever the program happens to be. Inside a callback of a C library nobody can pass it
on, so Python prints it and goes on; an `except` around an import may make another error of it. Neither may turn a stop
into a command that runs to its end and says that all is well. What handles an error that was made of a stop is waited for,
since it cannot be told from cleaning up.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = ["Terminated", "exit_code", "stoppable"]

# seconds after which a stop that nobody is acting on is raised again
_REPEAT = 0.3
_CODES = (128 + signal.SIGINT, 128 + signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """Somebody sent SIGTERM."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGINT and `Terminated` on SIGTERM, whatever becomes of the exception on its way.

    A second SIGTERM does not wait. A signal that is ignored or handled otherwise stays so; the alarm of the process is used
    only after a stop, and only if nobody else does.

    Raises:
        KeyboardInterrupt: a stop was asked for; also in place of an error or an exit that followed it, which is its cause.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stop = _Stop()
    stop.begin()
    try:
        yield
    except Exception as error:
        if stop.asked is None:
            raise
        raise stop.asked from error
    except SystemExit as end:
        if stop.asked is None or end.code in _CODES:
            raise
        raise stop.asked from end
    else:
        if stop.asked is not None:
            raise stop.asked
    finally:
        stop.end()


def exit_code(stop: BaseException) -> int:
    """What a shell expects of a program that was stopped so: 128 and the number of the signal."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


class _Stop:
    """What was asked for, and the alarm that reminds of it."""

    def __init__(self) -> None:
        self.asked: type[KeyboardInterrupt] | None = None
        self._before: dict[int, Any] = {}
        self._unraisable = sys.unraisablehook
        self._over = False

    def begin(self) -> None:
        self._handle(signal.SIGINT, signal.default_int_handler, lambda *_: self._ask(KeyboardInterrupt))
        self._handle(signal.SIGTERM, signal.SIG_DFL, self._terminate)
        sys.unraisablehook = self._tell

    def end(self) -> None:
        self._over = True
        if signal.SIGALRM in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, before in self._before.items():
            signal.signal(number, before)
        sys.unraisablehook = self._unraisable

    def _handle(self, number: int, default: object, handler: Callable[[int, FrameType | None], object]) -> bool:
        """Handle a signal that nobody has a handler for."""
        if (before := signal.getsignal(number)) is not default:
            return False
        self._before[number] = before
        signal.signal(number, handler)
        return True

    def _terminate(self, _signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._ask(Terminated)

    def _ask(self, kind: type[KeyboardInterrupt]) -> None:
        first, self.asked = self.asked is None, self.asked or kind
        unused = signal.getitimer(signal.ITIMER_REAL) == (0, 0)
        if first and unused and self._handle(signal.SIGALRM, signal.SIG_DFL, self._repeat):
            signal.setitimer(signal.ITIMER_REAL, _REPEAT, _REPEAT)
        raise self.asked

    def _repeat(self, _signal: int, _frame: FrameType | None) -> None:
        if self.asked is not None and not self._over and not _is_handled(sys.exception()):
            raise self.asked

    def _tell(self, what: "UnraisableHookArgs") -> None:
        """As before, without a traceback for a stop: it is raised again, and told then."""
        if self.asked is None or not issubclass(what.exc_type, KeyboardInterrupt):
            self._unraisable(what)


def _is_handled(error: BaseException | None) -> bool:
    """Whether somebody is cleaning up after a stop at this moment: to raise it there again would break that."""
    seen: set[int] = set()
    chain = [error]
    while chain:
        each = chain.pop()
        if isinstance(each, KeyboardInterrupt):
            return True
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            chain += [each.__cause__, each.__context__]
    return False
