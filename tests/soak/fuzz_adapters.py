"""Read mutated adapter folders, and see each one accepted as sound or refused with a reason.

    python -m tests.soak.fuzz_adapters 1000000 [--start 0] [--batch 2000]

Batches run in forked children with 256 MB of address space beyond what they start with. A seed is a folder:
`--start SEED --batch 1` and a count of 1 repeat one. Exit code 1 if anything is not as it must be.
"""

import argparse
import json
import mmap
import os
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from soupmix.errors import AdapterError
from soupmix.store import read_adapter
from tests.support.mutate import SHAPES, mutant

_MEMORY = 256 << 20
_SLOW = 1.0


def judge(folder: Path, seed: int) -> str:
    """How the folder of a seed ends: "accepted" or its reason; anything wrong raises."""
    config, tensors = mutant(seed)
    (folder / "adapter_config.json").write_bytes(config)
    (folder / "adapter_model.safetensors").write_bytes(tensors)
    try:
        modules = read_adapter(folder, SHAPES)
    except AdapterError as error:
        if not error.reason or not str(error).isprintable() or len(str(error)) > 1000:
            raise RuntimeError(f"a refusal without reason or in more than a line: {error!r}") from error
        return error.reason
    for module, factors in modules.items():
        out, into = SHAPES[module]
        sound = factors.A.shape == (factors.rank, into) and factors.B.shape == (out, factors.rank)
        finite = bool(torch.isfinite(factors.A).all() and torch.isfinite(factors.B).all())
        if not (
            sound
            and finite
            and 0 < factors.scaling < 1e6
            and factors.A.dtype in (torch.float32, torch.float16, torch.bfloat16)
        ):
            raise RuntimeError(f"an unsound adapter was accepted: {module}")
    return "accepted"


def _batch(seeds: range, at: mmap.mmap) -> dict[str, Any]:
    """In the child: judge every seed; `at` tells the parent which one is under way."""
    page = resource.getpagesize()
    size, resident = (int(word) * page for word in Path("/proc/self/statm").read_text().split()[:2])
    resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY, size + _MEMORY))
    ends: Counter[str] = Counter()
    wrong, slowest = [], 0.0
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        for seed in seeds:
            at[:8] = seed.to_bytes(8, "little")
            started = time.process_time()
            try:
                ends[judge(Path(folder), seed)] += 1
            except Exception:  # noqa: BLE001  # whatever it is, it must not be there
                wrong.append({"seed": seed, "trace": traceback.format_exc()[-1500:]})
            slowest = max(slowest, time.process_time() - started)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - resident
    return {"ends": ends, "wrong": wrong, "slowest": slowest, "grown": grown}


def _in_child(seeds: range) -> dict[str, Any]:
    at = mmap.mmap(-1, 8)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with os.fdopen(write, "wb") as pipe:
            pipe.write(json.dumps(_batch(seeds, at)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if said and status == 0:
        return dict(json.loads(said))
    seed = int.from_bytes(at[:8], "little")
    return {
        "ends": {},
        "wrong": [{"seed": seed, "trace": f"the process died, wait status {status}"}],
        "slowest": 0,
        "grown": 0,
    }


def run(count: int, start: int = 0, batch: int = 2000) -> dict[str, Any]:
    """Judge `count` seeds from `start` on; a summary."""
    torch.set_num_threads(1)
    ends: Counter[str] = Counter()
    wrong: list[dict[str, Any]] = []
    slowest, grown, began = 0.0, 0, time.monotonic()
    for first in range(start, start + count, batch):
        said = _in_child(range(first, min(first + batch, start + count)))
        ends.update(said["ends"])
        wrong += said["wrong"]
        slowest, grown = max(slowest, said["slowest"]), max(grown, said["grown"])
        print(f"{first - start + batch} read, {len(wrong)} wrong", file=sys.stderr, flush=True)
    return {
        "files": count,
        "accepted": ends.pop("accepted", 0),
        "refused": dict(sorted(ends.items())),
        "wrong": wrong,
        "slowest_cpu_seconds": round(slowest, 3),
        "megabytes_above_start": round(grown / 1e6, 1),
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--batch", type=int, default=2000)
    given = parser.parse_args()
    said = run(given.count, given.start, given.batch)
    print(json.dumps(said, indent=2))
    sys.exit(
        bool(said["wrong"]) or said["slowest_cpu_seconds"] > _SLOW or said["megabytes_above_start"] > _MEMORY / 1e6
    )


if __name__ == "__main__":
    main()
