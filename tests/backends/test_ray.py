"""Batches over a Ray cluster of two workers, from an environment of its own (`make test-ray`); one of them is killed."""

import json
import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.batch_shop import plain, policy_text
from tests.support.process_groups import wait_for
from tests.support.ray_real import needs_ray, ray_python
from tests.support.vllm_real import small_base, small_store, vllm_environment

pytestmark = [pytest.mark.slow, needs_ray]
LINES = 60


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The command line but for the output."""
    base = small_base(tmp_path)
    store = small_store(tmp_path, base)
    (tmp_path / "org.yaml").write_text(policy_text(store))
    lines = [
        plain(n, ["once", "twice"] if n % 5 == 0 else f"say {n}", soup={"weights": {"calm": n / LINES}})
        for n in range(LINES)
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    shown = {
        "--base": base.folder,
        "--store": store.folder,
        "--policy": tmp_path / "org.yaml",
        "--model": "tiny",
    }
    limits = {"--rows": 4, "--length": 128, "--max-new-tokens": 40, "--temperature": 0, "--dtype": "fp32"}
    pairs = [str(word) for pair in {**shown, **limits}.items() for word in pair]
    return [str(ray_python().parent / "soupmix"), "batch", str(tmp_path / "in.jsonl"), *pairs]


def test_a_worker_that_is_killed_loses_nothing(words: list[str], tmp_path: Path) -> None:
    alone, over = tmp_path / "local.jsonl", tmp_path / "ray.jsonl"
    subprocess.run([*words, str(alone)], check=True, timeout=1200)
    job = subprocess.Popen([*words, str(over), "--backend", "ray", "--ray-workers", "2"])
    killed = _kill_a_worker(job, tmp_path / "ray.jsonl.part")
    assert job.wait(1800) == 0
    assert killed, "in the middle of the batch"
    results = [[json.loads(line) for line in path.read_text().splitlines()] for path in (alone, over)]
    assert [each["custom_id"] for each in results[1]] == [each["custom_id"] for each in results[0]]
    assert len(results[1]) == LINES
    for here, there in zip(*results, strict=True):
        one, other = here["response"], there["response"]
        assert (one["status_code"], one["body"]["choices"]) == (other["status_code"], other["body"]["choices"])
        assert one["body"]["soup"] == other["body"]["soup"]


def test_a_worker_answers_by_a_vllm_of_its_own(words: list[str], tmp_path: Path) -> None:
    """Two of them, each with a server; greedily, in fp32, what the engine of one process answers."""
    alone, over = tmp_path / "local.jsonl", tmp_path / "vllm.jsonl"
    subprocess.run([*words, str(alone)], check=True, timeout=1200)
    inside = ["--backend", "ray", "--ray-inside", "vllm", "--vllm-argument=--enforce-eager"]
    before = _servers()
    subprocess.run([*words, str(over), *inside], check=True, timeout=1800, env={**os.environ, **vllm_environment()})
    assert wait_for(lambda: _servers() <= before, 30), "vLLM ends with its worker"
    one, other = ([json.loads(line) for line in path.read_text().splitlines()] for path in (alone, over))
    assert [_said(each) for each in other] == [_said(each) for each in one]
    assert len(other) == LINES


def test_what_keeps_a_worker_from_answering_is_said(words: list[str], tmp_path: Path) -> None:
    """Before a line is answered, not as the failure of each."""
    inside = ["--backend", "ray", "--ray-inside", "vllm", "--vllm-argument=--no-such-option"]
    done = subprocess.run([*words, str(tmp_path / "out.jsonl"), *inside], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 1
    assert "soupmix: vLLM did not start: unrecognized arguments: --no-such-option" in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


def _said(result: dict[str, Any]) -> tuple[str, Any, Any]:
    body = result["response"]["body"]
    texts = [
        (each.get("message", each).get("content", each.get("text")), each["finish_reason"]) for each in body["choices"]
    ]
    return result["custom_id"], texts, body["soup"]


def _kill_a_worker(job: "subprocess.Popen[bytes]", journal: Path) -> bool:
    """Kill one of the workers once the first results are there; whether the batch was still running then."""
    until = time.monotonic() + 1500
    while time.monotonic() < until and job.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") > 5:
            for number in _workers(job.pid):
                os.kill(number, signal.SIGKILL)
                return job.poll() is None
        time.sleep(0.05)
    return False


def _servers() -> set[str]:
    """Processes of vLLM's servers."""
    found = set()
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found |= {line.parent.name} if b"VLLM::" in line.read_bytes() else set()
    return found


def _workers(parent: int) -> list[int]:
    """Processes of Ray's that hold a worker of ours and descend from this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if re.search(rb"ray::_Worker", (folder / "cmdline").read_bytes()) and _descends(int(folder.name), parent):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _descends(child: int, parent: int) -> bool:
    while child > 1:
        if child == parent:
            return True
        child = int((Path("/proc") / str(child) / "stat").read_text().rpartition(")")[2].split()[1])
    return False
