"""`soupmix merge --as model` on a base of gigabytes, against a copy of its files that is as durable.

    python benchmarks/model_merge.py [--layers 20] [--rounds 5] [--adapters 3] [--folder DIR] [--table]

The base is made here: random weights in bf16 in the shapes of a Llama of about a billion parameters, in shards of 300 MB. So are
its adapters, of rank 16 over all linear layers. Every variant runs in a process of its own (its peak memory is its own), the
variants interleaved round by round:

    copy+sync   every file copied, then synced, and its folder
    merge       adapters and base on disk in, a finished folder out; imports aside, digest of the base remembered

Before anything is timed, the result is compared: what no adapter changes byte for byte, and the matrices of two layers with
W + delta in float64, rounded. Adding the adapters to a store is timed, too: the first reads the base, the others do not. Rows go to
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

DATA = Path(__file__).parent / "data" / "model_merge.jsonl"
PAGE = Path(__file__).parents[1] / "docs" / "model_merge.md"
RANK, SHARD = 16, 300_000_000
HIDDEN, INNER, HEADS, VOCABULARY = 2048, 5632, 16, 32000
WEIGHTS = (0.5, 0.25, 0.75)
LARGER = {  # hidden, inner, keys and values, layers, vocabulary, tied
    "8B (Llama 3.1)": (4096, 14336, 1024, 32, 128256, False),
    "70B (Llama 3.1)": (8192, 28672, 1024, 80, 128256, False),
}


def linear(hidden: int, inner: int, keys: int) -> dict[str, tuple[int, int]]:
    """The linear layers of one block: name -> (out, in)."""
    return {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }


def make_base(folder: Path, layers: int) -> None:
    """Shards and config.json; weights are windows of one block of random numbers, as drawing them all takes minutes."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    draw = torch.Generator().manual_seed(1)
    pool = (torch.randn(1 << 25, generator=draw) * 0.02).bfloat16()

    def tensor(*shape: int) -> torch.Tensor:
        count = int(torch.tensor(shape).prod())
        start = int(torch.randint(1 << 20, (1,), generator=draw))
        return pool[start:].repeat(-(-count // (len(pool) - start)))[:count].view(shape)

    names = {"model.embed_tokens": (VOCABULARY, HIDDEN), "lm_head": (VOCABULARY, HIDDEN), "model.norm": (HIDDEN,)}
    for n in range(layers):
        names |= {f"model.layers.{n}.{name}": shape for name, shape in linear(HIDDEN, INNER, HIDDEN).items()}
        names |= {f"model.layers.{n}.{name}_layernorm": (HIDDEN,) for name in ("input", "post_attention")}
    shards: list[dict[str, torch.Tensor]] = [{}]
    for name, shape in names.items():
        if sum(each.nbytes for each in shards[-1].values()) > SHARD:
            shards.append({})
        shards[-1][f"{name}.weight"] = tensor(*shape)
    folder.mkdir()
    files = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    for file, shard in zip(files, shards, strict=True):
        save_file(shard, folder / file, metadata={"format": "pt"})
    index = {"weight_map": {name: file for file, shard in zip(files, shards, strict=True) for name in shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        vocab_size=VOCABULARY,
        tie_word_embeddings=False,
    )
    fields = config.to_dict() | {"architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(fields))


def make_adapter(folder: Path, layers: int, seed: int) -> None:
    """A PEFT folder with random factors for every linear layer."""
    import torch
    from safetensors.torch import save_file

    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for n in range(layers):
        for name, (rows, columns) in linear(HIDDEN, INNER, HIDDEN).items():
            path = f"base_model.model.model.layers.{n}.{name}"
            tensors[f"{path}.lora_A.weight"] = torch.randn(RANK, columns, generator=draw) * 0.02
            tensors[f"{path}.lora_B.weight"] = torch.randn(rows, RANK, generator=draw) * 0.01
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    targets = sorted(name.rpartition(".")[2] for name in linear(1, 1, 1))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": targets,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def make_all(where: Path, layers: int, adapters: int) -> list[float]:
    """Base, store and cache in a folder; how many seconds each `adapters add` took, the base's digest included."""
    from soupmix.base import resolve
    from soupmix.store import Store

    load_libraries()
    make_base(where / "base", layers)
    store, seconds = Store(where / "store", create=True), []
    for n in range(adapters):
        make_adapter(where / f"adapter{n}", layers, n)
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
    merge(store, grant).save_model(out, base=resolve(where / "base", cache=where / "cache"))


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


def run(variant: str, where: Path) -> dict[str, float]:
    """One measurement, in a process of its own."""
    out = where / "out"
    command = [sys.executable, __file__, "--variant", variant, "--folder", str(where), "--out", str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
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


def gate(where: Path, layers: int, adapters: int) -> float:
    """Largest share of the numbers of a matrix that are not W + delta in float64, rounded; the process ends if it is wrong."""
    import torch
    from safetensors.torch import load_file

    run("merge", where)
    before, after = tensors_of(where / "base"), tensors_of(where / "out")
    factors = [load_file(where / f"adapter{n}" / "adapter_model.safetensors") for n in range(adapters)]
    worst = 0.0
    for name in before:
        weight, made = before[name].get_tensor(name), after[name].get_tensor(name)
        path = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{path}.lora_A.weight" not in factors[0]:
            wrong = 0.0 if torch.equal(weight, made) else 1.0
        elif name.split(".")[2] in ("0", str(layers - 1)):
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


def measure(where: Path, layers: int, adapters: int, rounds: int) -> dict[str, Any]:
    import torch

    load = os.getloadavg()[0]
    added = make_all(where, layers, adapters)
    wrong = gate(where, layers, adapters)
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
        "layers": layers,
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


def factors_of(hidden: int, inner: int, keys: int, layers: int, adapters: int) -> int:
    """Numbers in the factors of so many adapters of rank `RANK`."""
    return layers * sum(rows + columns for rows, columns in linear(hidden, inner, keys).values()) * RANK * adapters


def weights_of(hidden: int, inner: int, keys: int, layers: int, vocabulary: int, *, tied: bool) -> int:
    """Numbers in a model."""
    matrices = sum(rows * columns for rows, columns in linear(hidden, inner, keys).values())
    return layers * (matrices + 2 * hidden) + hidden + vocabulary * hidden * (1 if tied else 2)


def larger(row: Mapping[str, Any]) -> Iterator[str]:
    """Rows of a table: what the figures come to for models that were not merged here."""
    pace = {name: middle / row["bytes"] for name, (_, middle, _) in row["seconds"].items()}
    here = 4 * factors_of(HIDDEN, INNER, HIDDEN, row["layers"], row["adapters"])
    rest = row["peak_mib"]["merge"] * 2**20 - 2 * here
    for name, (hidden, inner, keys, layers, vocabulary, tied) in LARGER.items():
        size = 2 * weights_of(hidden, inner, keys, layers, vocabulary, tied=tied)
        factors = 4 * factors_of(hidden, inner, keys, layers, row["adapters"])
        memory = (rest + 2 * factors) / 1e9
        yield (
            f"| {name} | {size / 1e9:.1f} | {pace['merge'] * size:.0f} | {pace['copy+sync'] * size:.0f} | "
            f"{factors / 1e9:.2f} | {memory:.1f} | {2 * inner * hidden / 1e6:.0f} |"
        )


def page() -> str:
    """docs/model_merge.md, from the newest row."""
    row = json.loads(DATA.read_text().splitlines()[-1])
    first, *others = row["added_seconds"]
    size = row["bytes"] / 1e9
    lines = [
        "# A full model of gigabytes, merged",
        "",
        "Generated by `python benchmarks/model_merge.py` from `benchmarks/data/model_merge.jsonl`. Both variants in processes of",
        "their own, interleaved; files on disk in, a finished and synced folder out, imports aside. Before anything is timed the",
        "result is compared with W + delta in float64.",
        "",
        f"{row['date']}, {row['processor']}, {row['threads']} threads, torch {row['versions']['torch']}; {row['rounds']} rounds;",
        f"{row['load_before']} other programs were running when it began.",
        "",
        f"A base of {size:.2f} GB in {row['shards']} shards (bf16), {row['adapters']} adapters of rank {RANK} over all linear layers;",
        f"{row['not_exact']:.2%} of the numbers at most are not the nearest to the exact sum, but its neighbour.",
        "",
        "| variant | seconds, median [quartiles] | seconds a GB | CPU-seconds | peak MiB | of which while it ran |",
        "|---|---|---|---|---|---|",
    ]
    for name, (low, middle, high) in row["seconds"].items():
        lines.append(
            f"| {name} | {middle:.2f} [{low:.2f}, {high:.2f}] | {middle / size:.2f} | {row['cpu_seconds'][name][1]:.2f} | "
            f"{row['peak_mib'][name]} | {row['grown_mib'][name]} |"
        )
    low, middle, high = row["ratio"]
    lines += [
        "",
        f"merge / copy+sync within a round: {middle:.2f} [{low:.2f}, {high:.2f}].",
        "",
        f"`adapters add`: {first:.1f} s for the first adapter, which reads the base (digest and norms in one pass), then "
        + ", ".join(f"{each:.1f}" for each in others)
        + " s.",
        "",
        "## Larger models, by arithmetic",
        "",
        "Time is the pace above times the bytes of the model (bf16). Memory holds no tensor of the base, only a few blocks of",
        "two megabytes; what grows is the factors in fp32, once as the store read them and once stacked. So memory is",
        "the peak above, less twice the factors here, plus twice the factors there.",
        "",
        "| model | GB | merge, s | copy+sync, s | factors, GB | peak, GB | largest matrix, MB, for comparison |",
        "|---|---|---|---|---|---|---|",
        *larger(row),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=20, help="94 MB each")
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
            row = measure(Path(where), given.layers, given.adapters, given.rounds)
        with DATA.open("a") as file:
            file.write(json.dumps(row, sort_keys=True) + "\n")
        print(json.dumps({key: row[key] for key in ("seconds", "cpu_seconds", "ratio", "peak_mib", "added_seconds")}))
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
