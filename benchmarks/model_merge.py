"""`soupmix merge --as model` on a base of gigabytes, against a copy of its files that is as durable.

    python benchmarks/model_merge.py [--model 1B|8B] [--rounds 5] [--adapters 3] [--folder DIR] [--table]

The base is made here: random weights in bf16 in the shapes of a Llama of about a billion parameters, or of Llama 3.1 of eight, in
shards of 300 MB. So are its adapters, of rank 16 over all linear layers. Every variant runs in a process of its own (its peak
memory is its own), the variants interleaved round by round:

    copy+sync   every file copied, then synced, and its folder
    merge       adapters and base on disk in, a finished folder out; imports aside, digest of the base remembered

Before anything is timed, a merge is killed when half of its files (of a gigabyte each) are finished, and the same merge goes on
with them. What comes out is compared: what no adapter changes byte for byte, and the matrices of two layers with W + delta in
float64, rounded. Adding the adapters to a store is timed, too: the first reads the base, the others do not. Rows go to
benchmarks/data/model_merge.jsonl, the page is docs/model_merge.md.
"""

import argparse
import json
import os
import re
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
from synthetic import RANK, SHAPES, Shape, make_adapter, make_base

DATA = Path(__file__).parent / "data" / "model_merge.jsonl"
PAGE = Path(__file__).parents[1] / "docs" / "model_merge.md"
WEIGHTS = (0.5, 0.25, 0.75)
FILE = 1_000_000_000  # bytes of a file of the result


def make_all(where: Path, shape: Shape, adapters: int) -> list[float]:
    """Base, store and cache in a folder; how many seconds each `adapters add` took, the base's digest included."""
    from soupmix.base import resolve
    from soupmix.store import Store

    load_libraries()
    make_base(where / "base", shape)
    store, seconds = Store(where / "store", create=True), []
    for n in range(adapters):
        make_adapter(where / f"adapter{n}", shape, n)
        begin = time.perf_counter()
        base = resolve(where / "base", cache=where / "cache", squares=True)
        store.add(where / f"adapter{n}", dimension=f"d{n}", pole=f"p{n}", base=base)
        seconds.append(time.perf_counter() - begin)
    return seconds


def load_libraries() -> None:
    """Everything that is imported late, and is no part of what is timed."""
    import transformers.conversion_mapping  # noqa: F401
    from transformers import LlamaForCausalLM  # noqa: F401

    import soupmix.merge.soup  # noqa: F401


def peak() -> int:
    """Highest resident size of this program so far, in bytes. `ru_maxrss` would count the parent's before the exec."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def copy(where: Path, out: Path) -> None:
    out.mkdir()
    for file in sorted((where / "base").iterdir()):
        shutil.copyfile(file, out / file.name)
    for path in [*out.iterdir(), out]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def merge(where: Path, out: Path) -> None:
    from soupmix.base import resolve
    from soupmix.merge import merge
    from soupmix.policy import Policy
    from soupmix.store import Store

    store = Store(where / "store")
    grant = Policy.open(store).clamp(dict(zip(store.names, WEIGHTS, strict=False)))
    merge(store, grant).save_model(out, base=resolve(where / "base", cache=where / "cache"), shard_size=FILE)


VARIANTS = {"copy+sync": copy, "merge": merge}


def timed(variant: str, where: Path, out: Path) -> dict[str, float]:
    """One measurement, in this process."""
    if variant == "merge":
        load_libraries()
    before, begin, cpu = peak(), time.perf_counter(), time.process_time()
    VARIANTS[variant](where, out)
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": time.process_time() - cpu,
        "peak_bytes": peak(),
        "grown_bytes": peak() - before,
    }


def command_of(variant: str, where: Path) -> list[str]:
    return [sys.executable, __file__, "--variant", variant, "--folder", str(where), "--out", str(where / "out")]


def killed(where: Path) -> dict[str, float]:
    """A merge that is killed when half of its files are finished, and the same merge that goes on: how long either ran."""
    begin = time.perf_counter()
    child = subprocess.Popen(command_of("merge", where), stdout=subprocess.DEVNULL)
    files, kept = 1, 0
    while child.poll() is None and (not kept or 2 * kept < files):
        time.sleep(0.05)
        for journal in where.glob(".soupmix*/.soupmix-parts"):
            kept = len(journal.read_text().splitlines())
            files = int(next(journal.parent.glob("model-*")).stem.rpartition("-")[2])
    child.kill()
    child.wait()
    if (where / "out").exists() or not kept:
        sys.exit("the merge was not killed midway; nothing was timed")
    half = time.perf_counter() - begin
    return {"killed_after": half, "files_kept": kept, "files": files, "gone_on": run("merge", where)["seconds"]}


def run(variant: str, where: Path) -> dict[str, float]:
    """One measurement, in a process of its own."""
    out = where / "out"
    done = subprocess.run(command_of(variant, where), check=True, capture_output=True, text=True)
    if variant != "merge" or (where / "checked").exists():
        shutil.rmtree(out)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def tensors_of(folder: Path) -> dict[str, Any]:
    """Name -> (file, safetensors handle)."""
    from safetensors import safe_open

    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        handle = safe_open(path, "pt")
        found |= dict.fromkeys(handle.keys(), handle)
    return found


def gate(where: Path, shape: Shape, adapters: int) -> float:
    """Largest share of the numbers of a matrix that are not W + delta in float64, rounded; the process ends if it is wrong."""
    import torch
    from safetensors.torch import load_file

    before, after = tensors_of(where / "base"), tensors_of(where / "out")
    factors = [load_file(where / f"adapter{n}" / "adapter_model.safetensors") for n in range(adapters)]
    worst = 0.0
    for name in before:
        weight, made = before[name].get_tensor(name), after[name].get_tensor(name)
        path = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{path}.lora_A.weight" not in factors[0]:
            wrong = 0.0 if torch.equal(weight, made) else 1.0
        elif name.split(".")[2] in ("0", str(shape.layers - 1)):
            parts = zip(WEIGHTS, factors, strict=False)
            delta = sum(
                2 * w * f[f"{path}.lora_B.weight"].double() @ f[f"{path}.lora_A.weight"].double() for w, f in parts
            )
            wrong = float((made != (weight.double() + delta).bfloat16()).double().mean())
        else:
            continue
        worst = max(worst, wrong)
        if wrong > 0.01:
            sys.exit(f"{name} is not what it should be ({wrong:.2%} of its numbers); nothing was timed")
    (where / "checked").touch()
    shutil.rmtree(where / "out")
    return worst


def quartiles(values: Sequence[float]) -> list[float]:
    found = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else list(values) * 3
    return [round(value, 3) for value in found]


def measure(where: Path, model: str, adapters: int, rounds: int) -> dict[str, Any]:
    import torch

    load, shape = os.getloadavg()[0], SHAPES[model]
    added = make_all(where, shape, adapters)
    resumed = killed(where)
    wrong = gate(where, shape, adapters)
    size = sum(path.stat().st_size for path in (where / "base").glob("*.safetensors"))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        for name in VARIANTS:
            found[name].append(run(name, where))
    pairs = zip(found["merge"], found["copy+sync"], strict=True)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "load_before": round(load, 1),
        "bytes": size,
        "shards": len(list((where / "base").glob("*.safetensors"))),
        "model": model,
        "layers": shape.layers,
        "resumed": {name: round(value, 2) for name, value in resumed.items()},
        "adapters": adapters,
        "rounds": rounds,
        "not_exact": wrong,
        "added_seconds": [round(each, 2) for each in added],
        "seconds": {name: quartiles([row["seconds"] for row in rows]) for name, rows in found.items()},
        "cpu_seconds": {name: quartiles([row["cpu_seconds"] for row in rows]) for name, rows in found.items()},
        "peak_mib": {name: round(max(row["peak_bytes"] for row in rows) / 2**20) for name, rows in found.items()},
        "grown_mib": {name: round(max(row["grown_bytes"] for row in rows) / 2**20) for name, rows in found.items()},
        "ratio": quartiles([ours["seconds"] / theirs["seconds"] for ours, theirs in pairs]),
        "versions": {name: version(name) for name in ("soupmix", "torch", "transformers", "safetensors")},
    }


def larger(row: Mapping[str, Any]) -> Iterator[str]:
    """Rows of a table: what the figures come to for a model that was not merged here."""
    pace = {name: middle / row["bytes"] for name, (_, middle, _) in row["seconds"].items()}
    rest = row["peak_mib"]["merge"] * 2**20 - 8 * SHAPES["1B"].factors(row["adapters"])
    shape = SHAPES["70B"]
    size, factors = 2 * shape.weights(), 4 * shape.factors(row["adapters"])
    yield (
        f"| 70B (Llama 3.1) | {size / 1e9:.1f} | {pace['merge'] * size:.0f} | {pace['copy+sync'] * size:.0f} | "
        f"{factors / 1e9:.2f} | {(rest + 2 * factors) / 1e9:.1f} | {2 * shape.inner * shape.hidden / 1e6:.0f} |"
    )


def page() -> str:
    """docs/model_merge.md, from the newest row of every model."""
    rows = {row.get("model", "1B"): row for row in map(json.loads, DATA.read_text().splitlines())}
    lines = [
        "# A full model of gigabytes, merged",
        "",
        "Generated by `python benchmarks/model_merge.py` from `benchmarks/data/model_merge.jsonl`. Both variants in processes of",
        "their own, interleaved; files on disk in, a finished and synced folder out, imports aside. Before anything is timed the",
        "result is compared with W + delta in float64.",
    ]
    for name in sorted(rows):
        lines += ["", f"## {name}", "", *section(rows[name])]
    lines += [
        "",
        "## A larger model, by arithmetic",
        "",
        "Time is the pace of 1B above times the bytes of the model (bf16). Memory holds no tensor of the base, only a few blocks",
        "of two megabytes; what grows is the factors in fp32, once as the store read them and once stacked. So memory is",
        "the peak above, less twice the factors there, plus twice the factors here.",
        "",
        "| model | GB | merge, s | copy+sync, s | factors, GB | peak, GB | largest matrix, MB, for comparison |",
        "|---|---|---|---|---|---|---|",
        *larger(rows["1B"]),
    ]
    return "\n".join(lines) + "\n"


def section(row: Mapping[str, Any]) -> Iterator[str]:
    """What one row of the data says."""
    (first, *others), size = row["added_seconds"], row["bytes"] / 1e9
    yield f"{row['date']}, {row['processor']}, {row['threads']} threads, torch {row['versions']['torch']};"
    yield f"{row['rounds']} rounds; the load of the machine was {row['load_before']} when it began."
    yield ""
    yield f"A base of {size:.2f} GB in {row['shards']} shards (bf16), {row['adapters']} adapters of rank {RANK} over all linear layers;"
    yield f"{row['not_exact']:.2%} of the numbers at most are not the nearest to the exact sum, but its neighbour."
    yield ""
    yield "| variant | seconds, median [quartiles] | seconds a GB | CPU-seconds | peak MiB | of which while it ran |"
    yield "|---|---|---|---|---|---|"
    for name, (low, middle, high) in row["seconds"].items():
        yield (
            f"| {name} | {middle:.2f} [{low:.2f}, {high:.2f}] | {middle / size:.2f} | {row['cpu_seconds'][name][1]:.2f} | "
            f"{row['peak_mib'][name]} | {row['grown_mib'][name]} |"
        )
    low, middle, high = row["ratio"]
    yield ""
    yield f"merge / copy+sync within a round: {middle:.2f} [{low:.2f}, {high:.2f}]."
    if "resumed" in row:
        said = row["resumed"]
        yield ""
        yield f"Killed after {said['killed_after']:.0f} s (imports too), with {said['files_kept']:.0f} of {said['files']:.0f} files finished,"
        yield f"and begun again: {said['gone_on']:.1f} s to the end, digests of the kept files compared."
    yield ""
    yield (
        f"`adapters add`: {first:.1f} s for the first adapter, which reads the base (digest and norms in one pass), then "
        + ", ".join(f"{each:.1f}" for each in others)
        + " s."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", choices=("1B", "8B"), default="1B", help="2.3 GB, or 16.1; the disk holds three of it"
    )
    parser.add_argument("--adapters", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where base and results are made; a temporary folder if not given")
    parser.add_argument("--table", action="store_true", help="only write the page from the data")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.variant:
        print(json.dumps(timed(given.variant, given.folder, given.out)))
        return
    if not given.table:
        with tempfile.TemporaryDirectory(dir=given.folder) as where:
            row = measure(Path(where), given.model, given.adapters, given.rounds)
        with DATA.open("a") as file:
            file.write(json.dumps(row, sort_keys=True) + "\n")
        print(json.dumps({key: row[key] for key in ("seconds", "cpu_seconds", "ratio", "peak_mib", "added_seconds")}))
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
