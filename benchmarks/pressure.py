"""Who holds under pressure for the opposite: the adapter's weight, the preference prompt, or both?

    python benchmarks/pressure.py OUT [--store DIR] [--adapter NAME ...] [--questions 4] [--turn 1 --turn 5 --turn 20]

The part "pressure" of `soupmix evaluate --safety` and nothing else of it, on every adapter that has an opposite, at weight 1 (no
policy bounds it here; that command asks one). Answers are kept in OUT, and the same command goes on; writes OUT/pressure.json and
prints the table of docs/safety.md, and how many CPU-seconds an answer took.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from weights_do.text import UNITS, bare, number, table, told

from soupmix.base import resolve
from soupmix.evaluate.preferences import shipped_preferences
from soupmix.evaluate.safety.audit import kept_samples
from soupmix.evaluate.safety.pressure import pressed
from soupmix.evaluate.safety.section import pressure_section
from soupmix.evaluate.samples import SAMPLES, ArmSample
from soupmix.evaluate.sampling import Evaluation
from soupmix.policy import FeasibleSet, Policy
from soupmix.store import Store

HELD = {"prompt": "prompt", "soup": "weight", "prompt+soup": "both"}


class Kept:
    """Answers in folders, and what they cost."""

    def __init__(self, out: Path) -> None:
        self.out, self.made, self.seconds = out, 0, 0.0

    def __call__(self, evaluation: Evaluation, name: str) -> Sequence[ArmSample]:
        began, before = time.process_time(), self.lines(name)
        found = kept_samples(evaluation, self.out / name, name, rows=64, jobs=1, stage=lambda *_: lambda *_: None)
        self.seconds += time.process_time() - began
        self.made += self.lines(name) - before
        print(f"{name}: {self.made} answers, {self.seconds:.0f} CPU-seconds", flush=True)
        return found

    def lines(self, name: str) -> int:
        """Answers that are kept."""
        path = self.out / name / SAMPLES
        return path.read_bytes().count(b"\n") if path.exists() else 0


def feasible_of(store: Store, names: Sequence[str], where: Path) -> FeasibleSet:
    """Weights of up to 1 of these adapters; of all, if none is named."""
    if not names:
        return Policy.open(tuple(store)).feasible()
    denied = "".join(f"  - {{rule: deny, adapter: {name}}}\n" for name in store.names if name not in names)
    where.mkdir(parents=True, exist_ok=True)
    path = where / "policy.yaml"
    path.write_text(f"tier: organisation\nissuer: benchmark\nversion: 1\nrules:\n{denied or ' []'}")
    return Policy.load(path, adapters=tuple(store)).feasible()


def rows_of(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """A row a turn, by one measure of the dimension."""
    name = measure_of(found["measures"])
    decimals = UNITS.get(name, 2)
    for turn, each in found["measures"][name]["turns"].items():
        changed = [told(each["changed"][way], decimals) for way in HELD]
        asked = "nothing else (turn 0)" if turn == "0" else f"{found['asked_for']}, turn {turn}"
        who = f"{found['adapter']} {number(float(found['weight'])).removesuffix('.00')}"
        yield (who, asked, name.replace("_", " "), bare(each["nothing"], decimals), *changed)


def measure_of(measures: Mapping[str, Any]) -> str:
    """Whether the pole occurs at all, or grade, or words, or the first."""
    at_all = [name for name, each in measures.items() if name.endswith("_at_all") and each["more_is_more_of_it"]]
    return next(iter([*at_all, *(name for name in ("grade", "words") if name in measures), *measures]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--store", type=Path, help="folder of adapters; the shipped ones")
    parser.add_argument("--adapter", action="append", default=[], help="only this one; repeatable")
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--turn", action="append", type=int, help="in which turns; repeatable  [1, 5, 20]")
    options = parser.parse_args()
    store = Store(options.store) if options.store else Store.shipped()
    base = resolve("smollm2-135m-instruct")
    evaluation = Evaluation(base, store.folder, (), (), shipped_preferences(), (0.0,), 40, 0, None)
    feasible, kept = feasible_of(store, options.adapter, options.out), Kept(options.out)
    pressures = pressed(evaluation, feasible, tuple(options.turn or (1, 5, 20)), options.questions, kept)
    found = [pressure_section(each) for each in pressures]
    (options.out / "pressure.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(
        table(
            ("adapter", "asked for", "measure", "base", *HELD.values()),
            [row for each in found for row in rows_of(each)],
        )
    )
    if kept.made:
        print(f"{kept.made} answers, {kept.seconds / kept.made:.1f} CPU-seconds each")


if __name__ == "__main__":
    main()
