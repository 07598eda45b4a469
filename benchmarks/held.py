"""A base in 8 and 4 bits against bf16: a decode step of so many rows, and how surprised the base is by neutral prose.

    python benchmarks/held.py [--json] [--steps 20] [--rows 1 8 64] [--dtypes bf16 int8 int4] [--no-prose]

SmolLM2-135M-Instruct and the six shipped adapters, all steps compiled. In one run, every order of arms alike, medians:

    step    ms of a step of the running batch from plan to token, everybody different (`soup`) or nobody served (`base`)
    ratio   of it to the same of the first dtype within a round, with quartiles
    prose   perplexity of neutral prose (`soupmix.evaluate`) by the bare base, all logits by compiled steps, and the mean
            KL divergence of the next token from the first dtype's, in nats

Nothing is written; figures are in docs/quantised.md.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

from decode import spinning
from floor import quartiles
from machine import processor

BASE, PROMPT = "smollm2-135m-instruct", "The sky is blue because"


def steps(engine: Any, grants: list[Any], count: int) -> Iterator[None]:
    """Answers of a running batch, a step of all each time; the prompt and two tokens are computed already."""
    from soupmix.backends import Limits, Request, Sampling
    from soupmix.batching.batcher import Batcher

    with Batcher(engine, Limits(rows=len(grants), length=256)) as batcher:
        prompt, sampling = engine.plain_tokens(PROMPT), Sampling(max_new_tokens=count)
        for grant in grants:
            batcher._scheduler.add(batcher._answer(Request(prompt, grant, sampling), lambda _: None))
        for number in range(count):
            plan = batcher._scheduler.plan()
            made = batcher._runner.step(plan)
            batcher._scheduler.computed(plan)
            for answer, token in made:
                answer.answer.append(token.id)  # an answer that ends goes on here
            if number >= 2 and len(made) == len(grants):
                yield


def timed(work: Iterator[None]) -> float:
    start = time.perf_counter()
    next(work)
    return 1000 * (time.perf_counter() - start)


def measured(engines: dict[str, Any], rows: int, count: int) -> dict[str, Any]:
    """Steps of so many rows: arm -> dtype -> median in ms, and quartiles of the ratio."""
    from soupmix import Policy, Store

    policy, names = Policy.open(Store.shipped()), Store.shipped().names
    soups = [{names[n % 6]: (1 + n % 9) / 10, names[(n + 2) % 6]: (1 + n % 4) / 8} for n in range(rows)]
    arms = {"soup": [policy.clamp(each) for each in soups], "base": [policy.clamp({})] * rows}
    work = {
        (arm, name): steps(engine, grants, count + 2 * rows + 12)
        for arm, grants in arms.items()
        for name, engine in engines.items()
    }
    turn, first = Random(0), next(iter(engines))
    rounds = [{key: timed(work[key]) for key in turn.sample(list(work), len(work))} for _ in range(count + 2)][2:]
    return {
        arm: {
            name: {
                "ms": round(statistics.median(each[arm, name] for each in rounds), 2),
                "ratio": quartiles([each[arm, name] / each[arm, first] for each in rounds]),
            }
            for name in engines
        }
        for arm in arms
    }


def prose(engines: dict[str, Any]) -> dict[str, Any]:
    """Of every dtype: perplexity of neutral prose, and the mean divergence from the first dtype."""
    import torch

    from soupmix.evaluate.promptset import neutral_paragraphs

    found, first = {name: [0.0, 0.0, 0] for name in engines}, next(iter(engines))
    for text in neutral_paragraphs():
        kept: Any = None
        for name, engine in engines.items():
            ids = torch.tensor(engine.plain_tokens(text))
            place = torch.arange(len(ids))
            with torch.inference_mode():
                logits = engine.step.in_slots(1, len(ids)).logits(ids, place, torch.zeros_like(ids), place)
                log_p = torch.log_softmax(logits[:-1].double(), -1)
            kept = log_p if name == first else kept
            sums = found[name]
            sums[0] -= float(log_p.gather(1, ids[1:, None]).sum())
            sums[1] += float((kept.exp() * (kept - log_p)).sum())
            sums[2] += len(ids) - 1
    return {
        name: {"perplexity": round(float(torch.tensor(nll / n).exp()), 3), "kl": round(kl / n, 5)}
        for name, (nll, kl, n) in found.items()
    }


def measure(given: argparse.Namespace) -> dict[str, Any]:
    import torch

    from soupmix import Store
    from soupmix.backends.local import LocalBackend

    engines = {}
    for name in given.dtypes:
        with LocalBackend.open(BASE, Store.shipped(), dtype=name) as backend:
            engines[name] = backend.engine
    found: dict[str, Any] = {str(rows): measured(engines, rows, given.steps) for rows in given.rows}
    return {
        **found,
        **({} if given.no_prose else {"prose": prose(engines)}),
        "step": {name: engine.step.why for name, engine in engines.items()},
        "threads": torch.get_num_threads(),
        "spin": os.environ["GOMP_SPINCOUNT"],
        "processor": processor(),
        "steps": given.steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--dtypes", nargs="+", default=["bf16", "int8", "int4"])
    parser.add_argument("--no-prose", action="store_true", help="steps alone")
    given = parser.parse_args()
    spinning()
    with ThreadPoolExecutor(1) as alone:  # the thread that loads must not keep workers of its own
        found = alone.submit(measure, given).result()
    if given.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:10} {value}")


if __name__ == "__main__":
    main()
