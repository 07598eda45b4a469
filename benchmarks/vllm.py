"""Soups inside vLLM against its bare base and its own LoRA, with a different person in every row.

Each process makes one vLLM engine and answers the same prompts by two arms in turn: the bare base, and

    soupmix   the adapters of a store held once, every row its own weights of them
    stock     vLLM's own multi-LoRA: every row an adapter of its own, in a slot of its own (those of the store in turn)

What counts is the ratio of an arm to the base of its own process, by CPU-seconds of one thread, which neighbours on the machine
disturb little; medians over rounds. Run it by the Python of an environment with vLLM and soupmix (`make test-vllm` makes one):

    .venv-vllm/bin/python benchmarks/vllm.py --people 16,64
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path = [each for each in sys.path if Path(each).resolve() != HERE.resolve()]  # this file is no package vllm
QUIET = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # so that one process computes all, and its CPU time says all
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}


def measured(arm: str, given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of CPU by people and arm, of this process's engine."""
    from soupmix.base import resolve
    from soupmix.store import Store

    store, base = Store(given.store) if given.store else Store.shipped(), resolve(given.base)
    most = max(given.people)
    from vllm import LLM, SamplingParams, TokensPrompt

    more: dict[str, Any] = {}
    if arm == "stock":
        ranks = {factors.rank for name in store.names for factors in store.load(name).modules.values()}
        rank = next(each for each in (8, 16, 32, 64, 128) if each >= max(ranks))
        more = {"enable_lora": True, "max_loras": most, "max_cpu_loras": most, "max_lora_rank": rank}
    engine = LLM(
        str(base.folder), dtype=given.dtype, max_model_len=128, max_num_seqs=most, enforce_eager=True,
        enable_prefix_caching=False, disable_log_stats=True, **more,
    )  # fmt: skip
    how = {"max_tokens": given.tokens, "temperature": 0, "ignore_eos": True}

    def answer(people: int, bare: bool) -> float:
        prompts = [[100 + (7 * row + 13 * place) % 1000 for place in range(given.prompt)] for row in range(people)]
        asked: dict[str, Any] = {}
        params = [SamplingParams(**how) for _ in prompts]
        if not bare and arm == "stock":
            from vllm.lora.request import LoRARequest

            paths = [str(store.path(name)) for name in store.names]
            asked["lora_request"] = [LoRARequest(f"p{n}", n + 1, paths[n % len(paths)]) for n in range(people)]
        elif not bare:
            params = [SamplingParams(**how, extra_args=_row(n, people, prompt)) for n, prompt in enumerate(prompts)]
        given_prompts = [TokensPrompt(prompt_token_ids=each, cache_salt=f"s{n}") for n, each in enumerate(prompts)]
        started = time.process_time()
        engine.generate(given_prompts, params, use_tqdm=False, **asked)
        return time.process_time() - started

    found: dict[str, Any] = {}
    for people in given.people:
        answer(people, bare=False)  # whoever is new is loaded
        rounds = [(answer(people, bare=True), answer(people, bare=False)) for _ in range(given.rounds)]
        found[str(people)] = {
            "base_s": statistics.median(one for one, _ in rounds),
            "arm_s": statistics.median(other for _, other in rounds),
            "share_of_base": statistics.median(one / other for one, other in rounds),
        }
    return {"arm": arm, "adapters": len(store.names), "found": found}


def _row(number: int, people: int, prompt: list[int]) -> dict[str, str]:
    """The sealed row of one of many people, all different."""
    from soupmix.vllm_plugin.hooks import _INSTALLED
    from soupmix.vllm_plugin.row import FIELD, SoupRow

    checker = _INSTALLED[0]
    names = [name for name, _ in checker.adapters]
    asked = {name: (1 + (number * (place + 3)) % people) / people / len(names) for place, name in enumerate(names)}
    grant = checker.policy.clamp(asked)
    return {FIELD: SoupRow.of(grant, checker.adapters, f"s{number}").seal(checker.setup.key, prompt)}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--base", default="smollm2-135m-instruct")
    asked.add_argument("--store", help="folder of the adapters; the shipped ones if not given")
    asked.add_argument("--people", default="16,64", type=lambda text: [int(each) for each in text.split(",")])
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--tokens", type=int, default=16)
    asked.add_argument("--prompt", type=int, default=16)
    asked.add_argument("--dtype", default="bfloat16")
    asked.add_argument("--arms", default="soupmix,stock", type=lambda text: text.split(","))
    asked.add_argument("--arm", help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.arm:
        print(json.dumps(measured(given.arm, given)))
        return
    with tempfile.TemporaryDirectory() as folder:
        setup = Path(folder) / "setup.json"
        (Path(folder) / "key").write_bytes(os.urandom(32))
        store = {"store": str(Path(given.store).absolute())} if given.store else {}
        setup.write_text(json.dumps({"key": "key", "open": True, **store}))
        results = []
        for arm in given.arms:
            served = {"SOUPMIX_VLLM": str(setup)} if arm == "soupmix" else {}
            words = [sys.executable, __file__, *sys.argv[1:], "--arm", arm]
            done = subprocess.run(
                words, env={**os.environ, **QUIET, **served}, stdout=subprocess.PIPE, text=True, check=True
            )
            results.append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(results[-1]))
    line = {"date": datetime.now(UTC).date().isoformat(), "given": {k: v for k, v in vars(given).items() if k != "arm"}}
    with (HERE / "data" / "vllm.jsonl").open("a") as file:
        file.write(json.dumps({**line, "results": results}) + "\n")


if __name__ == "__main__":
    main()
