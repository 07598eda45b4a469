"""The soaks of `make soak`, in a short version."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def _run(script: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, HERE / script, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"GOMP_SPINCOUNT": "0"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


def test_three_thousand_mutated_adapters() -> None:
    said = _run("fuzz_adapters.py", "3000", "--batch", "1000")
    assert said["wrong"] == []
    assert said["accepted"] + sum(said["refused"].values()) == 3000
    assert said["accepted"] > 50
    assert len(said["refused"]) >= 12  # mutants that all fail at the first check would show nothing
    assert said["megabytes_above_start"] < 256
    assert said["slowest_cpu_seconds"] < 1


def test_a_dozen_kills() -> None:
    for ends in _run("kills_merge.py", "12").values():
        assert ends["whole"] == 6
        assert "torn" not in ends
        assert ends.get("killed at work", 0) >= 1
