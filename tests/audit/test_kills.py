"""A little of `make soak`: the same program, fifteen kills."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_nothing_acknowledged_is_lost_when_the_writer_is_killed() -> None:
    command = [sys.executable, "-m", "tests.soak.kills_audit", "15", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == 15
    assert found["acknowledged"] > 50
    assert (found["lost"], found["torn"], found["not forgotten"], found["failed children"]) == (0, 0, 0, 0)
