"""A command ends at once, and nothing that has something to do at the end is left out."""

import importlib.metadata
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

BEFORE = """
import atexit, sys, threading, time
import click
from soupmix import cli

class Kept:
    def __del__(self):
        print("taken apart")

kept = Kept()
atexit.register(print, "registered")
threading.Thread(target=lambda: (time.sleep(0.3), print("thread"))).start()
"""
WORK = {
    "returns": ("pass", 0),
    "refuses": ("raise soupmix.errors.SoupmixError('no')", 1),
    "wrong words": ("raise click.UsageError('no')", 2),
    "interrupted": ("raise KeyboardInterrupt", 130),
    "exits with a sentence": ("sys.exit('no')", 1),
    "fails": ("raise RuntimeError('no')", 1),
}


def program(work: str, function: str) -> "subprocess.CompletedProcess[str]":
    """A process whose command does `work`, by `cli.main` or `cli.run`."""
    command = f"import soupmix.errors\ndef work(**_):\n    print('said')\n    {work}\n"
    code = f"{textwrap.dedent(BEFORE)}\n{command}\ncli.cli.main = work\ncli.{function}()\n"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("how", WORK)
def test_all_is_said_and_done_with_the_same_exit_code(how: str) -> None:
    work, code = WORK[how]
    done, whole = program(work, "run"), program(work, "main")
    assert (done.returncode, whole.returncode) == (code, code), done.stderr
    assert done.stdout.startswith("said\nthread\nregistered\n")
    assert whole.stdout.startswith(done.stdout)
    assert done.stderr.count("Traceback") == whole.stderr.count("Traceback")


@pytest.mark.parametrize("how", ["returns", "refuses", "interrupted"])
def test_the_interpreter_is_not_taken_apart(how: str) -> None:
    assert "taken apart" in program(WORK[how][0], "main").stdout
    assert "taken apart" not in program(WORK[how][0], "run").stdout


def test_words_that_nobody_reads_are_an_error_as_ever() -> None:
    code = "import click; from soupmix import cli; cli.cli.main = lambda **_: print('x'); cli.{}()"
    ends = []
    for function in ("main", "run"):
        with Path("/dev/full").open("w") as full:
            given = [sys.executable, "-c", code.format(function)]
            done = subprocess.run(given, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        ends.append((done.returncode, done.stderr))
    assert ends[0] == ends[1]
    assert (ends[0][0] != 0, "No space left" in ends[0][1]) == (True, True)


def test_the_installed_command_leaves_so() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="soupmix")
    assert script.value == "soupmix.cli:run"
