"""A little of `make soak`: the same program, two kills."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kills", [2, pytest.param(150, marks=pytest.mark.slow)])
def test_a_killed_batch_ends_as_if_nothing_had_happened(kills: int) -> None:
    command = [sys.executable, "-m", "tests.soak.kills_batch", str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] >= kills
    assert found["whole so far"] == found["kills"]
    assert found["batches"] >= 1
    assert (found["torn"], found["wrong"], found["left over"], found["other bytes"]) == (0, 0, 0, 0)
