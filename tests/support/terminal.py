"""A terminal, and somebody at it: a program that is started in one, what it shows, and keys that are pressed."""

import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fcntl import ioctl

__all__ = ["CTRL_A", "CTRL_C", "CTRL_D", "CTRL_P", "Terminal", "terminal"]

CTRL_A, CTRL_C, CTRL_D, CTRL_P = "\x01", "\x03", "\x04", "\x10"
_ESCAPES = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")
_PATIENCE = 300.0  # seconds until something is not shown: only a failure waits so long
_START = (  # the terminal is to be the program's own, so that Ctrl-C reaches it
    "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from soupmix.cli import run; run()"
)


class Terminal:
    """What a program has shown, and its keyboard.

    Attributes:
        shown: all of it, without the codes of colours and cursors. process: the program.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", keys: int) -> None:
        self.process, self.shown, self._keys, self._raw, self._seen = process, "", keys, b"", 0

    def press(self, text: str) -> None:
        """Type; a line ends with `\\r`, as Enter sends it."""
        os.write(self._keys, text.encode())

    def until(self, pattern: str) -> str:
        """Wait for this behind what was waited for before; what was shown up to its end. Fails with all that was shown."""
        begun, end = self._seen, time.monotonic() + _PATIENCE
        while (found := re.compile(pattern).search(self.shown, self._seen)) is None:
            assert time.monotonic() < end, f"{pattern!r} was not shown in {self.shown[begun:]!r}"
            assert self._read(1.0), f"ended before {pattern!r} was shown: {self.shown[begun:]!r}"
        self._seen = found.end()
        return self.shown[begun : self._seen]

    def end(self) -> int:
        """Wait until the program has ended: its exit code."""
        end = time.monotonic() + _PATIENCE
        while self._read(1.0):
            assert time.monotonic() < end, f"it goes on: {self.shown[self._seen :]!r}"
        return self.process.wait(_PATIENCE)

    def _read(self, seconds: float) -> bool:
        """Take what is shown within so many seconds; whether more may come."""
        if not select.select([self._keys], [], [], seconds)[0]:
            return self.process.poll() is None
        try:
            got = os.read(self._keys, 1 << 16)
        except OSError:  # nobody is at the other end
            return False
        self._raw += got
        self.shown = _ESCAPES.sub("", self._raw.decode("utf-8", "replace")).replace("\r\n", "\n")
        return bool(got)


@contextmanager
def terminal(*words: object, **more: str) -> Iterator[Terminal]:
    """soupmix in a terminal of 40 lines of 200 characters, with these variables of the environment besides."""
    keys, screen = pty.openpty()
    ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    environment: Mapping[str, str] = {**os.environ, "TERM": "xterm", "PYTHONUNBUFFERED": "", **more}
    process = subprocess.Popen(
        [sys.executable, "-c", _START, *map(str, words)],
        stdin=screen, stdout=screen, stderr=screen, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(screen)
    try:
        yield Terminal(process, keys)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(keys)
