"""A decode step of the engine, everybody different, against transformers' own `generate` of the bare base.

    python benchmarks/decode.py [--rounds 3] [--tokens 8] [--people 16 64] [--dtypes fp32 bf16] [--table]

SmolLM2-135M-Instruct and the six shipped adapters. Variants, interleaved round by round in one process:

    transformers   AutoModelForCausalLM.generate, greedy, no adapters
    peft           the same with one shipped adapter in PEFT's layers (one for everybody)
    bare           the engine with nobody served
    soup, factor   the engine, every row its own weights over six adapters
    plain          `soup` of an engine loaded with fused=False

A step is the time between two calls of the model, from the second token on, the median over a round; no row may end early.
Before anything is timed, the first logits of the bare engine must agree with transformers'. Rows go to benchmarks/data/decode.jsonl.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from machine import processor

SPIN = "100000"
DATA, PAGE = Path(__file__).parent / "data" / "decode.jsonl", Path(__file__).parents[1] / "docs" / "decode.md"
PROMPT = "The sky is blue because"  # short: what is measured is decoding


def spinning() -> None:
    """Start again with OpenMP threads that wait actively for a moment: on cores of their own, a decode step needs it."""
    if os.environ.get("GOMP_SPINCOUNT", "0") == "0":
        os.environ["GOMP_SPINCOUNT"] = SPIN
        os.execv(sys.executable, [sys.executable, *sys.argv])


def variants(people: int, dtype: str) -> tuple[dict[str, tuple[Any, Callable[[int], Any]]], float]:
    """Name -> model, and call that decodes this many tokens for everybody; how far the bare logits are apart, relative."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from soupmix import Engine, Policy, Store
    from soupmix.base import resolve
    from soupmix.engine import Sampling
    from soupmix.engine.decode import decode
    from soupmix.engine.rows import BatchWeights

    base, store = resolve("smollm2-135m-instruct"), Store.shipped()
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    bare = AutoModelForCausalLM.from_pretrained(base.folder, dtype=kind, trust_remote_code=False).eval()
    one = AutoModelForCausalLM.from_pretrained(base.folder, dtype=kind, trust_remote_code=False).eval()
    one = PeftModel.from_pretrained(one, str(store.path(store.names[0])), autocast_adapter_dtype=False).eval()
    engines = {fused: Engine.load(base, store, dtype=dtype, fused=fused) for fused in (True, False)}
    policy, names = Policy.open(store), store.names
    wanted = [{names[n % 6]: (1 + n % 9) / 10, names[(n + 2) % 6]: (1 + n % 4) / 8} for n in range(people)]
    grants = [policy.clamp(each) for each in wanted]
    weights = engines[True].weights(grants, "delta")
    batch = engines[True].tokenizer([PROMPT] * people, return_tensors="pt", add_special_tokens=False)
    ids, mask = batch["input_ids"], batch["attention_mask"]

    def generate(model: Any) -> Callable[[int], Any]:
        fixed = {"do_sample": False, "pad_token_id": 2}
        return lambda tokens: model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=tokens, min_new_tokens=tokens, **fixed
        )

    def ours(method: str | None, *, fused: bool = True) -> Callable[[int], Any]:
        engine = engines[fused]

        def call(tokens: int) -> Any:
            served = weights if method else torch.zeros_like(weights)
            with engine.batch.serving(BatchWeights(served, method=method or "delta")):
                sampling = Sampling(max_new_tokens=tokens)
                streams = list(range(people))
                return decode(
                    engine.model,
                    ids,
                    mask,
                    sampling=sampling,
                    streams=streams,
                    stop=frozenset(),
                    keep=engine.batch.keep,
                )

        return call

    with torch.inference_mode():
        expected, got = bare(ids[:2]).logits, engines[True].model(ids[:2]).logits
    apart = float((got.float() - expected.float()).norm() / expected.float().norm())
    calls = {
        "transformers": (bare, generate(bare)),
        "peft": (one.base_model.model, generate(one)),
        "bare": (engines[True].model, ours(None)),
        "soup": (engines[True].model, ours("delta")),
        "factor": (engines[True].model, ours("factor")),
        "plain": (engines[False].model, ours("delta", fused=False)),
    }
    return calls, apart


def between(model: Any, call: Callable[[int], Any], tokens: int) -> float:
    """Median seconds from one call of the model to the next, without the prefill."""
    stamps: list[float] = []
    hook = model.register_forward_pre_hook(lambda *_: stamps.append(time.perf_counter()))
    try:
        call(tokens + 2)
    finally:
        hook.remove()
    return statistics.median(after - before for before, after in pairwise(stamps[1:]))


def measure(people: int, dtype: str, tokens: int, rounds: int) -> dict[str, Any]:
    calls, apart = variants(people, dtype)
    if apart > {"fp32": 1e-5, "bf16": 3e-2}[dtype]:
        raise SystemExit(f"the bare engine's logits are off by {apart:.2g} in {dtype}; nothing is timed")
    steps: dict[str, list[float]] = {name: [] for name in calls}
    for each in range(-1, rounds):  # the first round is for warming up
        for name, (model, call) in calls.items():
            step = between(model, call, tokens)
            if each >= 0:
                steps[name].append(step)
    ratios = {
        name: quartiles([mine / theirs for mine, theirs in zip(found, steps["transformers"], strict=True)])
        for name, found in steps.items()
    }
    return {
        "people": people,
        "dtype": dtype,
        "apart": apart,
        "step_ms": {name: quartiles([1000 * each for each in found]) for name, found in steps.items()},
        "ratio": ratios,
    }


def quartiles(values: list[float]) -> list[float]:
    return [round(value, 4) for value in statistics.quantiles(values * 2, n=4)]


def about() -> dict[str, Any]:
    """When and where a run was made, and with what."""
    import torch

    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "spin": os.environ["GOMP_SPINCOUNT"],
        "versions": {name: version(name) for name in ("soupmix", "torch", "transformers", "peft")},
    }


def table() -> str:
    """docs/decode.md from the newest run."""
    run = json.loads(DATA.read_text().splitlines()[-1])
    lines = [
        "# A decode step, end to end",
        "",
        "Generated by `python benchmarks/decode.py` from `benchmarks/data/decode.jsonl`: SmolLM2-135M-Instruct, the six shipped",
        "adapters, every row its own weights. Interleaved; medians and quartiles over rounds of the ratio within a round to",
        "`generate` of transformers on the bare base, which knows no adapters. `peft` is one adapter for everybody, `plain` the",
        "engine with fused=False. Below 1 is faster.",
        "",
        f"{run['date']}, {run['processor']}, {run['threads']} threads, GOMP_SPINCOUNT={run['spin']}, torch {run['versions']['torch']}, "
        f"transformers {run['versions']['transformers']}, {run['rounds']} rounds of {run['tokens']} tokens.",
        "",
        "| people | dtype | transformers, ms a step | " + " | ".join(run["cells"][0]["ratio"]) + " |",
        "|---|---|---|" + "---|" * len(run["cells"][0]["ratio"]),
    ]
    for cell in run["cells"]:
        shown = (f"{m:.2f} [{low:.2f}, {high:.2f}]" for low, m, high in cell["ratio"].values())
        lines.append(
            f"| {cell['people']} | {cell['dtype']} | {cell['step_ms']['transformers'][1]:.1f} | "
            + " | ".join(shown)
            + " |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--people", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--dtypes", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--table", action="store_true", help="only write docs/decode.md from the data")
    given = parser.parse_args()
    if not given.table:
        spinning()
        cells = [
            measure(people, dtype, given.tokens, given.rounds) for dtype in given.dtypes for people in given.people
        ]
        run = {
            **about(),
            "rounds": given.rounds,
            "tokens": given.tokens,
            "cells": cells,
        }
        with DATA.open("a") as file:
            file.write(json.dumps(run, sort_keys=True) + "\n")
        print(json.dumps(cells, indent=1))
    PAGE.write_text(table())


if __name__ == "__main__":
    main()
