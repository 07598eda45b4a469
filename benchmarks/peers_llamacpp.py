"""`soupmix serve` beside llama.cpp's server: tokens per second and processor time where people differ, and where nobody does.

    make bench-llama                    builds llama-server, then runs this
    python benchmarks/peers_llamacpp.py --server PATH/llama-server [--clients 1 8 64] [--rounds 3] [--table]

SmolLM2-135M-Instruct and the six shipped adapters, all over HTTP on loopback, streamed, greedy; llama.cpp has the base and the
adapters as `soupmix merge` writes them as GGUF, and takes the scale of every adapter with each request. Its servers:

    soupmix-bf16, soupmix-int8      `soupmix serve --dtype`
    llama-bf16, llama-q8_0          llama-server, weights in these types
    who: base (zero scales for all), one (a soup of two, the same for all), different (everybody a soup of two of their own)

Every client asks again when it is answered: prompts of 32 tokens, answers of 24 at most, none from a cache. Interleaved round by round,
medians. Before anything is timed both answer eight people, and nobody, in fp32 with the same words.
Rows go to benchmarks/data/peers_llamacpp.jsonl, the page is docs/peers.md.
"""

import argparse
import json
import random
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from decode import about, quartiles, spinning
from serve import people
from serve_http import Served, served
from serve_peers import Told, Work

DATA = Path(__file__).parent / "data" / "peers_llamacpp.jsonl"
PAGE = Path(__file__).parents[1] / "docs" / "peers.md"
PROMPT, ANSWER, GATE = 32, 24, 12  # tokens
EACH = {1: 4, 8: 2}  # requests of a client in a round; with more clients one
MOST = 64
PAIRS = (("soupmix-bf16", "llama-bf16"), ("soupmix-int8", "llama-q8_0"))
QUESTIONS = ("Why is the sky blue?", "How do magnets work?", "What is a volcano?", "How do plants drink?")


def ggufs(folder: Path, dtype: str) -> tuple[Path, list[Path]]:
    """The base, and every adapter at weight 1, as llama.cpp reads them."""
    from soupmix import Policy, Store, merge
    from soupmix.base import resolve

    base, store = resolve("smollm2-135m-instruct"), Store.shipped()
    policy = Policy.open(store)
    merge(store, policy.clamp({})).save_gguf(folder / "base", base=base, dtype=dtype)
    for name in store.names:
        merge(store, policy.clamp({name: 1})).save_gguf_lora(folder / name, base=base)
    return folder / "base/model.gguf", [folder / name / "adapter.gguf" for name in store.names]


@contextmanager
def llama(command: Sequence[str], model: Path, adapters: Sequence[Path], home: Path, rows: int) -> Iterator[Served]:
    """llama-server with as many slots as rows, each of 256 positions."""
    from soupmix import Store

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, log, started = f"http://127.0.0.1:{port}", home / "log", time.perf_counter()
    options = [
        "--model",
        model,
        "--lora",
        ",".join(map(str, adapters)),
        "--port",
        port,
        "--threads",
        2,
        "--parallel",
        rows,
    ]
    options += ["--ctx-size", 256 * rows, "--no-webui", "--offline", "--no-warmup"]
    with log.open("w") as file:
        child = subprocess.Popen([*command, *map(str, options)], stdout=file, stderr=file)
    try:
        while httpx_status(address) != 200:
            if child.poll() is not None:
                raise SystemExit(f"llama-server did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        one = partial(_one, names=Store.shipped().names, people=PEOPLE)
        yield Served(address, one, child.pid, time.perf_counter() - started)
    finally:
        child.terminate()
        child.wait(60)


def httpx_status(address: str) -> int:
    """Of the health of a server; 0 as long as nobody listens."""
    try:
        return httpx.get(f"{address}/health", trust_env=False).status_code
    except httpx.TransportError:
        return 0


async def _one(http: httpx.AsyncClient, work: Work, names: Sequence[str], people: Sequence[dict[str, float]]) -> Told:
    scales = [{"id": place, "scale": people[work.person].get(name, 0.0)} for place, name in enumerate(names)]
    body = {"prompt": list(work.prompt), "n_predict": work.tokens, "temperature": 0, "stream": True, "lora": scales}
    body["cache_prompt"] = False
    told, count = Told(time.perf_counter()), 0
    async with http.stream("POST", "/completion", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                told.came += [time.perf_counter()] * len(event.get("tokens", ()))
                told.text += event.get("content", "")
                count = event.get("tokens_predicted", count)
    if not count:
        raise SystemExit("llama.cpp answered nothing")
    told.came = (told.came + [told.came[-1]] * count)[:count]
    return told


PEOPLE = [{}, *people(MOST)]
"""Whose weights a number of a person stands for; number 0 is nobody."""


def works(clients: int, who: str, seed: int) -> list[list[Work]]:
    """What every client asks in a round."""
    draw = random.Random(seed)
    person = {"base": lambda _: 0, "one": lambda _: 1, "different": lambda client: client + 1}[who]
    return [
        [Work(tuple(draw.randrange(100, 40_000) for _ in range(PROMPT)), ANSWER, person(client)) for _ in range(EACH.get(clients, 1))]
        for client in range(clients)
    ]  # fmt: skip


def gate(server: str, stack: ExitStack) -> None:
    """In fp32 eight people and nobody are told the same words by both."""
    from soupmix.base import load_tokenizer, resolve

    base = resolve("smollm2-135m-instruct")
    tokens = load_tokenizer(base.folder)
    asked = []
    for person in range(9):
        talk = [{"role": "user", "content": QUESTIONS[person % len(QUESTIONS)]}]
        prompt = tokens.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
        asked.append([Work(tuple(prompt), GATE, person)])
    home = Path(stack.enter_context(TemporaryDirectory()))
    model, adapters = ggufs(home, "fp32")
    cache = ["--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off"]
    with llama([server, *cache], model, adapters, home, 9) as theirs:
        said = {id(work): told.text for work, told in _told(theirs, asked)}
    (home / "ours").mkdir()
    with served(base.folder, home / "ours", "fp32", 9, PEOPLE, whole=False) as ours:
        other = [(work, told.text, said[id(work)]) for work, told in _told(ours, asked) if told.text != said[id(work)]]
    if other:
        raise SystemExit(f"the two say other words, and nothing is timed: {other[:4]}")
    if len(set(said.values())) <= len(QUESTIONS):
        raise SystemExit("people are answered alike: the adapters do not act, and nothing is timed")


def _told(server: Served, asked: Sequence[Sequence[Work]]) -> list[tuple[Work, Told]]:
    return [(work, server([[work]])[0]) for client in asked for work in client]


def quantised(server: str, model: Path) -> Path:
    """The model in llama.cpp's 8 bits, by the program beside the server."""
    found = model.with_name("q8_0.gguf")
    command = [str(Path(server).with_name("llama-quantize")), str(model), str(found), "Q8_0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"llama-quantize: {done.stderr[-2000:]}")
    return found


def started(server: str, stack: ExitStack) -> dict[str, Served]:
    """All servers, each ready; they wait without computing while another is asked."""
    from soupmix.base import resolve

    base, home = resolve("smollm2-135m-instruct"), Path(stack.enter_context(TemporaryDirectory()))
    for name in ("soupmix-bf16", "soupmix-int8", "llama-bf16", "llama-q8_0"):
        (home / name).mkdir()
    model, adapters = ggufs(home, "bf16")
    small = quantised(server, model)
    return {
        "soupmix-bf16": stack.enter_context(
            served(base.folder, home / "soupmix-bf16", "bf16", MOST, PEOPLE, whole=False)
        ),
        "llama-bf16": stack.enter_context(llama([server], model, adapters, home / "llama-bf16", MOST)),
        "soupmix-int8": stack.enter_context(
            served(base.folder, home / "soupmix-int8", "int8", MOST, PEOPLE, whole=False)
        ),
        "llama-q8_0": stack.enter_context(llama([server], small, adapters, home / "llama-q8_0", MOST)),
    }


def asked_of(server: Served, asked: Sequence[Sequence[Work]]) -> dict[str, float]:
    """Tokens per second, processor time of a token, and waits, in seconds."""
    before, begun = server.cpu_s(), time.perf_counter()
    told = server(asked)
    seconds, tokens = time.perf_counter() - begun, sum(len(each.came) for each in told)
    return {
        "tokens_per_s": tokens / seconds,
        "cpu_ms": 1000 * (server.cpu_s() - before) / tokens,
        "first_s": statistics.median(each.came[0] - each.sent for each in told),
    }


def measure(made: dict[str, Served], clients: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """A cell for every number of clients and who they are: medians, and within each round the ratio to the peer in its precision."""
    cells = []
    for count in clients:
        for who in ("base", "one", "different") if count > 1 else ("base", "one"):
            found: dict[str, list[dict[str, float]]] = {name: [] for name in made}
            for each in range(-1, rounds):  # the first round warms up, by eight clients at most
                order = list(made)
                random.Random(each).shuffle(order)
                for name in order:
                    row = asked_of(made[name], works(count, who, 1000 * count + each)[: count if each >= 0 else 8])
                    found[name] += [row] if each >= 0 else []
            medians = {
                name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
                for name, rows in found.items()
            }
            ratios = {
                ours: quartiles(
                    [a["tokens_per_s"] / b["tokens_per_s"] for a, b in zip(found[ours], found[theirs], strict=True)]
                )
                for ours, theirs in PAIRS
            }
            cells.append({"clients": count, "who": who, "median": medians, "of_peer": ratios})
            print(
                count, who, {name: round(row["tokens_per_s"], 1) for name, row in medians.items()}, ratios, flush=True
            )
    return cells


def table() -> str:
    """docs/peers.md from the newest run."""
    run = json.loads(DATA.read_text().splitlines()[-1])
    lines = [
        "# Beside llama.cpp",
        "",
        "Generated by `make bench-llama` (`benchmarks/peers_llamacpp.py`) from `benchmarks/data/peers_llamacpp.jsonl`: SmolLM2-135M-Instruct",
        f"and the six shipped adapters, over HTTP on loopback, prompts of {PROMPT} tokens, greedy answers of {ANSWER} at most. llama.cpp",
        f"(the sources in llama-cpp-python {run['llama']}, built for this processor) has base and adapters as `soupmix merge` writes them as",
        "GGUF, and takes scales with each request: it computes only those together whose scales are equal. `base`: nobody has a",
        "soup; `one`: all have the same soup of two; `different`: everybody their own. Interleaved; medians over rounds, ratios of",
        "tokens per second with quartiles within a round. Both said the same words in fp32 before anything was timed. In int8 the base",
        "is held as its own file has it, in 4 bits with a shift ([quantised](quantised.md)); llama.cpp's Q8_0 is made of its weights.",
        "",
        f"{run['date']}, {run['processor']}, {run['threads']} threads, torch {run['versions']['torch']}, {run['rounds']} rounds.",
        "",
        "| clients | who | tokens/s: soupmix bf16, llama.cpp BF16 | ratio | soupmix int8, llama.cpp Q8_0 | ratio | CPU ms a token, in that order |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in run["cells"]:
        m, words = cell["median"], [str(cell["clients"]), cell["who"]]
        for ours, theirs in PAIRS:
            low, mid, high = cell["of_peer"][ours]
            words += [
                f"{m[ours]['tokens_per_s']:.0f}, {m[theirs]['tokens_per_s']:.0f}",
                f"{mid:.2f} [{low:.2f}, {high:.2f}]",
            ]
        words.append(", ".join(f"{m[name]['cpu_ms']:.0f}" for pair in PAIRS for name in pair))
        lines.append(f"| {' | '.join(words)} |")
    lines += ["", "With an empty cache, in which ours compiles its step first and tries it:"]
    lines += ["", "| server | seconds until it answers | MiB at most |", "|---|---|---|"]
    lines += [f"| {name} | {each['ready_s']:.1f} | {each['peak_mb']} |" for name, each in run["servers"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", help="llama.cpp's llama-server, with llama-quantize beside it")
    parser.add_argument("--llama", default="0.3.36", help="of which release of llama-cpp-python its sources are")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, MOST])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="only write docs/peers.md from the data")
    given = parser.parse_args()
    if not given.table:
        if not given.server:
            raise SystemExit("--server: where is llama-server? `make bench-llama` builds one")
        spinning()
        with ExitStack() as stack:
            gate(given.server, stack)
            made = started(given.server, stack)
            cells = measure(made, given.clients, given.rounds)
            servers = {name: {"ready_s": each.ready_s, "peak_mb": each.peak_mb()} for name, each in made.items()}
        run = {**about(), "llama": given.llama, "rounds": given.rounds, "cells": cells, "servers": servers}
        with DATA.open("a") as file:
            file.write(json.dumps(run) + "\n")
    PAGE.write_text(table())
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
