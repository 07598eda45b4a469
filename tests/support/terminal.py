"""A command in a terminal of its own: keys are typed, and what is shown is read, as somebody at a keyboard has it."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["CTRL_C", "CTRL_D", "LEFT", "UP", "Terminal"]

UP, LEFT, CTRL_C, CTRL_D = "\x1b[A", "\x1b[D", "\x03", "\x04"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r|\x07")


class Terminal:
    """`soupmix ARGUMENTS` in a terminal of 100 by 40.

    Attributes:
        shown: all that was written so far, without the codes that colour it and move the cursor.
    """

    def __init__(self, arguments: Sequence[str | Path], environment: dict[str, str] | None = None) -> None:
        self._here, there = pty.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from soupmix.cli import main; main()", *map(str, arguments)],
            stdin=there, stdout=there, stderr=there,
            env=os.environ | {"TERM": "xterm", "INPUTRC": "/dev/null"} | (environment or {}),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
        )  # fmt: skip
        os.close(there)
        self.shown = ""
        self._read_until = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._here)

    def type(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._here, keys.encode())

    def wait(self, pattern: str, seconds: float = 120.0) -> str:
        """Read until something matches behind what matched last; what was shown up to it."""
        end = time.monotonic() + seconds
        while (found := re.compile(pattern).search(self.shown, self._read_until)) is None:
            if not self._more(end):
                raise AssertionError(f"{pattern!r} was not shown; shown was: {self.shown[self._read_until :]!r}")
        before, self._read_until = self.shown[self._read_until : found.end()], found.end()
        return before

    def end(self, seconds: float = 60.0) -> int:
        """Read to the end; the exit code."""
        end = time.monotonic() + seconds
        while self._more(end):
            pass
        return self._process.wait(max(0.1, end - time.monotonic()))

    def _more(self, end: float) -> bool:
        if not select.select([self._here], [], [], max(0.0, end - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self._here, 65536)
        except OSError:  # the other side is closed
            return False
        self.shown += _ESCAPES.sub("", data.decode("utf-8", "replace"))
        return bool(data)
