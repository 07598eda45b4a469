"""Soups inside vLLM against its bare base and its own LoRA, with a different person in every row.

Each process makes one vLLM engine and answers the same prompts by two arms in turn: the bare base, and

    soupmix   the adapters of a store held once, every row its own weights of them
    stock     vLLM's own multi-LoRA: every row an adapter of its own, in a slot of its own (those of the store in turn)
    stacked   the same, with the exact merge of every person's soup as its adapter: its rank is the sum of theirs

What counts is the ratio of an arm to the base of its own process, by CPU-seconds of one thread, which neighbours on the machine
disturb little; medians over rounds. `new_s` is what one more person costs who was never seen: an answer of one token, less the
same once more; `person_bytes` what is held of a person. Adapters beyond the shipped six are copies of them with other numbers.
Run it by the Python of an environment with vLLM and soupmix (`make test-vllm` makes one):

    .venv-vllm/bin/python benchmarks/vllm.py --people 16,64
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
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
    """Seconds of CPU by people, of this process's engine."""
    from vllm import LLM

    from soupmix.base import resolve
    from soupmix.store import Store

    store, base, most = Store(given.store), resolve(given.base), max(given.people)
    ranks = [factors.rank for name in store.names for factors in store.load(name).modules.values()]
    more: dict[str, Any] = {}
    if arm != "soupmix":
        least = max(ranks) * (len(store.names) if arm == "stacked" else 1)
        rank = next(each for each in (8, 16, 32, 64, 128, 256) if each >= least)
        more = {"enable_lora": True, "max_loras": most + 1, "max_cpu_loras": most + 1, "max_lora_rank": rank}
    engine = LLM(
        str(base.folder), dtype=given.dtype, max_model_len=128, max_num_seqs=most, enforce_eager=True,
        enable_prefix_caching=False, disable_log_stats=True, **more,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        asking = _Asking(engine, arm, store, given, Path(folder))
        found = {str(people): _compared(asking, people, given.rounds) for people in given.people}
        asking.tokens = 1
        first, *again = [asking.seconds(most, False, only=most) for _ in range(6)]
    held = sum(
        sum(part.A.numel() + part.B.numel() for part in store.load(name).modules.values()) for name in store.names
    )
    bytes_of = {"soupmix": 4 * len(store.names), "stacked": 2 * held, "stock": 2 * held // len(store.names)}
    new = {"new_s": first - statistics.median(again), "person_bytes": bytes_of[arm]}
    return {"arm": arm, "adapters": len(store.names), "found": found, **new}


def _compared(asking: "_Asking", people: int, rounds: int) -> dict[str, float]:
    asking.seconds(people, False)  # whoever is new is loaded
    asking.seconds(people, True)
    found = [(asking.seconds(people, True), asking.seconds(people, False)) for _ in range(rounds)]
    return {
        "base_s": statistics.median(one for one, _ in found),
        "arm_s": statistics.median(other for _, other in found),
        "share_of_base": statistics.median(one / other for one, other in found),
    }


class _Asking:
    """Asks an engine for answers of many people, all of different weights."""

    def __init__(self, engine: Any, arm: str, store: Any, given: argparse.Namespace, folder: Path) -> None:
        self.engine, self.arm, self.store, self.given, self.folder = engine, arm, store, given, folder
        self.tokens = given.tokens

    def seconds(self, people: int, bare: bool, only: int | None = None) -> float:
        """CPU-seconds of the answers of so many people, on the bare base or by the arm; `only` of this one person."""
        from vllm import SamplingParams, TokensPrompt

        numbers = range(people) if only is None else [only]
        prompts = [[100 + (7 * row + 13 * place) % 1000 for place in range(self.given.prompt)] for row in numbers]
        how = {"max_tokens": self.tokens, "temperature": 0, "ignore_eos": True}
        rows = [
            {} if bare or self.arm != "soupmix" else {"extra_args": _row(n, p)}
            for n, p in zip(numbers, prompts, strict=True)
        ]
        asked: dict[str, Any] = {}
        if not bare and self.arm != "soupmix":
            asked["lora_request"] = [self._adapter(n) for n in numbers]
        told = [
            TokensPrompt(prompt_token_ids=each, cache_salt=f"s{n}") for n, each in zip(numbers, prompts, strict=True)
        ]
        started = time.process_time()
        self.engine.generate(told, [SamplingParams(**how, **each) for each in rows], use_tqdm=False, **asked)
        return time.process_time() - started

    def _adapter(self, number: int) -> Any:
        from vllm.lora.request import LoRARequest

        path = self.store.path(self.store.names[number % len(self.store.names)])
        if self.arm == "stacked":
            from soupmix import Policy, merge

            path = self.folder / str(number)
            if not path.exists():
                merge(self.store, Policy.open(self.store).clamp(_weights(number, self.store.names))).save_adapter(path)
        return LoRARequest(f"p{number}", number + 1, str(path))


def _weights(number: int, names: Sequence[str]) -> dict[str, float]:
    """Of one of many people, all different."""
    return {name: (1 + (number * (place + 3)) % 97) / 97 / len(names) for place, name in enumerate(names)}


def _row(number: int, prompt: list[int]) -> dict[str, str]:
    """The sealed row of one of many people."""
    from soupmix.vllm_plugin.hooks import _INSTALLED
    from soupmix.vllm_plugin.row import FIELD, SoupRow

    checker = _INSTALLED[0]
    grant = checker.policy.clamp(_weights(number, [name for name, _ in checker.adapters]))
    return {FIELD: SoupRow.of(grant, checker.adapters, f"s{number}").seal(checker.setup.key, prompt)}


def _store(count: int, folder: Path, base: str) -> Path:
    """A store of the first so many shipped adapters, and of copies of them with other numbers where there are no more."""
    import torch
    from safetensors.torch import load_file, save_file

    from soupmix.base import resolve
    from soupmix.store import Store

    shipped, made = Store.shipped(), Store(folder / f"store{count}", create=True)
    for number in range(count):
        entry = list(shipped)[number % len(shipped.names)]
        path = folder / f"adapter{count}-{number}"
        shutil.copytree(shipped.path(entry.name), path)
        if number >= len(shipped.names):
            weights = load_file(path / "adapter_model.safetensors")
            turned = {name: torch.roll(each, 1, -1).contiguous() for name, each in weights.items()}
            save_file(turned, path / "adapter_model.safetensors", {"format": "pt"})
        name = entry.name if number < len(shipped.names) else f"{entry.name}{number}"
        made.add(path, name=name, dimension=f"d{number}", pole=name, base=resolve(base))
    return made.folder


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--base", default="smollm2-135m-instruct")
    asked.add_argument("--adapters", default="6", type=lambda text: [int(each) for each in text.split(",")])
    asked.add_argument("--people", default="16,64", type=lambda text: [int(each) for each in text.split(",")])
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--tokens", type=int, default=16)
    asked.add_argument("--prompt", type=int, default=16)
    asked.add_argument("--dtype", default="bfloat16")
    asked.add_argument("--arms", default="soupmix,stock,stacked", type=lambda text: text.split(","))
    asked.add_argument("--arm", help=argparse.SUPPRESS)
    asked.add_argument("--store", help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.arm:
        print(json.dumps(measured(given.arm, given)))
        return
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "key").write_bytes(os.urandom(32))
        for count in given.adapters:
            store = _store(count, folder, given.base)
            setup = folder / f"setup{count}.json"
            setup.write_text(json.dumps({"key": "key", "open": True, "store": str(store)}))
            for arm in given.arms:
                served = {"SOUPMIX_VLLM": str(setup)} if arm == "soupmix" else {}
                words = [sys.executable, __file__, *sys.argv[1:], "--arm", arm, "--store", str(store)]
                environment = {**os.environ, **QUIET, **served}
                done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                results.append(json.loads(done.stdout.splitlines()[-1]))
                print(json.dumps(results[-1]), flush=True)
    said = {name: value for name, value in vars(given).items() if name not in ("arm", "store")}
    line = {"date": datetime.now(UTC).date().isoformat(), "processor": _processor(), "given": said, "results": results}
    with (HERE / "data" / "vllm.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def _processor() -> str:
    """Such as "Intel(R) Xeon(R) with amx_bf16"."""
    file = Path("/proc/cpuinfo")
    pairs = [each.partition(":") for each in (file.read_text() if file.exists() else "").splitlines()]
    found = {name.strip(): value.strip() for name, _, value in pairs}
    units = [each for each in ("amx_bf16", "avx512_bf16") if each in found.get("flags", "").split()]
    return " ".join((found.get("model name", "unknown"), *units))


if __name__ == "__main__":
    main()
