"""A stop is obeyed wherever it arrives: in a callback, in an import that makes another error of it, during cleaning up."""

import signal
import subprocess
import sys
import textwrap

import pytest

# each is the body of a command; `stop()` sends the signal, and it arrives inside that very call
SWALLOWED = "ctypes.CFUNCTYPE(None)(stop)()\ntime.sleep(30)"
SWALLOWED_BUSY = "ctypes.CFUNCTYPE(None)(stop)()\nwhile True: pass"
SWALLOWED_IN_DEL = "class Gone:\n    def __del__(self): stop()\nGone()\ntime.sleep(30)"
SWALLOWED_BY_ALL = "try: stop()\nexcept BaseException: pass\ntime.sleep(30)"
SWALLOWED_TWICE = f"for _ in range(2):\n    try: stop() or time.sleep(30)\n    except BaseException: pass\n{SWALLOWED}"
ANOTHER_ERROR = "try: stop()\nexcept BaseException: raise ImportError('cannot import name x') from None"
ANOTHER_CLICK_ERROR = "try: stop()\nexcept BaseException: raise click.UsageError('no such option') from None"
PLAIN = "stop()\ntime.sleep(30)"


def program(body: str, number: int) -> str:
    return f"""
import ctypes, os, signal, sys, time
import click
import soupmix.cli

def stop():
    os.kill(os.getpid(), {number})
    time.sleep(0)

def work():
    try:
{textwrap.indent(body, " " * 8)}
    finally:
        time.sleep(0.7)  # twice as long as the alarm waits
        print("cleaned up", flush=True)

soupmix.cli.cli.main = lambda **_: work()
soupmix.cli.main()
"""


BODIES = {
    "plain": PLAIN,
    "callback": SWALLOWED,
    "callback, then busy": SWALLOWED_BUSY,
    "finalizer": SWALLOWED_IN_DEL,
    "except all": SWALLOWED_BY_ALL,
    "several": SWALLOWED_TWICE,
    "another error": ANOTHER_ERROR,
    "another error of the command line": ANOTHER_CLICK_ERROR,
}
CASES = [
    *((name, signal.SIGINT, 130) for name in BODIES),
    *((name, signal.SIGTERM, 143) for name in ("plain", "callback", "another error")),
]


@pytest.mark.parametrize(("body", "number", "code"), CASES)
def test_a_stop_is_obeyed_wherever_it_arrives(body: str, number: int, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program(BODIES[body], number)], capture_output=True, text=True, timeout=25, check=False
    )
    assert done.returncode == code, done.stderr
    assert done.stdout == "cleaned up\n"
    assert done.stderr == "soupmix: interrupted; nothing was left half-written\n"


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    ignored = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + program("stop()", signal.SIGINT)
    done = subprocess.run([sys.executable, "-c", ignored], capture_output=True, text=True, timeout=25, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cleaned up\n", "")


def test_other_errors_of_callbacks_are_still_told() -> None:
    body = "def bad(): raise ValueError('told')\nctypes.CFUNCTYPE(None)(bad)()"
    done = subprocess.run(
        [sys.executable, "-c", program(body, signal.SIGINT)], capture_output=True, text=True, timeout=25, check=False
    )
    assert done.returncode == 0
    assert "ValueError: told" in done.stderr
