"""kill -9 at any moment of `soupmix merge --force` and `soupmix adapters add --force`: old or new, never torn.

    python -m tests.soak.kills_merge 1000 [--seed 0]

The writers are forked from one process that has everything loaded, so that a trial costs what writing costs. A kill ends
the process only; what the kernel had taken stays. Loss of power is another matter, and nothing is claimed about it.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from soupmix.base import Base, tensors_digest
from soupmix.merge import Soup, merge, verify
from soupmix.policy import Policy
from soupmix.store import Store
from tests.support.adapter_folder import adapter, encode, item, sound
from tests.support.folders import Snapshot, debris, snapshot
from tests.support.tiny_model import save_tiny_model


def _base(where: Path) -> Base:
    folder = save_tiny_model(where / "base")
    return Base("tiny", folder, tensors_digest(folder), None, "test", where / "cache")


def killed(work: Callable[[], object], after: float) -> bool:
    """Run `work` in a child and kill it after so many seconds; whether it was still at work."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def _adapter(where: Path, value: float) -> Path:
    return adapter(where, tensors=encode({key: item(shape, value) for key, (_, shape, _) in sound().items()}))


class _Merging:
    """Two soups are written over one another."""

    def __init__(self, where: Path) -> None:
        self.target = where / "out"
        store = Store(where / "store", create=True)
        base = _base(where)
        for name, value in (("one", 0.01), ("two", 0.02)):
            store.add(_adapter(where / name, value), dimension=name, pole=name, base=base)
        policy = Policy.open(store)
        self.soups: list[Soup] = [merge(store, policy.clamp({"one": w, "two": 0.5})) for w in (0.25, 0.75)]
        self.wholes = [self._whole(soup) for soup in self.soups]

    def _whole(self, soup: Soup) -> Snapshot:
        soup.save_adapter(self.target, force=True)
        return snapshot(self.target)

    def write(self, turn: int) -> None:
        self.soups[turn % 2].save_adapter(self.target, force=True)

    def judge(self) -> str:
        found = snapshot(self.target)
        if found not in self.wholes or not verify(self.target, rebuild=False).ok:
            return "torn"
        return "whole"

    def restart(self, turn: int) -> list[str]:
        self.write(turn)
        return debris(self.target.parent)


class _Adding:
    """One adapter of a store is replaced by another, and back."""

    def __init__(self, where: Path) -> None:
        self.folder = where / "store"
        self.base = _base(where)
        self.folders = [_adapter(where / str(turn), value) for turn, value in enumerate((0.01, 0.02))]
        Store(self.folder, create=True).add(
            _adapter(where / "other", 0.03), dimension="d", pole="other", base=self.base
        )
        self.digests = []
        for turn in range(2):
            self.write(turn)
            self.digests.append(Store(self.folder)["pole"].digest)

    def write(self, turn: int) -> None:
        Store(self.folder).add(self.folders[turn % 2], dimension="d", pole="pole", base=self.base, force=True)

    def judge(self) -> str:
        store = Store(self.folder)
        for name in store.names:
            store.load(name)
        return "whole" if store["pole"].digest in self.digests and store.names == ("other", "pole") else "torn"

    def restart(self, turn: int) -> list[str]:
        self.write(turn)
        named = {
            "manifest.json",
            *(
                f"blobs/{entry.digest[7:]}/{file}"
                for entry in Store(self.folder)
                for file in ("adapter_config.json", "adapter_model.safetensors")
            ),
        }
        return sorted(set(snapshot(self.folder)) ^ named) + debris(self.folder)


def _duration(writer: _Merging | _Adding) -> float:
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        writer.write(0)
        os._exit(0)
    os.waitpid(child, 0)
    return time.monotonic() - started


def run(trials: int, seed: int = 0) -> dict[str, Any]:
    """Kill so many writers; a summary. Every tenth is followed by a restart that must leave no debris."""
    torch.set_num_threads(1)
    draw = random.Random(seed)
    summary: dict[str, Any] = {}
    for name, kind in (("merge --force", _Merging), ("adapters add --force", _Adding)):
        ends: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as where:
            writer = kind(Path(where))
            # the shortest: where the machine is busy for a moment, kills must not all come after the end
            longest = 1.1 * min(_duration(writer) for _ in range(3))
            for trial in range(trials // 2):
                at_work = killed(lambda writer=writer, trial=trial: writer.write(trial), draw.random() * longest)
                ends["killed at work" if at_work else "had finished"] += 1
                ends[writer.judge()] += 1
                ends["left temporaries"] += bool(debris(Path(where)))
                if trial % 10 == 9:
                    ends["debris after restart"] += len(writer.restart(trial))
        summary[name] = dict(sorted(ends.items()))
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trials", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    said = run(given.trials, given.seed)
    print(json.dumps(said, indent=2))
    sys.exit(any(ends.get("torn", 0) or ends.get("debris after restart", 0) for ends in said.values()))


if __name__ == "__main__":
    main()
