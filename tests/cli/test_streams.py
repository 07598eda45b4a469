"""A standard stream that is closed, full, or read by nobody: never an exit code of 0 for what did not arrive."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from soupmix.store import Store

SOUPMIX = f"{sys.executable} -c 'from soupmix.cli import run; run()'"
SAYS = "standard output is closed, and what a command finds goes there"


def shell(line: str, store: Store, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run a line in a shell, in which $S is soupmix."""
    environment = {**os.environ, "SOUPMIX_STORE": str(store.folder), **more}
    whole = f'S() {{ {SOUPMIX} "$@"; }}\n{line}'
    return subprocess.run(["bash", "-c", whole], capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("words", ["clamp -w calm=0.5", "--help", "--version", "adapters list --json", "clamp"])
def test_a_closed_output_is_told_before_anything_is_done(pico_store: Store, words: str) -> None:
    done = shell(f"S {words} >&-", pico_store)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"soupmix: {SAYS}")
    assert len(done.stderr.splitlines()) == 1


def test_nothing_is_written_without_an_output(pico_store: Store, tmp_path: Path) -> None:
    assert shell(f"S merge -w calm=0.5 {tmp_path}/out >&-", pico_store).returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(pico_store: Store) -> None:
    done = shell("S clamp -w calm=0.5 --json >/dev/full", pico_store)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "soupmix: the system refuses: No space left on device"


def test_a_reader_that_left_is_no_traceback(pico_store: Store) -> None:
    done = shell("set -o pipefail; S clamp -w calm=0.5 --json | true", pico_store)
    assert done.returncode in (0, 1)  # 0: the pipe took it before the reader left
    assert "Traceback" not in done.stderr


def test_a_closed_input_is_an_empty_one(pico_store: Store) -> None:
    done = shell("S chat <&-", pico_store)
    assert (done.returncode, "standard input is empty" in done.stderr) == (2, True), done.stderr
    assert shell("S clamp -w calm=0.5 <&-", pico_store).stdout.endswith("calm 0.5\n")


def test_closed_errors_go_nowhere_and_into_no_file(pico_store: Store, tmp_path: Path) -> None:
    """A merge opens many files: what is said while one of them is open does not get into it."""
    quiet = shell(f"S merge -w calm=0.5 {tmp_path}/quiet 2>&-", pico_store)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, f"{tmp_path}/quiet\n", "")
    shell(f"S merge -w calm=0.5 {tmp_path}/told", pico_store)
    for each in (tmp_path / "told").iterdir():
        assert (tmp_path / "quiet" / each.name).read_bytes() == each.read_bytes()
    assert shell("S clamp -w clam=0.5 2>&-", pico_store).returncode == 2
