"""kill -9 at any moment of a batch, again and again: what comes out in the end is what comes out undisturbed, byte for byte.

    python -m tests.soak.kills_batch 1000 [--seed 0]

Workers are forked from one process that has everything loaded. Each begins the batch or goes on with it, with another number
of rows at once, and is killed at a random moment, in the middle of answers, between two results, or while the output is put in
place. After every kill the results so far must be those of the undisturbed batch, and the output whole or as it was before.
JSONL, CSV and Parquet by turns; every other batch replaces an output that stands there already. Prints a line of JSON.
This is a crash of a process: the machine, and what it holds in memory for the disk, live on.
"""

import csv
import io
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from soupmix.base import Base, resolve
from soupmix.batch.journal import journal_path
from soupmix.engine import Engine
from soupmix.policy import Policy
from soupmix.store import Store
from tests.support.batch_shop import Shop, mixed, policy_text
from tests.support.killing import main
from tests.support.tiny_model import save_tiny_model

LINES = 60
COLUMNS = ("custom_id=id", "weights.calm=calm", "max_tokens=most")
OLD = b"an output that stood there before\n"


def open_shop(home: Path) -> Shop:
    """A picoscopic engine with three adapters under a policy."""
    base = resolve(save_tiny_model(home / "tiny"), cache=home / "cache")
    store = Store(home / "store", create=True)
    for number, name in enumerate(("calm", "loud", "plain")):
        store.add(_adapter(home / name, base, number), name=name, dimension=name, pole=name, base=base)
    (home / "acme.yaml").write_text(policy_text(store))
    policy = Policy.load(home / "acme.yaml", adapters=store)
    return Shop(Engine.load(base, store, policy=policy), policy)


def _adapter(folder: Path, base: Base, seed: int) -> Path:
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"])
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base.folder), config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    model.save_pretrained(folder)
    return folder


def write_input(path: Path, seed: int) -> None:
    """A batch of the kind that the name of the file says."""
    if path.suffix == ".jsonl":
        path.write_bytes(mixed(LINES, seed)[0])
        return
    rng = random.Random(seed)
    rows = [("hm" * rng.randrange(20), f"r{n}", str(rng.random())[:5], str(rng.randrange(1, 30))) for n in range(LINES)]
    names = ("prompt", "id", "calm", "most")
    if path.suffix == ".csv":
        text = io.StringIO()
        csv.writer(text).writerows([names, *rows])
        path.write_text(text.getvalue())
    else:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), path)


@dataclass
class Batch:
    """One batch: its input, what came out of it undisturbed, and how long that took."""

    shop: Shop
    path: Path
    out: Path
    columns: tuple[str, ...]
    replaces: bool
    whole: bytes = b""
    results: tuple[bytes, ...] = ()
    seconds: float = 0.0

    def undisturbed(self) -> None:
        """Do it once without a kill, and keep the results before they become the output."""
        other = self.out.with_name(f"whole{self.out.suffix}")
        started = time.monotonic()
        self.shop.work(self.path, other, columns=self.columns)
        self.seconds, self.whole = time.monotonic() - started, other.read_bytes()
        lines = other.with_name("whole.jsonl")
        self.shop.work(self.path, lines, columns=self.columns, force=True)
        self.results = tuple(lines.read_bytes().splitlines())
        if self.replaces:
            self.out.write_bytes(OLD)

    def killed(self, after: float, rows: int, *, force: bool) -> bool:
        """Work for so many seconds; whether it was killed at it."""
        child = os.fork()
        if child == 0:
            code = 70
            try:
                self.shop.work(self.path, self.out, rows=rows, columns=self.columns, force=force)
                code = 0
            finally:
                os._exit(code)
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
            raise RuntimeError("a worker failed")
        return os.WIFSIGNALED(status)

    def judge(self) -> str:
        """What there is after a kill."""
        out = self.out.read_bytes() if self.out.exists() else None
        if out not in (None, OLD if self.replaces else None, self.whole):
            return "torn"
        part = journal_path(self.out)
        lines = part.read_bytes().split(b"\n") if part.exists() else [b"", b""]
        found = tuple(line[9:] for line in lines[1:-1])
        return "whole so far" if found == self.results[: len(found)] else "wrong"


def run(kills: int, seed: int, home: Path) -> dict[str, int]:
    """So many kills; what happened, counted. "torn", "wrong", "left over" and "other bytes" must be 0."""
    torch.set_num_threads(1)
    rng, shop = random.Random(seed), open_shop(home)
    seen = Counter[str](dict.fromkeys(("torn", "wrong", "left over", "other bytes", "kills", "batches"), 0))
    while seen["kills"] < kills:
        number = seen["batches"]
        folder = home / f"batch{number}"
        folder.mkdir()
        suffix = (".jsonl", ".csv", ".parquet")[number % 3]
        columns = () if suffix == ".jsonl" else COLUMNS
        batch = Batch(shop, folder / f"in{suffix}", folder / f"out{suffix}", columns, number % 2 == 1)
        write_input(batch.path, rng.randrange(10**6))
        batch.undisturbed()
        force, most = batch.replaces, batch.seconds
        while batch.killed(rng.random() * most, rng.randrange(1, 9), force=force):
            seen["kills"] += 1
            seen[batch.judge()] += 1
            force = force and not journal_path(batch.out).exists()
            most *= 1.05  # a busy machine
        seen["batches"] += 1
        seen["other bytes"] += batch.out.read_bytes() != batch.whole
        names = {batch.path.name, batch.out.name, "whole.jsonl", f"whole{suffix}"}
        seen["left over"] += len({path.name for path in folder.iterdir()} - names)
    return dict(seen)


if __name__ == "__main__":
    main(run, __doc__ or "", ("torn", "wrong", "left over", "other bytes"))
