"""A real `soupmix train` that is stopped while it samples: nobody of it is left, it says so, and it goes on later."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest

from soupmix.base import Base
from soupmix.files import sha256_file
from soupmix.locks import lock
from tests.support.process_groups import alive, group, wait_for

COMMAND = (sys.executable, "-c", "from soupmix.cli import run; run()", "train")


@contextmanager
def training(base: Base, out: Path) -> Iterator["Popen[str]"]:
    """A run that has two workers at their samples."""
    with group([*COMMAND, out, "--base", base.folder, "--jobs", 2, "--no-measure"]) as run:
        assert wait_for(lambda: len(list(out.glob("work/*/*.jsonl"))) >= 2, 120), run.communicate()
        assert len(alive(run.pid)) >= 3
        yield run


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)], ids=["INT", "TERM", "KILL"]
)
def test_a_stopped_run_leaves_nobody(tiny_base: Base, tmp_path: Path, number: signal.Signals, code: int) -> None:
    with training(tiny_base, tmp_path / "out") as run:
        run.send_signal(number)
        assert wait_for(lambda: not working(run.pid), 2), alive(run.pid)
        assert wait_for(lambda: not alive(run.pid), 30), alive(run.pid)
        _, said = run.communicate()
        assert run.returncode == code
        if number is not signal.SIGKILL:
            assert said.strip().splitlines()[-1] == "soupmix: interrupted; nothing was left half-written"
            assert "Traceback" not in said
            assert [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".soupmix")] == []


def test_two_runs_into_one_folder_are_not_at_work_at_once(tiny_base: Base, tmp_path: Path) -> None:
    """The second is refused before it makes anything; a run that was killed holds nothing."""
    out = tmp_path / "out"
    with training(tiny_base, out) as run:
        second = [*COMMAND, out, "--base", tiny_base.folder, "--jobs", "1", "--no-measure"]
        refused = subprocess.run(second, capture_output=True, text=True)
        assert refused.returncode == 1
        assert refused.stderr.splitlines()[-1] == (
            f"soupmix: another `soupmix train` is at work in {out}; wait until it has ended, or give another folder"
        )
        assert run.poll() is None
        run.kill()
        assert wait_for(lambda: not alive(run.pid), 30), alive(run.pid)
    handle = os.open(out, os.O_RDONLY)
    assert lock(handle, wait=False)
    os.close(handle)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["INT", "KILL"])
def test_a_run_that_is_stopped_while_it_fits_goes_on_as_if_nothing_had_been(
    tiny_base: Base, tmp_path: Path, number: signal.Signals
) -> None:
    pairs = tmp_path / "letters.jsonl"
    row = {"chosen": "aaaa bbbb", "rejected": "zzzz yyyy"}
    pairs.write_text("".join(json.dumps({"prompt": f"number {n}?", **row}) + "\n" for n in range(64)))
    given = ["--base", tiny_base.folder, "--pairs", pairs, "--dimension", "letters", "--pole", "a", "--no-measure"]

    def train(out: Path) -> dict[str, str]:
        subprocess.run([*COMMAND, out, *map(str, given), "--epochs", "20"], check=True, capture_output=True)
        return {path.name: sha256_file(path) for path in (out / "a").iterdir()}

    whole = train(tmp_path / "whole")
    out = tmp_path / "stopped"
    with group([*COMMAND, out, *given, "--epochs", 20]) as run:
        assert wait_for(lambda: [path for path in out.glob(".soupmix*") if any(path.iterdir())], 120), run.communicate()
        run.send_signal(number)
        assert wait_for(lambda: not working(run.pid), 2), alive(run.pid)
    assert not (out / "a").exists()
    assert train(out) == whole
    assert [path for path in out.rglob("*") if path.name.startswith(".soupmix")] == []


def test_a_worker_that_is_killed_is_one_sentence(tiny_base: Base, tmp_path: Path) -> None:
    with training(tiny_base, tmp_path / "out") as run:
        (worker, *_) = children(run.pid)
        os.kill(worker, signal.SIGKILL)
        assert wait_for(lambda: not working(run.pid), 2), alive(run.pid)
        assert wait_for(lambda: not alive(run.pid), 30), alive(run.pid)
        _, said = run.communicate()
        assert run.returncode == 1
        assert said.strip().splitlines()[-1].startswith("soupmix: a worker process was ended from outside")
        assert "Traceback" not in said


def working(leader: int) -> list[str]:
    """Workers of a run that are alive."""
    return [each for each in alive(leader) if "spawn_main" in each]


def children(parent: int) -> list[int]:
    """Spawned workers of a process, not its resource tracker."""
    numbers = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(each) for each in numbers if "spawn_main" in Path(f"/proc/{each}/cmdline").read_text()]
