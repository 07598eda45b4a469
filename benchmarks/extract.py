"""What adapters of every method, and full fine-tunes, need as a plain LoRA, and what extracting them takes.

    python benchmarks/extract.py             measure, append to data/extract.jsonl, write the table of docs/extract.md
    python benchmarks/extract.py --table     only write the table

Adapters are on q_proj and v_proj of smollm2-135m-instruct, of rank 8 or what their method has instead, their trained parameters
moved at random by .02; the fine-tune is four steps of AdamW (1e-4) on all weights. `wide` is one layer of the widths of an 8B
model with every linear layer changed. Each runs in a process of its own.
"""

import argparse
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from machine import processor

ROOT = Path(__file__).parents[1]
DATA, PAGE = ROOT / "benchmarks" / "data" / "extract.jsonl", ROOT / "docs" / "extract.md"
BEGIN, END = "<!-- made by benchmarks/extract.py -->", "<!-- end -->"
BASE = "smollm2-135m-instruct"


def configs() -> dict[str, Callable[[], Any]]:
    import peft

    both = {"target_modules": ["q_proj", "v_proj"]}
    lora = peft.LoraConfig
    return {
        "LoRA": lambda: lora(r=8, **both),
        "DoRA": lambda: lora(r=8, use_dora=True, **both),
        "PiSSA": lambda: lora(r=8, init_lora_weights="pissa", **both),
        "OLoRA": lambda: lora(r=8, init_lora_weights="olora", **both),
        "AdaLoRA": lambda: peft.AdaLoraConfig(init_r=12, target_r=8, total_step=10, **both),
        "LoHa": lambda: peft.LoHaConfig(r=8, alpha=16, **both),
        "LoKr": lambda: peft.LoKrConfig(r=8, alpha=16, **both),
        "VeRA": lambda: peft.VeraConfig(r=256, **both),
        "IA3": lambda: peft.IA3Config(feedforward_modules=[], **both),
        "OFT": lambda: peft.OFTConfig(oft_block_size=32, **both),
        "HRA": lambda: peft.HRAConfig(r=8, **both),
        "FourierFT": lambda: peft.FourierFTConfig(n_frequency=1000, **both),
    }


def adapter(name: str, base: Path, out: Path) -> None:
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, trust_remote_code=False), configs()[name]()
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(out)


def fine_tune(base: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, trust_remote_code=False)
    text = (ROOT / "docs" / "idea.md").read_text("utf-8")
    tokens = torch.tensor(AutoTokenizer.from_pretrained(base, trust_remote_code=False)(text)["input_ids"][:512]).view(
        4, 128
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for _ in range(4):
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
    model.save_pretrained(out)


def wide(base: Path, out: Path, rank: int | None) -> None:
    """A layer of the widths of Llama 8B, and the same with a change of a rank, or of full rank, in every linear layer."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=1, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=1024, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(base)
    shutil.copytree(base, out)
    tensors = load_file(base / "model.safetensors")
    for name, tensor in tensors.items():
        if tensor.dim() == 2 and "embed" not in name:
            rows, columns = tensor.shape
            noise = (
                torch.randn(rows, rank or 1) @ torch.randn(rank or 1, columns) if rank else torch.randn(rows, columns)
            )
            tensors[name] = tensor.float() + 0.001 * noise
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


def memory(key: str) -> float:
    """VmHWM or VmRSS of this process in MiB; `ru_maxrss` would count the parent's before the exec."""
    return int(re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def measured(source: Path, base: Path | str) -> dict[str, Any]:
    """In this process: what it needs, and what finding out took, imports aside."""
    import peft  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401

    from soupmix.base import resolve
    from soupmix.extract import extract_adapter

    found = resolve(base)
    found.layers()
    before, begin, resident = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter(), memory("VmRSS")
    extraction = extract_adapter(source, base=found)
    after = resource.getrusage(resource.RUSAGE_SELF)
    left = sum(norm**2 for norm in extraction.left_out.values()) ** 0.5 / extraction.norm
    return {
        "layers": len(extraction.layers),
        "needed": [extraction.needed(error) for error in (1e-5, 0.01, 0.1)],
        "missed at 16": extraction.error(16),
        "missed at 64": extraction.error(64),
        "left out": left,
        "seconds": time.perf_counter() - begin,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak MiB": memory("VmHWM") - resident,
    }


def child(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, "--child", *arguments], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(name: str, folder: Path) -> dict[str, Any]:
    from soupmix.base import resolve

    source, base = folder / name.replace(" ", "-"), folder / "base"
    if name.startswith("wide"):
        shutil.rmtree(base, ignore_errors=True)
        wide(base, source, 16 if "rank 16" in name else None)
        return child(str(source), str(base))
    make = fine_tune if name == "full fine-tune" else lambda at, out: adapter(name, at, out)
    make(resolve(BASE).folder, source)
    found = child(str(source), BASE)
    shutil.rmtree(source)
    return found


def table() -> str:
    rows = [json.loads(line) for line in DATA.read_text().splitlines()]
    latest = {row["name"]: row for row in rows}
    last = rows[-1]
    lines = [
        f"{last['date']}, {last['processor']}, torch {last['torch']}, PEFT {last['peft']};",
        "one run each, on one thread; CPU-seconds, since others ran beside.",
        "",
        "| source | layers | rank for 1e-5 | for 1 % | for 10 % | missed at 16 | at 64 | left out | CPU-seconds | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in latest.items():
        needs = " | ".join("more" if each is None else str(each) for each in row["needed"])
        shares = " | ".join(f"{row[key]:.2g}" for key in ("missed at 16", "missed at 64", "left out"))
        lines.append(f"| {name} | {row['layers']} | {needs} | {shares} | {row['cpu']:.1f} | {row['peak MiB']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--child", nargs=2, metavar=("SOURCE", "BASE"), help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", help="only these")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.child:
        print(json.dumps(measured(Path(asked.child[0]), asked.child[1])))
        return
    if not asked.table:
        names = asked.names or [*configs(), "full fine-tune", "wide, rank 16", "wide, full rank"]
        facts = {"date": datetime.now(UTC).date().isoformat(), "processor": processor()}
        facts |= {name: version(name) for name in ("torch", "peft")}
        with tempfile.TemporaryDirectory() as folder, DATA.open("a") as data:
            for name in names:
                data.write(json.dumps({"name": name, **facts, **measure(name, Path(folder))}) + "\n")
                data.flush()
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}", "utf-8")


if __name__ == "__main__":
    main()
