"""The soaks of `make soak`, in a short version."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def _run(program: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"tests.soak.{program}", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | {"GOMP_SPINCOUNT": "0"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


def test_three_thousand_mutated_adapters() -> None:
    said = _run("fuzz_adapters", "3000", "--batch", "1000")
    assert said["wrong"] == []
    assert said["accepted"] + sum(said["refused"].values()) == 3000
    assert said["accepted"] > 50
    assert len(said["refused"]) >= 12  # mutants that all fail at the first check would show nothing
    assert said["megabytes_above_start"] < 256
    assert said["slowest_cpu_seconds"] < 1


def test_some_kills() -> None:
    for ends in _run("kills_merge", "60").values():
        assert ends["whole"] == 30
        assert "torn" not in ends
        assert ends.get("killed at work", 0) >= 1
