"""Serving 1, 8 and 64 clients with answers of mixed lengths: throughput and latency, against what else there is.

    python benchmarks/serve.py [--rounds 3] [--clients 1 8 64] [--dtype bf16] [--table] [--prefill]

SmolLM2-135M-Instruct and the six shipped adapters. Every client sends its next request when the one before is answered:
8 to 96 tokens of prompt, 4 to 64 of answer, the same for all variants. Interleaved round by round in one process:

    base, one, different   `soupmix.batching`: nobody, the same soup for all, everybody their own
    http                   as different, streamed by `soupmix serve`, a process of its own on loopback
    padded                 `generate` of transformers, bare base, in waves of one request per client
    continuous             continuous batching of transformers, bare base
    peft                   as padded, PEFT's mixed batch (`adapter_names`) with one adapter per person, merged in advance

Throughput is tokens per second of wall clock. Before anything is timed, greedy tokens in fp32 must be those of transformers
for the base, and those of PEFT for the different people, token for token;
`http` is held to its numbers of tokens. Rows go to benchmarks/data/serve.jsonl. `--prefill` measures what serve_prefill.py says.
"""

import argparse
import json
import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import serve_prefill
import torch
from decode import about, quartiles, spinning
from serve_http import served
from serve_peers import Server, Told, Work, continuous, mixed, padded

DATA, PAGE = Path(__file__).parent / "data" / "serve.jsonl", Path(__file__).parents[1] / "docs" / "serve_bench.md"
EACH = {1: 6, 8: 4, 64: 3}  # requests per client
PATIENCE = 8  # clients; with more, PEFT serves the first request of each in one round only: it takes seconds per step
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def works(clients: int, each: int) -> list[list[Work]]:
    draw = random.Random(clients)
    return [
        [
            Work(
                tuple(draw.randrange(100, 40_000) for _ in range(draw.choice([8, 16, 32, 64, 96]))),
                draw.choice([4, 8, 16, 32, 64]),
                client,
            )
            for _ in range(each)
        ]
        for client in range(clients)
    ]


def ours(engine: Any, grants: Sequence[Any], rows: int) -> Server:
    """The running batch, asked from this thread and by its own sinks."""
    from soupmix.backends import Delta, Limits, Request
    from soupmix.batching import Batcher
    from soupmix.engine import Sampling

    def serve(clients: Sequence[Sequence[Work]]) -> list[Told]:
        queues, told, over = [list(each) for each in clients], [], threading.Semaphore(0)
        with Batcher(engine, Limits(rows=rows, length=256)) as batcher:

            def send(client: int) -> None:
                work = queues[client].pop(0)
                mine = Told(time.perf_counter())
                told.append(mine)

                def sink(delta: Delta) -> None:
                    mine.came += [time.perf_counter()] * len(delta.tokens)
                    mine.tokens += [token.id for token in delta.tokens]
                    if delta.finish and queues[client]:
                        send(client)
                    elif delta.finish:
                        over.release()

                greedy = Sampling(max_new_tokens=work.tokens)
                batcher.submit(Request(work.prompt, grants[work.person], greedy, logprobs=0), sink)

            for client in range(len(queues)):
                send(client)
            for _ in queues:
                over.acquire()
        return told

    return serve


def people(count: int) -> list[dict[str, float]]:
    from soupmix import Store

    names = Store.shipped().names
    return [{names[n % 6]: (1 + n % 9) / 10, names[(n + 2) % 6]: (1 + n % 4) / 8} for n in range(count)]


def servers(clients: int, dtype: str, stack: ExitStack) -> dict[str, Server]:
    from transformers import AutoModelForCausalLM

    from soupmix import Engine, Policy, Store
    from soupmix.base import resolve

    base, store = resolve("smollm2-135m-instruct"), Store.shipped()
    policy, wanted = Policy.open(store), people(clients)
    engine = Engine.load(base, store, dtype=dtype)
    engine.model.generation_config.eos_token_id = -1  # answers are as long as they are asked to be
    bare = AutoModelForCausalLM.from_pretrained(base.folder, dtype=TYPES[dtype], trust_remote_code=False).eval()
    bare.generation_config.eos_token_id = None
    granted = [policy.clamp(each) for each in wanted]
    merged = [{name: micro / 1_000_000 for name, micro in each.granted.items()} for each in granted]
    return {
        "base": ours(engine, [policy.clamp({})] * clients, clients),
        "one": ours(engine, [granted[0]] * clients, clients),
        "different": ours(engine, granted, clients),
        "http": stack.enter_context(
            served(base.folder, Path(stack.enter_context(TemporaryDirectory())), dtype, clients, wanted)
        ),
        "padded": padded(bare),
        "continuous": continuous(bare, clients),
        "peft": mixed(base.folder, TYPES[dtype], {name: str(store.path(name)) for name in store.names}, merged),
    }


def apart(work: Callable[[], Any]) -> Any:
    """In a thread that ends: OpenMP keeps workers for every thread that computes, and too many stop spinning (`Engine.load`)."""
    with ThreadPoolExecutor(1) as alone:
        return alone.submit(work).result()


def gate() -> None:
    """Greedy tokens of eight clients in fp32: ours of the base are those of transformers, ours of people those of PEFT."""
    asked = works(8, 1)
    with ExitStack() as stack:
        made = apart(lambda: servers(8, "fp32", stack))
        found = {name: apart(partial(server, asked)) for name, server in made.items()}
    for mine, theirs in (("base", "padded"), ("base", "continuous"), ("different", "peft")):
        first = sorted(tuple(each.tokens) for each in found[mine])
        if first != sorted(tuple(each.tokens) for each in found[theirs]):
            raise SystemExit(f"{mine} and {theirs} give other tokens; nothing is timed")


def summary(told: Sequence[Told], seconds: float) -> dict[str, float]:
    first = [each.came[0] - each.sent for each in told]
    later = [(each.came[-1] - each.came[0]) / (len(each.came) - 1) for each in told]
    return {
        "tokens_per_s": sum(len(each.came) for each in told) / seconds,
        **{f"first_p{p}": percentile(first, p) for p in (50, 99)},
        **{f"token_p{p}": percentile(later, p) for p in (50, 99)},
    }


def percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def timed(made: dict[str, Server], asked: Sequence[Sequence[Work]], rounds: int) -> dict[str, list[dict[str, float]]]:
    """A summary for every variant and round, interleaved."""
    first = [client[:1] for client in asked]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in made}
    for each in range(-1, rounds):  # the first round is for warming up
        for name, server in made.items():
            short = name == "peft" and len(asked) > PATIENCE
            if short and each:
                continue
            started = time.perf_counter()
            told = apart(partial(server, first if short or each < 0 else asked))
            if each >= 0:
                found[name].append(summary(told, time.perf_counter() - started))
    return found


def measure(clients: int, dtype: str, rounds: int) -> dict[str, Any]:
    asked = works(clients, EACH.get(clients, 2))
    with ExitStack() as stack:
        found = timed(apart(lambda: servers(clients, dtype, stack)), asked, rounds)
    rates = {name: [each["tokens_per_s"] for each in rows] for name, rows in found.items()}
    return {
        "clients": clients,
        "dtype": dtype,
        "median": {
            name: {key: round(statistics.median(row[key] for row in rows), 4) for key in rows[0]}
            for name, rows in found.items()
        },
        "of_base": {
            name: quartiles([a / b for a, b in zip(rate, rates["base"], strict=False)]) for name, rate in rates.items()
        },
        "of_padded": {
            name: quartiles([a / b for a, b in zip(rate, rates["padded"], strict=False)])
            for name, rate in rates.items()
        },
    }


def table() -> str:
    """docs/serve_bench.md from the newest run."""
    run = json.loads(DATA.read_text().splitlines()[-1])
    lines = [
        "# Serving: throughput and latency",
        "",
        "Generated by `python benchmarks/serve.py` from `benchmarks/data/serve.jsonl`: SmolLM2-135M-Instruct, the six shipped adapters,",
        "prompts of 8 to 96 tokens and answers of 4 to 64, every client asking again when it is answered. Interleaved; medians over",
        "rounds, ratios with quartiles within a round. `base`, `one`, `different`: our running batch with nobody, one soup for all,",
        "and everybody their own; `http`: the last, streamed by `soupmix serve`, a process of its own on the same two cores.",
        "`padded`, `continuous`: transformers, bare base. `peft`: a mixed batch with a merged adapter per person; with more than",
        f"{PATIENCE} clients it serves the first request of each, in one round, as it takes seconds per step.",
        "",
        f"{run['date']}, {run['processor']}, {run['threads']} threads, GOMP_SPINCOUNT={run['spin']}, torch {run['versions']['torch']}, "
        f"transformers {run['versions']['transformers']}, peft {run['versions']['peft']}, {run['rounds']} rounds, {run['dtype']}.",
        "",
        "| clients | variant | tokens/s | of our base | of padded | first token P50, P99 (s) | per token P50, P99 (ms) |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in run["cells"]:
        for name, m in cell["median"].items():
            ratios = (
                f"{mid:.2f} [{low:.2f}, {high:.2f}]"
                for low, mid, high in (cell["of_base"][name], cell["of_padded"][name])
            )
            lines.append(
                f"| {cell['clients']} | {name} | {m['tokens_per_s']:.0f} | {' | '.join(ratios)} | "
                f"{m['first_p50']:.2f}, {m['first_p99']:.2f} | {1000 * m['token_p50']:.0f}, {1000 * m['token_p99']:.0f} |"
            )
    return "\n".join([*lines, *serve_prefill.table()]) + "\n"


def prefill(clients: int, dtype: str, rounds: int) -> None:
    apart(serve_prefill.gate)
    run = {**about(), **apart(partial(serve_prefill.measure, clients, dtype, rounds))}
    with serve_prefill.DATA.open("a") as file:
        file.write(json.dumps(run) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--table", action="store_true", help="only write docs/serve_bench.md from the data")
    parser.add_argument("--prefill", action="store_true", help="one declared prompt for many people, both modes")
    given = parser.parse_args()
    if given.prefill:
        spinning()
        prefill(max(given.clients), given.dtype, given.rounds)
    elif not given.table:
        spinning()
        gate()
        cells = [measure(clients, given.dtype, given.rounds) for clients in given.clients]
        run = {
            **about(),
            "rounds": given.rounds,
            "dtype": given.dtype,
            "cells": cells,
        }
        with DATA.open("a") as file:
            file.write(json.dumps(run) + "\n")
    PAGE.write_text(table())
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
