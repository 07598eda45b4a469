"""The three standard streams: all of them open, before anything else is.

A program that is started without one (`<&-`, `>&-`, `2>&-`, some service managers) gets its number for the next file that it
opens, and whatever a library prints then goes into that file. What has nowhere to go is not printed by click, without an error.
"""

import os
import sys

from soupmix.errors import OutputError

__all__ = ["hold"]

_NUMBERS = {"stdin": 0, "stdout": 1, "stderr": 2}


def hold() -> None:
    """Put the null device where a standard stream is closed, so that no file takes its number.

    Raises:
        OutputError: standard output is closed (reason "closed"): what was asked for could not be handed over.
    """
    closed = [name for name in _NUMBERS if getattr(sys, name) is None]
    for name in closed:
        _put_null(_NUMBERS[name])
        opened = open(_NUMBERS[name], "r" if name == "stdin" else "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        setattr(sys, name, opened)
    if "stdout" in closed:
        raise OutputError(
            "standard output is closed, and what a command finds goes there: leave it open, or send it to a file or /dev/null",
            reason="closed",
        )


def _put_null(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)
