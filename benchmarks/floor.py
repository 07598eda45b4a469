"""How far a decode step is from what the machine's memory allows: one row, a soup of two, bf16.

    python benchmarks/floor.py [--json] [--steps 60] [--dtype bf16] [--busy]

SmolLM2-135M-Instruct and the shipped adapters. In one run, interleaved, medians:

    floor_ms   reading once what a step cannot do without: the weights of every linear layer, the output layer and the norms,
               and the factors of the two adapters of the soup, in the dtype of the model; as fast as all threads can
    step_ms    a step of the engine's running batch from plan to token: one answer with a soup of two, from its third token on
    base_ms    the same without a soup
    torch_ms   `step_ms` of an engine whose steps torch computes

--busy takes the processor time of one thread instead, on a machine that others use: they slow down reading and computing alike,
but who waits for a processor is not counted. `ratio` holds quartiles of each of them / floor within a round. `step` says how the first two are computed. Nothing is written;
figures are in docs/kernels.md.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


def reading(size: int) -> Callable[[], Any]:
    """Reads so many bytes that lie in no cache, on all threads."""
    import torch

    memory = torch.ones(size // 4, dtype=torch.float32)
    return memory.sum


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
    work = {"floor": reading(size), **{name: (lambda each=each: next(each)) for name, each in running.items()}}
    rounds = [{name: timed(each, clock) for name, each in work.items()} for _ in range(count + 3)][3:]
    found = {name: [each[name] for each in rounds] for name in work}
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
