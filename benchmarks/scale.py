"""A fleet on paper: a million profiles, ten thousand requests a second, over step costs that were measured.

Two fleets answer the same requests with the same step costs of the base:

    rows    one row of K weights a person; every replica holds the K adapters, any replica answers anybody
    merged  one merged adapter a person, in slots of a server that takes one adapter a request; a person whose adapter is in no
            slot waits until it is loaded

The step of a replica with n rows takes a + b n, fitted through the medians of `benchmarks/data/decode.jsonl` at 16 and 64 people;
what a merged adapter costs a step besides is given (`--merged-step`, see docs/scale.md for where it was measured). Writes the part
of docs/scale.md between its marks, and a line to `benchmarks/data/scale.jsonl`.

    python benchmarks/scale.py
"""

import argparse
import json
from collections import OrderedDict
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import ceil
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ROWS, MARKS = 64, ("<!-- made by benchmarks/scale.py -->\n", "<!-- end -->\n")


@dataclass(frozen=True)
class Fleet:
    """Attributes: step: (a, b) of a + b n, seconds. slots: merged adapters per replica; 0: rows. load: seconds to get one there."""

    name: str
    step: tuple[float, float]
    slots: int = 0
    load: float = 0.0


@dataclass
class Found:
    """What a run came to; times in seconds."""

    fleet: str
    replicas: int
    busy: float
    wait_median: float
    wait_99: float
    hits: float
    loads_per_second: float
    dropped: int


def fitted(arm: str) -> tuple[float, float]:
    """(a, b) of a decode step in bf16, seconds, by the newest run that has both sizes."""
    runs = [json.loads(line) for line in (HERE / "data" / "decode.jsonl").read_text().splitlines()]
    for run in reversed(runs):
        found = {c["people"]: c["step_ms"][arm][1] / 1e3 for c in run["cells"] if c["dtype"] == "bf16"}
        if {16, 64} <= found.keys():
            b = (found[64] - found[16]) / 48
            return found[16] - 16 * b, b
    raise SystemExit("run benchmarks/decode.py first: no run has 16 and 64 people")


def replicas(fleet: Fleet, rate: float, tokens: float, busy: float) -> int:
    """How many replicas carry the rate at this share of their rows."""
    a, b = fleet.step
    return ceil(rate * tokens * (a + b * ROWS * busy) / (ROWS * busy))


def simulate(
    fleet: Fleet, count: int, people: np.ndarray, lengths: np.ndarray, rate: float, tick: float, killed: float
) -> Found:
    """Answer requests that come evenly at `rate`; halfway a share of the replicas dies, and their requests come again.

    A request goes to one of two replicas that its person's hash names, to whichever has fewer rows.
    """
    a, b = fleet.step
    draw, left = np.random.default_rng(1), np.zeros((count, ROWS))
    owner = np.full((count, ROWS), -1)
    alive, used = np.ones(count, bool), np.zeros(count, int)
    held = [OrderedDict() for _ in range(count)] if fleet.slots else []
    last = np.full(people.max() + 1, -1)
    waiting, waits, hits, loads, dropped, busy, now, at = [], [], 0, 0, 0, [], 0.0, 0
    places = draw.integers(0, count, (people.max() + 1, 2))
    ticks = int(len(people) / rate / tick)
    for number in range(ticks):
        if number == ticks // 2 and killed:
            dead = draw.choice(count, int(count * killed), replace=False)
            waiting += [(now, request) for request in owner[dead][owner[dead] >= 0]]
            alive[dead], owner[dead], left[dead], used[dead] = False, -1, 0, 0
        end = min(len(people), int((number + 1) * rate * tick))
        waiting += [(now, request) for request in range(at, end)]
        at, still = end, []
        for since, request in waiting:
            person = people[request]
            where = min(places[person], key=lambda each: used[each] if alive[each] else ROWS)
            if not alive[where] or used[where] >= ROWS:
                where = int(draw.integers(0, count))
                if not alive[where] or used[where] >= ROWS:
                    still.append((since, request))
                    continue
            column = int(np.argmin(left[where]))
            late = 0.0
            if fleet.slots:
                slots = held[where]
                if person in slots:
                    slots.move_to_end(person)
                else:
                    slots[person] = None
                    late, loads = fleet.load, loads + 1
                    if len(slots) > fleet.slots:
                        slots.popitem(last=False)
            hits += last[person] == where
            last[person] = where
            left[where, column], owner[where, column] = lengths[request] + late / (a + b * ROWS), request
            used[where] += 1
            waits.append(now - since + late)
        waiting = still
        steps = tick / (a + b * np.maximum(used, 1))
        left = np.maximum(left - steps[:, None], 0)
        owner[left == 0] = -1
        used = (left > 0).sum(1)
        busy.append(used[alive].mean() / ROWS)
        now += tick
    seconds = len(people) / rate
    return Found(
        fleet.name, count, float(np.mean(busy[len(busy) // 4 :])), float(np.median(waits)), float(np.quantile(waits, 0.99)),
        hits / max(len(waits), 1), loads / seconds, len(waiting) + dropped,
    )  # fmt: skip


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--people", type=int, default=1_000_000)
    asked.add_argument("--rate", type=float, default=10_000.0, help="requests a second")
    asked.add_argument("--seconds", type=float, default=40.0)
    asked.add_argument("--tokens", type=float, default=128.0, help="of an answer, on average")
    asked.add_argument("--busy", type=float, default=0.8, help="share of the rows that a fleet is built for")
    asked.add_argument(
        "--merged-step", type=float, default=1 / 0.19, help="step of merged adapters over that of the base"
    )
    asked.add_argument("--load", type=float, default=0.2, help="seconds to get a merged adapter into a slot")
    asked.add_argument("--killed", type=float, default=0.02, help="share of the replicas that dies halfway")
    given = asked.parse_args()
    draw = np.random.default_rng(0)
    total = int(given.rate * given.seconds)
    people = np.minimum(draw.zipf(1.2, total), given.people) - 1  # some come often, most once
    people = np.where(draw.random(total) < 0.5, people, draw.integers(0, given.people, total))
    lengths = draw.geometric(1 / given.tokens, total)
    base = fitted("bare")
    fleets = [
        Fleet("rows", fitted("soup")),
        Fleet("merged", tuple(each * given.merged_step for each in base), ROWS, given.load),
    ]
    found = []
    for fleet in fleets:
        count = replicas(fleet, given.rate, given.tokens, given.busy)
        found.append(simulate(fleet, count, people, lengths, given.rate, 0.25, given.killed))
        print(found[-1])
    line = {
        "date": datetime.now(UTC).date().isoformat(),
        "given": vars(given),
        "steps": {f.name: f.step for f in fleets},
    }
    line["bare"] = replicas(Fleet("bare", base), given.rate, given.tokens, given.busy)
    line["found"] = [asdict(each) for each in found]
    with (HERE / "data" / "scale.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    _write(HERE.parent / "docs" / "scale.md", line)


def _write(page: Path, line: dict) -> None:
    given, rows = line["given"], []
    for each in line["found"]:
        a, b = line["steps"][each["fleet"]]
        rows.append(
            f"| {each['fleet']} | {1e3 * a:.0f} + {1e3 * b:.2f} n | {each['replicas']:,} | {each['replicas'] / line['bare']:.2f} "
            f"| {each['busy']:.2f} | {each['wait_median']:.2f} | {each['wait_99']:.2f} | {each['hits']:.2f} "
            f"| {each['loads_per_second']:,.0f} | {each['dropped']:,} |"
        )
    text = (
        f"{given['people']:,} profiles, {given['rate']:,.0f} requests a second for {given['seconds']:g} s, answers of "
        f"{given['tokens']:g} tokens\non average, {ROWS} rows a replica, fleets built to be {given['busy']:g} full; after half of "
        f"the time {given['killed']:.0%} of the\nreplicas die. The bare base alone would need {line['bare']:,} replicas.\n\n"
        "| fleet | step of n rows, ms | replicas | / bare base | full | wait, s | wait of the last 1 %, s | same replica as last "
        "time | adapters loaded a second | unanswered at the end |\n|---|---|---|---|---|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )
    before, _, rest = page.read_text("utf-8").partition(MARKS[0])
    page.write_text(before + MARKS[0] + text + MARKS[1] + rest.partition(MARKS[1])[2], "utf-8")


if __name__ == "__main__":
    main()
