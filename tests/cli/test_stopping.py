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
ENDS_SOON = "try: stop()\nexcept BaseException: pass"
EXITS = "try: stop()\nexcept BaseException: sys.exit(1)"
# while cleaning up, errors come that are older than the stop, or go round in circles
CLEANING = """
try:
    stop()
finally:
    try:
        raise ValueError from KeyError("older")
    except ValueError as error:
        error.__context__.__context__ = error
        time.sleep(0.7)
    print("all of it", flush=True)
"""
PLAIN = "stop()\ntime.sleep(30)"


def program(body: str, number: int) -> str:
    return f"""
import ctypes, os, signal, sys, time
import click
import soupmix.cli, soupmix.errors

def stop():
    os.kill(os.getpid(), {number})
    time.sleep(0)

def work():
    try:
{textwrap.indent(body, " " * 8)}
    finally:
        time.sleep(0.7 if sys.exception() else 0)  # twice as long as the alarm waits
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
    "ends soon": ENDS_SOON,
    "exits": EXITS,
}
CASES = [
    *((name, signal.SIGINT, 130) for name in BODIES),
    *((name, signal.SIGTERM, 143) for name in ("plain", "callback", "another error")),
]


@pytest.mark.parametrize(("body", "number", "code"), CASES)
def test_a_stop_is_obeyed_wherever_it_arrives(body: str, number: int, code: int) -> None:
    done = run(BODIES[body], number)
    assert done.returncode == code, done.stderr
    assert done.stdout == "cleaned up\n"
    assert done.stderr == "soupmix: interrupted; nothing was left half-written\n"


def run(body: str, number: int = signal.SIGINT, before: str = "") -> "subprocess.CompletedProcess[str]":
    code = [sys.executable, "-c", before + program(body, number)]
    return subprocess.run(code, capture_output=True, text=True, timeout=25, check=False)


def test_cleaning_up_is_left_in_peace() -> None:
    done = run(CLEANING)
    assert (done.returncode, done.stdout) == (130, "all of it\ncleaned up\n"), done.stderr


def test_what_went_wrong_in_cleaning_up_is_told() -> None:
    done = run("try: stop()\nfinally: raise soupmix.errors.OutputError('/x/partial is left behind')")
    assert (done.returncode, done.stderr) == (130, "soupmix: interrupted; /x/partial is left behind\n")


def test_the_first_stop_says_how_it_ended() -> None:
    done = run("try: stop()\nfinally: os.kill(os.getpid(), signal.SIGINT); time.sleep(0)", signal.SIGTERM)
    assert done.returncode == 143, done.stderr


def test_an_alarm_of_somebody_else_is_not_touched() -> None:
    done = run("time.sleep(20)", before="import signal; signal.alarm(1)\n")
    assert done.returncode == -signal.SIGALRM
    mine = "import signal; signal.signal(signal.SIGALRM, lambda *_: print('rang', flush=True)); signal.alarm(1)\n"
    done = run("try: stop()\nexcept BaseException: time.sleep(1.5)", before=mine)
    assert (done.returncode, done.stdout) == (130, "rang\ncleaned up\n"), done.stderr


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    done = run("stop()", before="import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "cleaned up\n", "")


def test_other_errors_of_callbacks_are_still_told() -> None:
    body = "def bad(): raise ValueError('told')\nctypes.CFUNCTYPE(None)(bad)()"
    done = run(body)
    assert done.returncode == 0
    assert "ValueError: told" in done.stderr
