"""How far a decode step is from what the machine's memory allows: one row, a soup of two, bf16.

    python benchmarks/floor.py [--json] [--steps 60] [--dtype bf16] [--busy]

SmolLM2-135M-Instruct and the shipped adapters. In one run, interleaved, medians:

    floor_ms   reading once what a step cannot do without: the weights of every linear layer, the output layer and the norms,
               and the factors of the two adapters of the soup, in the dtype of the model; as fast as all threads can, which
               is the faster of torch's sum and of four streams a thread, as a compiled step reads
    step_ms    a step of the engine's running batch from plan to token: one answer with a soup of two, from its third token on
    base_ms    the same without a soup
    torch_ms   `step_ms` of an engine whose steps torch computes

--busy takes the processor time of one thread instead, on a machine that others use: they slow down reading and computing alike,
but who waits for a processor is not counted. `ratio` holds quartiles of each of them / floor within a round. `step` says how the first two are computed. Nothing is written;
figures are in docs/kernels.md.
"""

import argparse
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from decode import spinning
from machine import processor

BASE, SOUP, PROMPT = "smollm2-135m-instruct", {"concise": 0.5, "expert": 0.25}, "Why is the sky blue?"


def steps(engine: Any, grant: Any, count: int) -> Iterator[None]:
    """One answer of a running batch, a step each time; the prompt and two tokens are computed already."""
    from soupmix.backends import Limits, Request, Sampling
    from soupmix.batching.batcher import Batcher

    with Batcher(engine, Limits(rows=8, length=512)) as batcher:
        answer = batcher._answer(
            Request(engine.plain_tokens(PROMPT), grant, Sampling(max_new_tokens=count)), lambda _: None
        )
        batcher._scheduler.add(answer)
        for number in range(count):
            plan = batcher._scheduler.plan()
            made = batcher._runner.step(plan)
            batcher._scheduler.computed(plan)
            answer.answer.append(made[0][1].id)  # an answer that ends goes on here
            if number >= 2:
                yield


def needed(engine: Any, store: Any) -> int:
    """Bytes that a step reads once."""
    from soupmix.base import resolve

    layers, size = resolve(BASE).layers(), engine.model.dtype.itemsize
    weights = sum(each.outputs * each.inputs for each in layers.values() if each.tied is None)  # tied: the output layer
    factors = (f for name in SOUP for f in store.load(name).modules.values())
    return size * (weights + sum(f.A.numel() + f.B.numel() for f in factors))


STREAMS = """
#include <omp.h>
#include "vectors.h"
extern "C" float soupmix_read(const float *all, size_t count, int threads) {
  float total = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
  {
    const size_t part = count / threads / 4 / LANES * LANES;
    const float *mine = all + 4 * part * omp_get_thread_num();
    V s[4] = {};
    for (size_t i = 0; i < part; i += LANES) for (int k = 0; k < 4; k++) s[k] = s[k] + load(mine + k * part + i);
    total += sum(s[0] + s[1] + s[2] + s[3]);
  }
  return total;
}
"""


def readings(size: int, folder: Path) -> dict[str, Callable[[], Any]]:
    """Ways to read so many bytes that lie in no cache, on all threads; the first needs no compiler."""
    import torch

    from soupmix_kernels.compiled import LargePages, build, instructions

    memory = torch.ones(size // 4, dtype=torch.float32)
    memory = LargePages([memory]).copy(memory)  # as the weights of a compiled step lie
    ways: dict[str, Callable[[], Any]] = {"sum": memory.sum}
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler and (threads := build._threads()):
        (folder / "read.cpp").write_text(STREAMS)
        flags = [*build._FLAGS, *build.INSTRUCTIONS[instructions()[0]], f"-I{build._SOURCE.parent}"]
        made = folder / "read.so"
        subprocess.run([compiler, *flags, str(folder / "read.cpp"), *threads, "-o", str(made)], check=True)
        read = ctypes.CDLL(str(made)).soupmix_read
        read.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        ways["streams"] = lambda: read(memory.data_ptr(), len(memory), torch.get_num_threads())
    return ways


def timed(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return 1000 * (clock() - start)


def quartiles(values: list[float]) -> list[float]:
    return [round(value, 3) for value in statistics.quantiles(values, n=4, method="inclusive")]


def measure(dtype: str, count: int, *, busy: bool) -> dict[str, Any]:
    import torch

    if busy:
        torch.set_num_threads(1)
    clock = time.thread_time if busy else time.perf_counter

    from soupmix import Engine, Policy, Store

    store = Store.shipped()
    policy = Policy.open(store)
    compiled, plain = (Engine.load(BASE, store, dtype=dtype, compiled=each) for each in (True, False))
    arms = {"step": (compiled, SOUP), "base": (compiled, {}), "torch": (plain, SOUP)}
    running = {name: steps(engine, policy.clamp(soup), count + 8) for name, (engine, soup) in arms.items()}
    size = needed(compiled, store)
    with TemporaryDirectory() as folder:
        ways = readings(size, Path(folder))
    work = {**ways, **{name: (lambda each=each: next(each)) for name, each in running.items()}}
    turn = Random(0)  # every order alike: who comes after a reading finds nothing of his own in any cache
    rounds = [{n: timed(work[n], clock) for n in turn.sample(list(work), len(work))} for _ in range(count + 3)][3:]
    rounds = [each | {"floor": min(each[way] for way in ways)} for each in rounds]
    found = {name: [each[name] for each in rounds] for name in ("floor", *arms)}
    return {
        **{f"{name}_ms": quartiles(values)[1] for name, values in found.items()},
        "ratio": {name: quartiles([each[name] / each["floor"] for each in rounds]) for name in arms},
        "step": compiled.step.why,
        "bytes": size,
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "clock": "processor time" if busy else "time",
        "spin": os.environ["GOMP_SPINCOUNT"],
        "processor": processor(),
        "steps": count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--busy", action="store_true", help="processor time of one thread")
    given = parser.parse_args()
    spinning()
    with ThreadPoolExecutor(1) as alone:  # the thread that loads must not keep workers of its own
        found = alone.submit(measure, given.dtype, given.steps, busy=given.busy).result()
    if given.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:12} {value}")


if __name__ == "__main__":
    main()
