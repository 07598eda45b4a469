"""A little of `make soak`: the same script, a handful of kills."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "soak" / "kills_batch.py"


@pytest.mark.parametrize("kills", [4, pytest.param(150, marks=pytest.mark.slow)])
def test_a_killed_batch_ends_as_if_nothing_had_happened(kills: int) -> None:
    done = subprocess.run([sys.executable, SCRIPT, str(kills)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] >= kills
    assert found["whole so far"] == found["kills"]
    assert found["batches"] >= 1
    assert (found["torn"], found["wrong"], found["left over"], found["other bytes"]) == (0, 0, 0, 0)
