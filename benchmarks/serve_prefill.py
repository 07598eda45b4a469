"""64 people at once under one declared prompt of 512 tokens, both modes: what prompts cost, and the time to the first token.

    python benchmarks/serve.py --prefill [--rounds 3] [--clients 64] [--dtype bf16]

SmolLM2-135M-Instruct and the six shipped adapters, everybody with weights of their own. Behind the shared prompt everybody says
16 tokens of their own; all ask in the same moment. `full`: the soup on every token. `answer`: the prompt on the bare base.
"cold" is the first time that anybody asks, "warm" when the same people ask something else afterwards. A chunk of prompts is 512
tokens. Before anything is timed, 8 people in fp32 must have the greedy tokens that they have where nothing is declared.
"""

import json
import random
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from soupmix import Engine, Policy, Store
from soupmix.backends import Delta, Limits, Request
from soupmix.batching import Batcher
from soupmix.engine import Sampling
from soupmix.modes import MODES

DATA = Path(__file__).parent / "data" / "serve_prefill.jsonl"
SHARED, OWN, TOKENS = 512, 16, 4


def shared() -> tuple[int, ...]:
    draw = random.Random(0)
    return tuple(draw.randrange(100, 40_000) for _ in range(SHARED))


def requests(engine: Any, grants: Sequence[Any], mode: Any, wave: int) -> list[Request]:
    draw, greedy = random.Random(f"{wave}"), Sampling(max_new_tokens=TOKENS)
    said = [(*shared(), *(draw.randrange(100, 40_000) for _ in range(OWN)), *engine.prompts.opening) for _ in grants]
    return [
        Request(ids, grant, greedy, logprobs=0, mode=mode, person=f"{number}")
        for number, (ids, grant) in enumerate(zip(said, grants, strict=True))
    ]


def wave(batcher: Batcher, asked: Sequence[Request]) -> tuple[dict[str, float], list[list[int]]]:
    """Tokens computed of prompts, seconds to first tokens, and the tokens."""
    first, made, over = [0.0] * len(asked), [list[int]() for _ in asked], threading.Semaphore(0)
    before, started = batcher.state().prompt_tokens, time.perf_counter()

    def sink(number: int, delta: Delta) -> None:
        first[number] = first[number] or time.perf_counter() - started
        made[number] += [token.id for token in delta.tokens]
        if delta.finish:
            over.release()

    for number, each in enumerate(asked):
        batcher.submit(each, lambda delta, number=number: sink(number, delta))
    for _ in asked:
        over.acquire()
    first.sort()
    told = {"prompt_tokens": batcher.state().prompt_tokens - before, "first_p50": first[len(first) // 2]}
    return {**told, "first_p99": first[-1 - len(first) // 100]}, made


def granted(clients: int) -> list[Any]:
    store = Store.shipped()
    policy, names = Policy.open(store), store.names
    each = [{names[n % 6]: (1 + n % 9) / 10, names[(n + 2) % 6]: (1 + n % 4) / 8} for n in range(clients)]
    return [policy.clamp(weights) for weights in each]


def gate() -> None:
    engine, grants = loaded("fp32"), granted(8)
    for mode in MODES:
        asked = requests(engine, grants, mode, 0)
        found = []
        for declared in (True, False):
            with Batcher(engine, Limits(rows=8, length=1024)) as batcher:
                if declared:
                    batcher.share(shared())
                found.append(wave(batcher, asked)[1])
        if found[0] != found[1]:
            raise SystemExit(f"in mode {mode} a declared prompt gives other tokens; nothing is timed")


def loaded(dtype: str) -> Any:
    engine = Engine.load("smollm2-135m-instruct", Store.shipped(), dtype=dtype)
    engine.model.generation_config.eos_token_id = -1  # answers are as long as they are asked to be
    return engine


def measure(clients: int, dtype: str, rounds: int) -> dict[str, Any]:
    """Medians over rounds of every mode, cold and warm, interleaved; and the ratio of the modes within a round."""
    engine, grants = loaded(dtype), granted(clients)
    found: dict[str, list[dict[str, float]]] = {f"{mode}, {how}": [] for mode in MODES for how in ("cold", "warm")}
    for _ in range(rounds):
        for mode in MODES:
            with Batcher(engine, Limits(rows=clients, length=1024)) as batcher:
                batcher.share(shared())
                for number, how in enumerate(("cold", "warm")):
                    found[f"{mode}, {how}"].append(wave(batcher, requests(engine, grants, mode, number))[0])
    median = {
        name: {key: round(statistics.median(row[key] for row in rows), 4) for key in rows[0]}
        for name, rows in found.items()
    }
    return {"clients": clients, "dtype": dtype, "rounds": rounds, "median": median}


def table() -> list[str]:
    """The section of docs/serve_bench.md, from the newest run; empty where there is none."""
    if not DATA.exists():
        return []
    run = json.loads(DATA.read_text().splitlines()[-1])
    lines = [
        "",
        f"## One prompt of {SHARED} tokens for {run['clients']} people",
        "",
        f"Generated by `python benchmarks/serve.py --prefill` from `benchmarks/data/serve_prefill.jsonl`: {run['clients']} people ask",
        f"at once under one declared prompt, each with weights and {OWN} tokens of their own. `full`: the soup on every token; `answer`:",
        "the prompt on the bare base. Cold: nobody asked before; warm: the same people ask again, something else.",
        f"{run['date']}, {run['processor']}, {run['threads']} threads, {run['rounds']} rounds, {run['dtype']}, medians.",
        "",
        "| mode | prompt tokens computed | first token P50, P99 (s) |",
        "|---|---|---|",
    ]
    for name, m in run["median"].items():
        lines.append(f"| {name} | {m['prompt_tokens']:.0f} | {m['first_p50']:.2f}, {m['first_p99']:.2f} |")
    return lines
