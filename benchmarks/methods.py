"""Ways of merging, method by method: soupmix against PEFT's `add_weighted_adapter` and against mergekit's command.

    python benchmarks/methods.py [--rounds 3] [--layers 2] [--table]

A base of random weights in bf16 (hidden 1024) and three adapters of rank 16 are made here. Every measurement is a process of its
own, so that its peak memory is its own, with one thread; the tools take turns, method by method, round by round:

    adapter     adapters on disk in, an adapter on disk out, imports aside. PEFT's call alone, on a loaded model, is timed, too
    model       the whole command, start and imports too, on one and the same recipe; mergekit's cache of merged LoRAs is empty

PEFT's methods of a low rank are those on whole deltas (`ties_svd` and its like), which is what soupmix means by the names. Before
the times of a pair are told, what came out is compared, where both mean the same and nothing is drawn. mergekit runs in
an environment of its own (`make .venv-mergekit.done`); without it its half is left out. Rows go to benchmarks/data/methods.jsonl,
the page is docs/methods_bench.md.
"""

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from machine import processor
from synthetic import RANK, Shape, make_adapter, make_base

ROOT = Path(__file__).parents[1]
DATA, PAGE = ROOT / "benchmarks/data/methods.jsonl", ROOT / "docs/methods_bench.md"
MERGEKIT = ROOT / ".venv-mergekit/bin/mergekit-yaml"
WEIGHTS = {"p0": 0.5, "p1": 0.25, "p2": 0.75}
DENSITY = 0.4
PEFT = {  # ours -> PEFT's, whether the two are the same
    "delta": ("cat", True),
    "factor": ("linear", False),
    "svd": ("svd", True),
    "magnitude_prune": ("magnitude_prune_svd", True),
    "ties": ("ties_svd", False),
    "dare_linear": ("dare_linear_svd", False),
    "dare_ties": ("dare_ties_svd", False),
}
ALONE = ("karcher", "model_stock", "sce", "knots", "della", "breadcrumbs")
EXACT = ("delta", "factor", "svd", "karcher", "model_stock", "knots")
COMMANDS = {  # mergekit's name -> what the recipe says besides, whether the two are the same
    "linear": ("", True),
    "task_arithmetic": ("", True),
    "ties": (f"density: {DENSITY}", True),
    "dare_linear": (f"density: {DENSITY}", False),
    "della": (f"density: {DENSITY}, epsilon: 0.1", False),
    "breadcrumbs": (f"density: {DENSITY}, gamma: 0.01", True),
}


def ours(where: Path, out: Path, method: str) -> dict[str, float]:
    """Adapters on disk to an adapter on disk."""
    import scipy.sparse.linalg  # noqa: F401
    import torch

    import soupmix.merge.soup  # noqa: F401
    from soupmix.merge import merge
    from soupmix.methods import find_method
    from soupmix.policy import Policy
    from soupmix.store import Store

    known = {option.name for option in find_method(method).options}
    options = {"density": DENSITY} if "density" in known else {"svd_rank": RANK} if method == "svd" else {}
    torch.ones(2) @ torch.ones(2)
    begin, cpu = time.perf_counter(), time.process_time()
    store = Store(where / "store")
    soup = merge(store, Policy.open(store).clamp(WEIGHTS), method=method, options=options)
    soup.save_adapter(out, rank=None if method in EXACT else RANK)
    return {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu}


def peft(where: Path, out: Path, method: str) -> dict[str, float]:
    """The same; what the call alone takes besides."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, LlamaForCausalLM  # noqa: F401

    kind = PEFT[method][0]
    said: dict[str, Any] = {"svd_rank": RANK} if "svd" in kind else {}
    said |= {"density": DENSITY} if "_" in kind else {}
    torch.ones(2) @ torch.ones(2)
    begin, cpu = time.perf_counter(), time.process_time()
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(where / "base", trust_remote_code=False), where / "p0", adapter_name="p0"
    )
    for name in ("p1", "p2"):
        model.load_adapter(where / name, adapter_name=name)
    call, call_cpu = time.perf_counter(), time.process_time()
    model.add_weighted_adapter(list(WEIGHTS), list(WEIGHTS.values()), "merged", combination_type=kind, **said)
    alone = {"call_seconds": time.perf_counter() - call, "call_cpu_seconds": time.process_time() - call_cpu}
    model.save_pretrained(out, selected_adapters=["merged"])
    return {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu, **alone}


def commanded(where: Path, out: Path, method: str, command: Sequence[str]) -> dict[str, float]:
    """A whole command on the recipe of a method."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" or "soupmix" in command[0]}
    begin = time.perf_counter()
    whole = [*command[:-1], str(where / f"{method}.yaml"), str(out), *command[-1].split()]
    done = subprocess.run(whole, capture_output=True, text=True, env=clean | {"HF_HUB_OFFLINE": "1"})
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {"seconds": time.perf_counter() - begin, "cpu_seconds": used.ru_utime + used.ru_stime}
    return found | {"peak_bytes": used.ru_maxrss * 1024}


def soupmix_command(where: Path, out: Path, method: str) -> dict[str, float]:
    program = str(Path(sys.executable).parent / "soupmix")
    return commanded(where, out, method, [program, "merge", f"--store {where / 'store'}"])


def mergekit_command(where: Path, out: Path, method: str) -> dict[str, float]:
    cache = f"--lora-merge-cache {out}-cache --lora-merge-dtype float32 --no-copy-tokenizer"
    try:
        return commanded(where, out, method, [str(MERGEKIT), cache])
    finally:
        shutil.rmtree(f"{out}-cache", ignore_errors=True)


VARIANTS = {
    "soupmix adapter": ours,
    "peft adapter": peft,
    "soupmix model": soupmix_command,
    "mergekit model": mergekit_command,
}


def run(variant: str, method: str, where: Path) -> dict[str, float]:
    """One measurement in a process of its own; what it wrote stays for `gate` until the next one of the kind."""
    out = where / "out" / f"{variant} {method}".replace(" ", "-")
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, __file__, "--variant", variant, "--method", method, "--folder", str(where)]
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def make_all(where: Path, layers: int) -> None:
    """Base, adapters, store and recipes in a folder."""
    from soupmix.base import resolve
    from soupmix.store import Store

    shape = Shape(1024, 2816, 256, layers, 8192)
    make_base(where / "base", shape)
    store = Store(where / "store", create=True)
    base = resolve(where / "base", squares=True)
    for seed, name in enumerate(WEIGHTS):
        make_adapter(where / name, shape, seed)
        store.add(where / name, name=name, dimension=f"d{seed}", pole=name, base=base)
    for method, (rest, _) in COMMANDS.items():
        models = "".join(
            f"- {{model: {where / 'base'}+{where / name}, parameters: {{weight: {weight}}}}}\n"
            for name, weight in WEIGHTS.items()
        )
        over = "" if method == "linear" else f"base_model: {where / 'base'}\n"
        text = f"merge_method: {method}\n{over}models:\n{models}parameters: {{{rest}}}\ndtype: float32\n"
        (where / f"{method}.yaml").write_text(text)


def adapter_of(folder: Path) -> Mapping[str, Any]:
    from safetensors.torch import load_file

    held = load_file(next(folder.rglob("adapter_model.safetensors")))
    config = json.loads(next(folder.rglob("adapter_config.json")).read_text())
    names = [name.removesuffix(".lora_A.weight") for name in held if name.endswith("lora_A.weight")]
    scale = config["lora_alpha"] / config["r"]
    return {
        name: scale * held[f"{name}.lora_B.weight"].double() @ held[f"{name}.lora_A.weight"].double() for name in names
    }


def model_of(folder: Path) -> Mapping[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def gate(one: Mapping[str, Any], other: Mapping[str, Any], less: Mapping[str, Any] | None) -> float:
    """Relative error of what two tools made, of the change where they are whole models over a base."""
    apart = whole = 0.0
    for name, made in one.items():
        before = 0.0 if less is None else less[name].double()
        expected = other[name].double() - before
        apart += float((made.double() - before - expected).square().sum())
        whole += float(expected.square().sum())
    return float((apart / whole) ** 0.5)


def checked(where: Path) -> dict[str, float]:
    """Relative error by method, of those that mean the same; one of more than 5e-3 ends the program.

    PEFT stores what it makes on a base in bf16 in bf16, an error of 2e-3.
    """
    out, found = where / "out", {}
    for method, (_, is_same) in PEFT.items():
        if is_same:
            pair = (adapter_of(out / f"{tool}-adapter-{method}") for tool in ("soupmix", "peft"))
            found[f"peft {method}"] = gate(*pair, None)
    if MERGEKIT.exists():
        base = model_of(where / "base")
        for method, (_, is_same) in COMMANDS.items():
            if is_same:
                pair = (model_of(out / f"{tool}-model-{method}") for tool in ("soupmix", "mergekit"))
                found[f"mergekit {method}"] = gate(*pair, base)
    wrong = {name: error for name, error in found.items() if not error < 5e-3}
    if wrong:
        sys.exit(f"what came out is not the same: {wrong}; no time is told")
    return found


def measure(where: Path, layers: int, rounds: int) -> dict[str, Any]:
    load = os.getloadavg()[0]
    make_all(where, layers)
    plan = [("soupmix adapter", method) for method in (*PEFT, *ALONE)] + [("peft adapter", each) for each in PEFT]
    plan += [("soupmix model", each) for each in COMMANDS]
    plan += [("mergekit model", each) for each in COMMANDS] if MERGEKIT.exists() else []
    plan.sort(key=lambda pair: pair[1])
    (where / "out").mkdir()
    found: dict[str, list[dict[str, float]]] = {f"{variant} {method}": [] for variant, method in plan}
    errors: dict[str, float] = {}
    for _ in range(rounds):
        for variant, method in plan:
            found[f"{variant} {method}"].append(run(variant, method, where))
        errors = errors or checked(where)
    tools = ("soupmix", "torch", "peft", "transformers")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": processor(),
        "load_before": round(load, 1),
        "layers": layers,
        "rounds": rounds,
        "errors": errors,
        "found": {name: {key: [round(row[key], 4) for row in rows] for key in rows[0]} for name, rows in found.items()},
        "versions": {name: version(name) for name in tools},
    }


def middle(values: Sequence[float]) -> float:
    return statistics.median(values)


def ratio(row: Mapping[str, Any], theirs: str, mine: str, key: str) -> str:
    """Theirs over ours within a round, median."""
    mine_key = key.removeprefix("call_")
    pairs = zip(row["found"][theirs][key], row["found"][mine][mine_key], strict=True)
    return f"{middle([a / b for a, b in pairs]):.1f}"


def adapters(row: Mapping[str, Any]) -> Iterator[str]:
    yield "| method | soupmix, s | CPU-s | peak MiB | PEFT, s | CPU-s | its call alone, CPU-s | peak MiB | CPU ratio | call alone |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for method in (*PEFT, *ALONE):
        mine, theirs = f"soupmix adapter {method}", f"peft adapter {method}"
        said = [*figures(row, mine)]
        if theirs in row["found"]:
            seconds, cpu, peak = figures(row, theirs)
            call = f"{middle(row['found'][theirs]['call_cpu_seconds']):.2f}"
            said += [
                seconds,
                cpu,
                call,
                peak,
                *(ratio(row, theirs, mine, f"{each}cpu_seconds") for each in ("", "call_")),
            ]
        yield f"| `{method}` | {' | '.join([*said, *[''] * (9 - len(said))])} |"


def models(row: Mapping[str, Any]) -> Iterator[str]:
    yield "| recipe | soupmix, s | CPU-s | peak MiB | mergekit, s | CPU-s | peak MiB | ratio of times | CPU ratio |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for method in COMMANDS:
        mine, theirs = f"soupmix model {method}", f"mergekit model {method}"
        said = [*figures(row, mine)]
        if theirs in row["found"]:
            said += [*figures(row, theirs), *(ratio(row, theirs, mine, key) for key in ("seconds", "cpu_seconds"))]
        yield f"| `{method}` | {' | '.join([*said, *[''] * (8 - len(said))])} |"


def figures(row: Mapping[str, Any], name: str) -> tuple[str, str, str]:
    held = row["found"][name]
    seconds, cpu = (f"{middle(held[key]):.2f}" for key in ("seconds", "cpu_seconds"))
    return seconds, cpu, f"{max(held['peak_bytes']) / 2**20:.0f}"


def page() -> str:
    """docs/methods_bench.md, from the newest row."""
    row = json.loads(DATA.read_text().splitlines()[-1])
    errors = ", ".join(f"`{name}` {error:.0e}" for name, error in row["errors"].items())
    head = f"""\
# Ways of merging, measured

Generated by `python benchmarks/methods.py` from `benchmarks/data/methods.jsonl`. Every measurement is a process of its own with one
thread, the tools in turns; medians of {row["rounds"]} round(s). {row["date"]}, {row["processor"]}, torch {row["versions"]["torch"]}, PEFT
{row["versions"]["peft"]}, mergekit 0.1.5; the load of the machine was {row["load_before"]} when it began: where others work, CPU-seconds say
more than seconds. Random weights in bf16, hidden 1024, {row["layers"]} layers, three adapters of rank {RANK}; density {DENSITY}.

Compared before, as relative errors of deltas: {errors}. `linear` and
`ties_svd` of PEFT are other merges than `factor` and `ties` ([methods.md](methods.md)), and what is drawn differs. PEFT stores
what it makes on a base in bf16 in bf16.

## Adapters in, an adapter out

Of rank {RANK}, or exact where the method gives factors. Imports are not timed, reading and writing is. soupmix checks and hashes
what it reads and writes, PEFT loads the base, which it needs; its call alone is on a loaded model.

"""
    between = """

## A recipe of mergekit in, a model out

The whole commands on one recipe, imports too; mergekit's cache of merged LoRAs is empty.

"""
    return head + "\n".join(adapters(row)) + between + "\n".join(models(row)) + "\n"


def peak() -> int:
    """Highest resident size of this program so far, in bytes. `ru_maxrss` would count the parent's before the exec."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="only write the page from the data")
    for name in ("variant", "method", "folder", "out"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if given.variant:
        row = VARIANTS[given.variant](Path(given.folder), Path(given.out), given.method)
        print(json.dumps({"peak_bytes": peak()} | row))
        return
    if not given.table:
        with tempfile.TemporaryDirectory() as where:
            row = measure(Path(where), given.layers, given.rounds)
        with DATA.open("a") as file:
            file.write(json.dumps(row, sort_keys=True) + "\n")
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
