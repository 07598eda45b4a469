"""A little of `make soak`: the same script, fifteen kills."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "soak" / "kills_audit.py"


def test_nothing_acknowledged_is_lost_when_the_writer_is_killed() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "15", "--seed", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == 15
    assert found["acknowledged"] > 50
    assert (found["lost"], found["torn"], found["not forgotten"], found["failed children"]) == (0, 0, 0, 0)
