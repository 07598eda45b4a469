"""For which shapes a product on this processor lets NaN behind a row reach the row: a sweep, as it is and as soupmix does it.

    python benchmarks/row_leaks.py [--table | --price]
    python -m tests.support.amx.emulator python benchmarks/row_leaks.py     (as if the processor had AMX)

Rows with NaN between them, and windows in NaN, through every product that soupmix uses, for inner dimensions, numbers of
rows and of columns. oneDNN reads the instructions it may use once per process, so each limit is a process of its own. Rows go
to benchmarks/data/row_leaks.jsonl, the newest run of every processor to docs/row_leaks.md. Where AMX is emulated, the kernels
that run are oneDNN's own, and each of their tile instructions is done in software (docs/reliability.md).

`--price` times what filling up costs, on any processor: a bf16 product whose inner dimension is filled up to a multiple of 32,
as soupmix does it where it must (`wide_linear`: x at every call, the weight once), against the product as it is. One thread;
both in turns, half a millisecond each; medians of the ratios of neighbours, with quartiles.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

DATA, PAGE = Path(__file__).parent / "data" / "row_leaks.jsonl", Path(__file__).parents[1] / "docs" / "row_leaks.md"
LIMITS = ("", "avx512_core_bf16", "avx512_core", "avx2")
INNER = (*range(1, 66), 72, 80, 96, 100, 112, 128, 144, 160, 176, 192, 208, 576, 1536)
PRICED, PRICED_ROWS, OUT = (64, 80, 176, 576), (1, 16, 64), 1536
PAIRS, SLICE = 2001, 0.0005  # seconds of one turn: shorter than what another process takes away at once
ROWS, COLUMNS = (1, 2, 8, 15, 16, 17, 31, 32, 33, 64, 65, 200), (1, 16, 40, 576)


def sweep() -> dict[str, Any]:
    """Inner dimensions at which each product leaks, by dtype; alone, and filled up as soupmix does."""
    import torch

    from soupmix_kernels import rows_apart

    found: dict[str, Any] = {}
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        name, cpu = str(dtype).removeprefix("torch."), torch.device("cpu")
        plain: dict[str, list[int]] = {}
        for inner in INNER:
            for product in sorted(rows_apart.leaks(dtype, inner, rows=ROWS, columns=COLUMNS)):
                plain.setdefault(product, []).append(inner)
        filled = sorted({rows_apart.whole(inner, dtype, cpu) for inner in INNER})
        left = [inner for inner in filled if rows_apart.leaks(dtype, inner, rows=ROWS, columns=COLUMNS)]
        found[name] = {"leaks": plain, "step": rows_apart.inner_step(dtype, cpu), "left": left}
    return found


def price() -> list[dict[str, Any]]:
    """How long a filled product takes, as a multiple of the plain one; only if both are right."""
    import torch
    from torch.nn.functional import linear

    from soupmix_kernels import rows_apart, wide_linear

    torch.set_num_threads(1)
    found = []
    for inner, rows in ((inner, rows) for inner in PRICED for rows in PRICED_ROWS):
        draw = torch.Generator().manual_seed(inner + rows)
        x, weight = (torch.randn(size, inner, generator=draw).bfloat16() for size in (rows, OUT))
        wide = rows_apart.widen(weight, -(-inner // rows_apart.WIDE) * rows_apart.WIDE)
        exact = x.double() @ weight.double().t()
        with torch.inference_mode():
            plain, filled = linear(x, weight), wide_linear(x, wide)
            errors = [float((each.double() - exact).norm()) for each in (plain, filled)]
            if errors[1] > 2 * errors[0]:
                raise SystemExit(f"a filled product is wrong: inner {inner}, {rows} rows, errors {errors}")
            pairs = _in_turns(lambda: linear(x, weight), lambda: wide_linear(x, wide))  # noqa: B023  # called here
        ratios = statistics.quantiles((second / first for first, second in pairs), n=4)
        shape = {"inner": inner, "filled": wide.shape[1], "rows": rows, "out": OUT}
        found.append(shape | {"plain_us": statistics.median(first for first, _ in pairs), "ratio": ratios})
    return found


def _in_turns(one: Callable[[], object], other: Callable[[], object]) -> list[tuple[float, float]]:
    """Microseconds a call of both, side by side; every other pair begins with the other."""
    count = max(1, round(SLICE / min(_seconds(one, 5) for _ in range(5))))
    pairs = []
    for turn in range(PAIRS):
        both = (one, other) if turn % 2 else (other, one)
        times = {call: _seconds(call, count) for call in both}
        pairs.append((times[one] * 1e6, times[other] * 1e6))
    return pairs


def _seconds(call: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def priced(runs: list[dict[str, Any]]) -> list[str]:
    """The page's part on what filling up costs, a table for every processor."""
    lines = ["", "## What filling up costs", ""]
    lines += [
        f"bf16, [rows, inner] x [inner, {OUT}], one thread: time of the filled product / time of the plain one, median and"
    ]
    lines += [
        "quartiles. Where the inner dimension is a multiple of 32 already, nothing is filled up, and 1.00 is right."
    ]
    for run in runs:
        load = f"load {run['load']:.1f} on {run['cores']} processors"
        lines += ["", f"**{run['processor']}**, {run['date']}, torch {run['torch']}, {load} at the start.", ""]
        lines += ["| inner | filled up to | rows | plain, us | filled / plain |", "| ---: | ---: | ---: | ---: | --- |"]
        for each in run["price"]:
            low, middle, high = each["ratio"]
            shape = f"| {each['inner']} | {each['filled']} | {each['rows']} | {each['plain_us']:.1f} "
            lines.append(f"{shape}| **{middle:.2f}** ({low:.2f} to {high:.2f}) |")
    return lines


def table() -> str:
    """docs/row_leaks.md from the newest runs of every processor."""
    every = [json.loads(line) for line in DATA.read_text().splitlines()]
    runs = {run["processor"]: run for run in every if "limits" in run}
    prices = {run["processor"]: run for run in every if "price" in run}
    lines = [f"# {__doc__.splitlines()[0].rstrip('.')}", "", *__doc__.splitlines()[5:], ""]
    lines += [f"Swept: inner {INNER[0]} to 65 and {', '.join(map(str, INNER[65:]))}; {', '.join(map(str, ROWS))} rows;"]
    lines += [f"{', '.join(map(str, COLUMNS))} columns. `step`: inner dimensions are filled up to a multiple of it."]
    for run in runs.values():
        lines += ["", f"## {run['processor']}", "", f"{run['date']}, torch {run['torch']}.", ""]
        lines += [
            "| instructions | dtype | leaks, as it is | step | leaks, filled up |",
            "| --- | --- | --- | --- | --- |",
        ]
        for limit, found in run["limits"].items():
            for dtype, each in found.items():
                alike: dict[str, list[str]] = {}
                for name, inner in each["leaks"].items():
                    alike.setdefault(_short(inner), []).append(name)
                leaks = "; ".join(f"{', '.join(names)}: {inner}" for inner, names in alike.items()) or "none"
                left = _short(each["left"]) or "none"
                lines.append(f"| {limit or 'all'} | {dtype} | {leaks} | {each['step']} | {left} |")
    return "\n".join([*lines, *(priced(list(prices.values())) if prices else []), ""])


def _short(inner: list[int]) -> str:
    return ", ".join(map(str, inner))


def swept() -> dict[str, Any]:
    """The sweep under every limit, each in a process of its own."""
    limits = {}
    for limit in LIMITS:
        child = [sys.executable, __file__, "--one"]
        environment = os.environ | {"ONEDNN_MAX_CPU_ISA": limit}
        made = subprocess.run(child, env=environment, stdout=subprocess.PIPE, check=True)
        limits[limit] = json.loads(made.stdout)
    return {"limits": limits}


def _record(found: dict[str, Any]) -> None:
    from machine import processor

    run = {"date": datetime.now(UTC).date().isoformat(), "processor": processor(), "torch": version("torch")}
    with DATA.open("a") as file:
        file.write(json.dumps(run | found, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only write docs/row_leaks.md from the data")
    parser.add_argument("--price", action="store_true", help="time what filling up costs instead of sweeping")
    parser.add_argument("--one", action="store_true", help="the sweep of this process, as JSON")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(sweep()))
        return
    load = os.getloadavg()[0]
    if not given.table:
        _record({"price": price(), "load": load, "cores": os.cpu_count()} if given.price else swept())
    PAGE.write_text(table())


if __name__ == "__main__":
    main()
