"""The audit log: what a record that is surely on the disk costs, and how fast a log is checked.

    python benchmarks/audit.py [--rounds 5] [--records 1000] [--folder DIR] [--table]

    floor, write + fsync     one thread: 450 bytes and an fsync, nothing else
    1 thread                 append: every record has an fsync of its own
    8 threads, one by one    append under a lock of the caller's, so that no two records share an fsync
    8, 64 threads            append: records that wait together share an fsync (group commit)
    64 threads, no fsync     os.fsync replaced by nothing: what Python costs; a crash would lose records here

Interleaved round by round; every log must verify before its time counts. 100 people, who have their keys already. Rows go to
benchmarks/data/audit.jsonl, the table to docs/audit_cost.md.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

from soupmix.audit import AuditLog, Record, verify
from soupmix.weights import Weights

ROOT = Path(__file__).parents[1]
DATA = Path(__file__).parent / "data" / "audit.jsonl"
POLES = ("elementary", "concise", "friendly")


def entry(number: int) -> Record:
    asked = Weights.from_micro(dict.fromkeys(POLES, 300000 + number % 1000))
    return Record(
        "grant",
        person=f"person {number % 100}",
        requested=asked,
        granted=asked,
        attributes={"audience": "public", "tenant": "acme"},
        policy=f"sha256:{'a' * 64}",
        binding=("organisation/Acme/calm",),
        merge=f"sha256:{number:064x}",
    )


def floor(folder: Path, count: int) -> dict[str, float]:
    folder.mkdir()
    handle = os.open(folder / "file", os.O_CREAT | os.O_WRONLY)
    begin = time.perf_counter()
    for _ in range(count):
        os.write(handle, b"x" * 450)
        os.fsync(handle)
    seconds = time.perf_counter() - begin
    os.close(handle)
    return {"rate": count / seconds}


def no_sync(_: int) -> None:
    """What a mock would do, at the price of nothing."""


def appends(folder: Path, count: int, threads: int, *, alone: bool = False, sync: bool = True) -> dict[str, float]:
    """Records per second, latency of an append, and of the finished log bytes a record and records verified a second."""
    latencies: list[float] = []
    lock = threading.Lock() if alone else nullcontext()
    share = count // threads
    with AuditLog.open(folder) as log, nullcontext() if sync else mock.patch("os.fsync", no_sync):
        for number in range(100):
            log.append(entry(number))

        def work(thread: int) -> None:
            for number in range(share):
                begin = time.perf_counter()
                with lock:
                    log.append(entry(thread * share + number))
                latencies.append(time.perf_counter() - begin)

        workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
        begin = time.perf_counter()
        for each in workers:
            each.start()
        for each in workers:
            each.join()
        seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    verdict = verify(folder)
    checked = time.perf_counter() - begin
    if not verdict.ok or verdict.records != share * threads + 100:
        raise SystemExit(f"the log does not verify, nothing counts: {verdict}")
    size = sum(path.stat().st_size for path in folder.glob("*.jsonl")) / verdict.records
    latencies.sort()
    return {
        "rate": share * threads / seconds,
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[int(len(latencies) * 0.99)],
        "bytes": size,
        "verify_rate": verdict.records / checked,
    }


VARIANTS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "floor, write + fsync": floor,
    "1 thread": lambda folder, count: appends(folder, count, 1),
    "8 threads, one by one": lambda folder, count: appends(folder, count, 8, alone=True),
    "8 threads": lambda folder, count: appends(folder, count * 4, 8),
    "64 threads": lambda folder, count: appends(folder, count * 10, 64),
    "64 threads, no fsync": lambda folder, count: appends(folder, count * 10, 64, sync=False),
}


def quartiles(values: list[float]) -> list[float]:
    found = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return [round(value, 4) for value in found]


def measure(rounds: int, records: int, home: Path) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for number in range(rounds):
        for name, variant in VARIANTS.items():
            folder = home / f"{number}"
            found[name].append(variant(folder, records))
            shutil.rmtree(folder)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "rounds": rounds,
        "records": records,
        "variants": {
            name: {key: quartiles([row[key] for row in rows]) for key in rows[0]} for name, rows in found.items()
        },
        "ratio_to_1_thread": {
            name: quartiles([row["rate"] / one["rate"] for row, one in zip(rows, found["1 thread"], strict=True)])
            for name, rows in found.items()
        },
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }


def table(row: dict[str, Any]) -> str:
    """docs/audit_cost.md from the newest row."""
    lines = [
        "# What the audit log costs",
        "",
        "Generated by `python benchmarks/audit.py` from `benchmarks/data/audit.jsonl`: an append returns when the record is on the",
        "disk. Interleaved; medians and quartiles over rounds; every log verified before its time counts. What an fsync costs is the",
        "disk's affair: compare within the table. `one by one` is 8 threads that may not share an fsync; `no fsync` is no mode of",
        "soupmix, it shows what Python alone costs.",
        "",
        f"{row['date']}, {row['rounds']} rounds, {row['cpus']} CPUs, Python {row['python']}.",
        "",
        "| | records/s | against 1 thread | append, median ms | append, p99 ms |",
        "|---|---|---|---|---|",
    ]
    for name in VARIANTS:
        found = row["variants"][name]
        low, middle, high = found["rate"]
        ratio = row["ratio_to_1_thread"][name]
        waits = [f"{found[key][1]:.2f}" if key in found else "" for key in ("p50_ms", "p99_ms")]
        lines.append(
            f"| {name} | {middle:.0f} [{low:.0f}, {high:.0f}] | {ratio[1]:.2f} [{ratio[0]:.2f}, {ratio[2]:.2f}] "
            f"| {waits[0]} | {waits[1]} |"
        )
    big = row["variants"]["64 threads"]
    low, middle, high = big["verify_rate"]
    lines += [
        "",
        f"A record, its share of the checkpoints included, takes {big['bytes'][1]:.0f} bytes. `verify` checks {middle:.0f} "
        f"[{low:.0f}, {high:.0f}] records a second.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--records", type=int, default=1000, help="of one thread; group commit writes four and ten times as many"
    )
    parser.add_argument(
        "--folder", type=Path, help="on which disk; the system's folder for temporary files if not given"
    )
    parser.add_argument("--table", action="store_true", help="only write docs/audit_cost.md from the data")
    given = parser.parse_args()
    if not given.table:
        with tempfile.TemporaryDirectory(dir=given.folder) as home:
            row = measure(given.rounds, given.records, Path(home))
        with DATA.open("a") as file:
            file.write(json.dumps(row, sort_keys=True) + "\n")
    newest = json.loads(DATA.read_text().splitlines()[-1])
    text = table(newest)
    (ROOT / "docs" / "audit_cost.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
