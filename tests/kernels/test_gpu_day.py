"""`make gpu-day` as a whole, rehearsed with toy shapes: its processes, its rows, its page, and what happens when one dies."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_day import page
from benchmarks.gpu_day.__main__ import ROOT, Run
from benchmarks.gpu_day.sections import BROKEN, SECTIONS
from soupmix.base import Base
from soupmix.store import Store

THREE = [1e-5, 2e-5, 3e-5]
VERSIONS = {"torch": "2.11.0", "triton": "3.6.0", "python": "3.12.1", "cuda": "13.0"}
STEP = {"model": "1B", "rows": 8, "layers": 16, "held": 16, "weights": int(1.5e9), "launches": 128}
BYTES = {"compulsory": 10**6, "requested": 10**7}
FOUND: list[dict[str, Any]] = [
    {"section": "about", "gpu": "NVIDIA X", "tiny": False, **VERSIONS},
    {"section": "tests", "passed": 200, "skipped": 1},
    {"section": "ceilings", "copy_bytes_per_s": 3e12, "flops_per_s": 7e14},
    {
        "section": "decode",
        **STEP,
        "seconds": {"base": [9e-4, 1e-3, 1.1e-3], "soup delta": [1e-3, 1.2e-3, 1.3e-3]},
        "eager": {"soup delta": [0.1, 0.2, 0.3]},
    },
    {
        "section": "merges",
        "model": "1B",
        "people": 1,
        "seconds": dict.fromkeys(("merge", "addmm", "copy"), THREE),
        **BYTES,
    },
    {
        "section": "launches",
        "model": "1B",
        "group": "q|k|v",
        "kernel": "shrink",
        "rows": 1,
        "seconds": THREE,
        "programs": 4,
        **BYTES,
    },
    {"section": "shapes", "checked": 9, "stopped": "8B down"},
    {"section": "far", "failed": "the last rows of y | are wrong"},
    {"section": "memcheck", "missing": "compute-sanitizer"},
    {"section": "engine", "same_texts": True, "logits_off": 1e-5},
    {"section": "engine", "way": "running", "rows": 64, "tokens": 4096, "seconds": 2.0},
    {"section": "time", "of": "far", "seconds": 12.3},
]


def test_a_page_tells_what_held_what_failed_and_what_did_not_run() -> None:
    told = page.page({"date": "2026-12-24", "rows": FOUND})
    assert "2026-12-24, NVIDIA X; torch 2.11.0, triton 3.6.0, python 3.12.1, cuda 13.0." in told
    assert "| far | elements beyond 2^31 | **1 failed**: the last rows of y / are wrong | 12 |" in told
    assert "not run: the tool is not there" in told
    assert "holds; out of time at 8B down" in told
    assert "| 1B | 8 | 1.000 | 0.50 | 1.200 [1.000, 1.300] | 200.00 | 128 |" in told
    assert "| running | 64 | 2048 |" in told
    assert "| bits |" in told
    assert "| not run | 0 |" in told
    assert "has not run on a GPU" not in told
    widths = {len(line.split("|")) for line in told.split("## Decode steps")[1].splitlines() if line.startswith("|")}
    assert len(widths) == 4  # one for each of the tables below


@pytest.fixture
def started(tmp_path: Path) -> Run:
    return Run(
        argparse.Namespace(out=tmp_path, device="cpu", tiny=True, sections="", budget=60.0, base=None, store=None)
    )


def test_what_kills_its_process_costs_no_other_section(started: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call stands for a child: one dies in `decode`, one is broken by `far`, and the third ends well."""
    calls = []

    def child(name: str, command: list[str], seconds: float, **_: str) -> int | None:
        calls.append(command[3 : command.index("--rows")])
        for each in calls[-1]:
            started.note("began", of=each)
            if each == "decode":
                return -9
            started.note("time", of=each, seconds=0.0)
            if each == "far":
                started.note("far", failed="wrong")
                return BROKEN
        return 0

    monkeypatch.setattr(started, "call", child)
    started.python(["bits", "decode", "merges", "far", "engine"])
    assert calls == [["bits", "decode", "merges", "far", "engine"], ["merges", "far", "engine"], ["engine"]]
    failed = [(row["section"], row["failed"]) for row in started.read() if "failed" in row]
    assert [name for name, _ in failed] == ["decode", "far"]
    assert "its process ended with -9" in failed[0][1]


def test_a_child_that_does_not_end_is_ended_with_its_own(started: Run, tmp_path: Path) -> None:
    sleeper = "import time; time.sleep(60)"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{sleeper}', '{tmp_path}'])"
    assert started.call("stuck", [sys.executable, "-c", program], 2) is None
    for _ in range(100):  # who was killed takes a moment to be gone
        left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, check=False).stdout
        if not left:
            return
        time.sleep(0.1)
    raise AssertionError(left)


def test_a_day_without_time_says_what_it_did_not_do(started: Run) -> None:
    started.end -= 1000
    assert started.all() == 0
    skipped = {row["section"] for row in started.read() if row.get("skipped") == "out of time"}
    assert skipped == set(SECTIONS)


@pytest.mark.slow
def test_the_whole_day_in_the_interpreter(
    tmp_path: Path, tiny_base: Base, tiny_adapter: Callable[..., Path], pico_store: Store
) -> None:
    pytest.importorskip("triton")
    out = tmp_path / "out"
    asked = [
        "--tiny",
        "--device",
        "cpu",
        "--out",
        str(out),
        "--base",
        str(tiny_base.folder),
        "--store",
        str(pico_store.folder),
    ]
    command = [sys.executable, "-m", "benchmarks.gpu_day", *asked, "--budget", "3000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    logs = "\n".join(log.read_text()[-3000:] for log in out.glob("*.log"))
    assert done.returncode == 0, f"{done.stdout}\n{logs}"
    found = json.loads((out / "gpu_day.json").read_text())
    assert {row["section"] for row in found["rows"]} >= set(SECTIONS)
    assert {row["of"] for row in found["rows"] if row["section"] == "time"} == set(SECTIONS)
    told = page.page(found)
    assert "A rehearsal" in told
    assert "failed" not in told


def test_every_section_is_told_on_the_page() -> None:
    assert list(page.WHAT) == list(SECTIONS)
