"""The section of the whole engine: the same logits and texts as on the CPU, and tokens a second."""

import os
import threading
import time

import torch

from benchmarks.gpu_day.day import Day

PROMPTS = ("Why is the sky blue?", "How do I boil an egg?", "Tell me about rain.", "What is a prime number?")
ROWS, TOKENS = (1, 16, 64), 64


def engine(day: Day) -> None:
    """Four people in fp32 here and on the CPU; then one, 16 and 64 people in bf16, in one padded batch and in a running one."""
    from soupmix import Engine, Policy, Store

    os.environ["SOUPMIX_KERNELS"] = "auto"  # Triton where there is a GPU; beside it the CPU computes by torch
    store = Store(day.store) if day.store else Store.shipped()
    policy, base = Policy.open(store), day.base or "smollm2-135m-instruct"
    first, second, *_ = store.names
    grants = [policy.clamp(each) for each in ({first: 1.0}, {second: 0.5}, {first: 0.25, second: 0.75}, {})]
    found = []
    for device in ("cpu", day.device):
        made = Engine.load(base, store, policy=policy, dtype="fp32", device=device)
        texts = made.generate(PROMPTS, grants, max_new_tokens=4 if day.tiny else 24)
        ids = torch.tensor(
            [made.chat_tokens(PROMPTS[0]) if made.tokenizer.chat_template else made.plain_tokens(PROMPTS[0])] * 4
        )
        found.append((texts, made.logits(ids.to(device), grants).float().cpu()))
        del made
    (texts, logits), (there, other) = found
    off = float((logits - other).abs().max())
    day.note("engine", same_texts=texts == there, logits_off=off)
    if not off < 0.02:
        day.fail("engine", f"logits in fp32 differ by {off:.3g}")
    made = Engine.load(base, store, policy=policy, dtype="bf16", device=day.device)
    for rows in (1, 3) if day.tiny else ROWS:
        for name, way in (("padded", _padded), ("running", _running)):
            some = [grants[n % 4] for n in range(rows)]
            way(made, some, 4)  # what is compiled and tried when it is first used
            seconds, tokens = way(made, some, 4 if day.tiny else TOKENS)
            day.note("engine", way=name, rows=rows, tokens=tokens, seconds=seconds)


def _padded(engine, grants, count: int) -> tuple[float, int]:
    from soupmix.engine import Sampling

    start = time.perf_counter()
    out = engine.complete([PROMPTS[n % 4] for n in range(len(grants))], grants, sampling=Sampling(max_new_tokens=count))
    return time.perf_counter() - start, sum(each.tokens for each in out)


def _running(engine, grants, count: int) -> tuple[float, int]:
    from soupmix.backends import Delta, Limits, Request
    from soupmix.batching import Batcher
    from soupmix.engine import Sampling

    over, tokens = threading.Semaphore(0), []

    def sink(delta: Delta) -> None:
        tokens.extend(delta.tokens)
        if delta.finish:
            over.release()

    with Batcher(engine, Limits(rows=len(grants), length=256)) as batcher:
        prompts = [engine.plain_tokens(PROMPTS[n % 4]) for n in range(len(grants))]
        start = time.perf_counter()
        for prompt, grant in zip(prompts, grants, strict=True):
            batcher.submit(Request(prompt, grant, Sampling(max_new_tokens=count), logprobs=0), sink)
        for _ in grants:
            if not over.acquire(timeout=60):
                raise RuntimeError("the running batch did not end its answers")
        return time.perf_counter() - start, len(tokens)
