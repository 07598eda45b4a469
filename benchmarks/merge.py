"""Merging against PEFT, with a plain copy of the model file as the floor.

    python benchmarks/merge.py [--base NAME] [--store DIR] [--rounds 5] [--layers 2] [--dtype bf16]

Two sets: the adapters of a store, and six random rank-16 adapters over all linear layers. For each, every variant runs in
a process of its own (so that its peak memory is its own), the variants interleaved round by round:

    copy          shutil.copyfile of the weights, and the same with fsync, as soupmix makes its files durable
    model         merge + save_model         against  PEFT: load, add_weighted_adapter cat, merge_and_unload, save
    adapter       merge + save_adapter       against  PEFT: load, add_weighted_adapter cat, save
    rank 16       save_adapter(rank=16)      against  PEFT: add_weighted_adapter svd, on a few layers, scaled up

Timed is the work on files that are there: adapters and base on disk in, folder on disk out; imports are not timed.
Before anything is timed, the merged tensors must agree with PEFT's. Rows go to benchmarks/data/merge.jsonl.
"""

import argparse
import json
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data" / "merge.jsonl"
RANK = 16


def peak() -> int:
    """Highest resident size of this program so far, in bytes. `ru_maxrss` would count the parent's before the exec."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def timed(work: Callable[[], Any], start_peak: int) -> dict[str, float]:
    begin, cpu = time.perf_counter(), time.process_time()
    work()
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": time.process_time() - cpu,
        "peak_bytes": peak(),
        "grown_bytes": peak() - start_peak,
    }


def copy(job: dict[str, Any], out: Path, *, durable: bool) -> dict[str, float]:
    files = sorted(Path(job["base"]).glob("*.safetensors"))

    def work() -> None:
        import os

        out.mkdir()
        for file in files:
            shutil.copyfile(file, out / file.name)
            if durable:
                with (out / file.name).open("rb") as written:
                    os.fsync(written.fileno())

    return timed(work, peak())


def soupmix_variant(job: dict[str, Any], out: Path, kind: str) -> dict[str, float]:
    from soupmix.base import resolve
    from soupmix.merge.soup import merge
    from soupmix.policy import Policy
    from soupmix.store.store import Store

    base = resolve(Path(job["base"]))

    def work() -> None:
        store = Store(job["store"])
        soup = merge(store, Policy.open(store).clamp(job["weights"]))
        if kind == "model":
            soup.save_model(out, base=base)
        else:
            soup.save_adapter(out, rank=RANK if kind == "rank" else None)

    return timed(work, peak())


def peft_variant(job: dict[str, Any], out: Path, kind: str) -> dict[str, float]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from soupmix.store.store import Store

    logging.disable_progress_bar()
    torch.ones(2) @ torch.ones(2)
    names, weights = list(job["weights"]), [float(weight) for weight in job["weights"].values()]
    folders = {name: Store(job["store"]).path(name) for name in names}

    def load(layers: int | None) -> Any:
        model = AutoModelForCausalLM.from_pretrained(
            job["base"], dtype=job.get("load_dtype", "auto"), trust_remote_code=False
        )
        if layers is not None:
            model.model.layers = model.model.layers[:layers]
        first, *others = names
        model = PeftModel.from_pretrained(model, folders[first], adapter_name=first)
        for name in others:
            model.load_adapter(folders[name], adapter_name=name)
        return model

    def work() -> None:
        model = load(None)
        model.add_weighted_adapter(names, weights, "merged", combination_type="cat")
        model.set_adapter("merged")
        if kind == "model":
            model.merge_and_unload().save_pretrained(out)
        else:
            model.save_pretrained(out, selected_adapters=["merged"])

    if kind != "rank":
        return timed(work, peak())
    loaded = load(job["layers"])
    start = peak()
    row = timed(
        lambda: loaded.add_weighted_adapter(names, weights, "merged", combination_type="svd", svd_rank=RANK), start
    )
    scale = job["all_layers"] / job["layers"]
    return row | {"seconds": row["seconds"] * scale, "cpu_seconds": row["cpu_seconds"] * scale, "scaled_by": scale}


VARIANTS: dict[str, Callable[[dict[str, Any], Path], dict[str, float]]] = {
    "copy": lambda job, out: copy(job, out, durable=False),
    "copy+fsync": lambda job, out: copy(job, out, durable=True),
    "soupmix model": lambda job, out: soupmix_variant(job, out, "model"),
    "peft cat model": lambda job, out: peft_variant(job, out, "model"),
    "soupmix adapter": lambda job, out: soupmix_variant(job, out, "adapter"),
    "peft cat adapter": lambda job, out: peft_variant(job, out, "adapter"),
    "soupmix rank 16": lambda job, out: soupmix_variant(job, out, "rank"),
    "peft svd rank 16": lambda job, out: peft_variant(job, out, "rank"),
}
FLOORS = {"soupmix model": ("copy", "copy+fsync", "peft cat model"), "soupmix adapter": ("peft cat adapter",)}
FLOORS |= {"soupmix rank 16": ("peft svd rank 16",)}


def random_store(folder: Path, base: Any, count: int = 6) -> None:
    """Six random rank-16 adapters over all linear layers, lm_head aside."""
    import torch
    from safetensors.torch import save_file

    from soupmix.store.store import Store

    store = Store(folder / "store", create=True)
    shapes = {path: shape for path, shape in base.layers().linear_shapes().items() if path != "lm_head"}
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        tensors = {}
        for path, (rows, columns) in shapes.items():
            tensors[f"base_model.model.{path}.lora_A.weight"] = torch.randn(RANK, columns, generator=generator) / 24
            tensors[f"base_model.model.{path}.lora_B.weight"] = torch.randn(rows, RANK, generator=generator) / 100
        source = folder / f"random{number}"
        source.mkdir()
        save_file(tensors, source / "adapter_model.safetensors", metadata={"format": "pt"})
        targets = sorted({path.rpartition(".")[2] for path in shapes})
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": RANK,
            "lora_alpha": RANK,
            "target_modules": targets,
        }
        config |= {"base_model_name_or_path": base.name, "bias": "none"}
        (source / "adapter_config.json").write_text(json.dumps(config))
        store.add(source, dimension=f"d{number}", pole=f"random{number}", base=base)


def gate(job: dict[str, Any], folder: Path) -> float:
    """Relative error of soupmix's exact adapter against PEFT's `cat` in fp32. More than 1e-5 stops the run.

    On a bf16 base PEFT stores the merged factors in bf16 (relative error 2e-3); it is timed as it comes.
    """
    from safetensors.torch import load_file

    for name in ("soupmix adapter", "peft cat adapter"):
        run(name, job | {"load_dtype": "float32"}, folder / name.split()[0])
    ours = load_file(folder / "soupmix" / "adapter_model.safetensors")
    theirs = load_file(next((folder / "peft").rglob("adapter_model.safetensors")))
    apart = whole = 0.0
    for key in (key for key in ours if "lora_A" in key):
        mine, their = (side[key.replace("lora_A", "lora_B")].double() @ side[key].double() for side in (ours, theirs))
        apart, whole = apart + float((mine - their).square().sum()), whole + float(their.square().sum())
    error = (apart / whole) ** 0.5
    if error > 1e-5 or {k for k in ours if "lora_A" in k} != {k for k in theirs if "lora_A" in k}:
        sys.exit(f"soupmix and PEFT disagree: relative error {error:.3g}; nothing was timed")
    return error


def run(variant: str, job: dict[str, Any], out: Path) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--variant", variant, "--job", json.dumps(job), "--out", str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def summary(rows: list[dict[str, float]], key: str) -> list[float]:
    """Lower quartile, median, upper quartile."""
    values = [row[key] for row in rows]
    return [
        round(v, 4) for v in (statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3)
    ]


def measure(label: str, job: dict[str, Any], rounds: int, folder: Path) -> None:
    error = gate(job, folder)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for number in range(rounds):
        for name in VARIANTS:
            out = folder / f"{number}-{name.replace(' ', '-')}"
            found[name].append(run(name, job, out))
            shutil.rmtree(out, ignore_errors=True)
    row: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "set": label,
        "base": job["name"],
        "dtype": job["dtype"],
        "adapters": len(job["weights"]),
        "rounds": rounds,
        "relative_error_against_peft": error,
        "seconds": {name: summary(rows, "seconds") for name, rows in found.items()},
        "cpu_seconds": {name: summary(rows, "cpu_seconds") for name, rows in found.items()},
        "peak_mib": {name: round(max(r["peak_bytes"] for r in rows) / 2**20) for name, rows in found.items()},
        "grown_mib": {name: round(max(r["grown_bytes"] for r in rows) / 2**20) for name, rows in found.items()},
        "ratios": ratios(found),
        "peft_svd_scaled_by": found["peft svd rank 16"][0]["scaled_by"],
        "versions": {name: version(name) for name in ("soupmix", "torch", "peft", "transformers", "safetensors")},
        "python": platform.python_version(),
        "threads": job["threads"],
    }
    DATA.parent.mkdir(exist_ok=True)
    with DATA.open("a") as file:
        file.write(json.dumps(row, sort_keys=True) + "\n")
    print(json.dumps({key: row[key] for key in ("set", "seconds", "peak_mib", "grown_mib", "ratios")}, indent=1))


def ratios(found: dict[str, list[dict[str, float]]]) -> dict[str, list[float]]:
    """Time of ours / time of theirs within a round, as quartiles."""
    return {
        f"{ours} / {other}": [
            round(value, 4)
            for value in statistics.quantiles(
                [a["seconds"] / b["seconds"] for a, b in zip(found[ours], found[other], strict=True)] * 2, n=4
            )
        ]
        for ours, others in FLOORS.items()
        for other in others
    }


def table() -> str:
    """docs/merge.md: the newest row of every set, generated from the data file."""
    rows = {row["set"]: row for row in map(json.loads, DATA.read_text().splitlines())}
    lines = [
        "# Merging, measured",
        "",
        "Generated by `python benchmarks/merge.py` from `benchmarks/data/merge.jsonl`. Every variant in a process of its own,",
        "interleaved; what is timed starts with files on disk and ends with a folder on disk, imports aside. PEFT's svd is timed",
        "on a loaded model, without reading and writing, on a few layers, and scaled up. Before anything is timed the merged",
        "tensors must agree with PEFT's `cat`.",
    ]
    for row in rows.values():
        lines += [
            "",
            f"## {row['set']}: {row['adapters']} adapters on {row['base']} ({row['dtype']})",
            "",
            f"{row['date']}, {row['rounds']} rounds, {row['threads']} threads, torch {row['versions']['torch']}, "
            f"PEFT {row['versions']['peft']}; relative error against PEFT {row['relative_error_against_peft']:.1e}.",
            "",
            "| variant | seconds, median [quartiles] | CPU-seconds | peak MiB |",
            "|---|---|---|---|",
        ]
        for name, (low, middle, high) in row["seconds"].items():
            cpu, peak_mib = row["cpu_seconds"][name][1], row["peak_mib"][name]
            lines.append(f"| {name} | {middle:.2f} [{low:.2f}, {high:.2f}] | {cpu:.2f} | {peak_mib} |")
        lines += ["", "| ratio of times within a round | median [quartiles] |", "|---|---|"]
        lines += [f"| {name} | {m:.3g} [{a:.3g}, {b:.3g}] |" for name, (a, m, b) in row["ratios"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2-135m-instruct")
    parser.add_argument("--store", type=Path, help="adapters to merge; the shipped ones if there are any")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=2, help="layers that PEFT's svd is timed on")
    parser.add_argument("--table", action="store_true", help="only write docs/merge.md from the data")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.table:
        (Path(__file__).parents[1] / "docs" / "merge.md").write_text(table())
        return
    if given.variant:
        print(json.dumps(VARIANTS[given.variant](given.job, given.out)))
        return
    import torch

    from soupmix.base import resolve
    from soupmix.policy import Policy
    from soupmix.store.manifest import MANIFEST, shipped_root
    from soupmix.store.store import Store

    base = resolve(given.base)
    config = json.loads((base.folder / "config.json").read_text())
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        random_store(folder, base)
        stores = {"six random": folder / "store"}
        chosen = given.store or shipped_root()
        if (chosen / MANIFEST).is_file():
            stores["shipped" if given.store is None else "store"] = chosen
        for label, path in stores.items():
            store = Store(path)
            granted = Policy.open(store).clamp(dict.fromkeys(store.names, 0.25)).granted
            job = {
                "base": str(base.folder),
                "name": given.base,
                "dtype": config["dtype"],
                "store": str(path),
                "weights": granted.decimals(),
                "layers": given.layers,
                "all_layers": config["num_hidden_layers"],
                "threads": torch.get_num_threads(),
            }
            (folder / "runs" / label).mkdir(parents=True)
            measure(label, job, given.rounds, folder / "runs" / label)
    (Path(__file__).parents[1] / "docs" / "merge.md").write_text(table())


if __name__ == "__main__":
    main()
