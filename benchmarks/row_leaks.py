"""For which shapes a product on this processor lets NaN behind a row reach the row: a sweep, as it is and as soupmix does it.

    python benchmarks/row_leaks.py [--table]
    python -m tests.support.amx.emulator python benchmarks/row_leaks.py     (as if the processor had AMX)

Rows with NaN between them, and windows in NaN, through every product that soupmix uses, for inner dimensions, numbers of
rows and of columns. oneDNN reads the instructions it may use once per process, so each limit is a process of its own. Rows go
to benchmarks/data/row_leaks.jsonl, the newest run of every processor to docs/row_leaks.md. Where AMX is emulated, the kernels
that run are oneDNN's own, and each of their tile instructions is done in software (docs/reliability.md).
"""

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

DATA, PAGE = Path(__file__).parent / "data" / "row_leaks.jsonl", Path(__file__).parents[1] / "docs" / "row_leaks.md"
LIMITS = ("", "avx512_core_bf16", "avx512_core", "avx2")
INNER = (*range(1, 66), 72, 80, 96, 100, 112, 128, 144, 160, 176, 192, 208, 576, 1536)
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


def table() -> str:
    """docs/row_leaks.md from the newest run of every processor."""
    runs = {run["processor"]: run for run in map(json.loads, DATA.read_text().splitlines())}
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
    return "\n".join([*lines, ""])


def _short(inner: list[int]) -> str:
    return ", ".join(map(str, inner))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only write docs/row_leaks.md from the data")
    parser.add_argument("--one", action="store_true", help="the sweep of this process, as JSON")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(sweep()))
        return
    if not given.table:
        from machine import processor

        limits = {}
        for limit in LIMITS:
            child = [sys.executable, __file__, "--one"]
            made = subprocess.run(
                child, env=os.environ | {"ONEDNN_MAX_CPU_ISA": limit}, stdout=subprocess.PIPE, check=True
            )
            limits[limit] = json.loads(made.stdout)
        run = {"date": datetime.now(UTC).date().isoformat(), "processor": processor(), "torch": version("torch")}
        with DATA.open("a") as file:
            file.write(json.dumps(run | {"limits": limits}, sort_keys=True) + "\n")
    PAGE.write_text(table())


if __name__ == "__main__":
    main()
