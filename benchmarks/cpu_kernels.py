"""Soup layers on the CPU: decode against the plain base, PEFT and a per-person gather; merging against addmm and PEFT.

    python benchmarks/cpu_kernels.py [--quick] [--seconds 8] [--threads 2]
    python benchmarks/cpu_kernels.py --table          only docs/cpu_kernels.md, from benchmarks/data/cpu_kernels.jsonl

Decode: the seven linears of one transformer layer, 1, 16 and 64 rows, every row another person, K = 6 adapters of rank 16.
`base` is F.linear per projection, the reference of the ratios. `soup` is what the engine does: weights packed for oneDNN,
q|k|v and gate|up as one product, then `soup_linear_`; row coefficients are made once per step for all layers and not timed.
`peft mixed` (adapter_names) and `gather` (index, bmm) hold a ready-merged adapter per person. PEFT's adapters have the
base's dtype, which favours it: by default it keeps fp32. `(shrink)`, `(expand)`: the two low-rank products alone, in the dtype of
the base; where bf16 is slow, soup itself does them in fp32.

Merge: the same seven matrices, into a reused buffer. `peft six` is LoraLayer.merge of six scaled adapters, `peft cat` is
add_weighted_adapter(cat), then merge; both work in place (restored off the clock) and give the right sum.

Before a cell is timed its answers must pass: error against float64 at most twice that of plain torch in the same dtype.
Variants are interleaved. A round during which other programs ran is measured again, as long as patience lasts. Threads that
sleep between products (GOMP_SPINCOUNT=0, for shared machines) cost more than the products: it is set to 100000.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from cpu_layer import GROUPS, PEOPLE, RANK, SHAPES, K, Work, batch, build, decode, gate, merging
from machine import processor
from torch.nn.functional import linear

import soupmix_kernels as kernels

DATA = Path(__file__).parent / "data" / "cpu_kernels.jsonl"
PAGE = Path(__file__).parents[1] / "docs" / "cpu_kernels.md"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SHOWN = ("soup", "soup factor", "soup unpacked", "base packed", "peft one", "peft mixed", "gather")
PAIRS = {
    "decode": (*((n, "base") for n in (*SHOWN, "(shrink)", "(expand)")), ("soup", "peft one"), ("peft mixed", "soup")),
    "merge": (("merge", "addmm"), ("peft six", "merge"), ("peft cat", "merge"), ("merge", "copy")),
}


def foreign() -> float:
    """Processor seconds that others have used since the machine started (Linux)."""
    ticks = [int(n) for n in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK") - time.process_time()


def quiet(deadline: float) -> bool:
    """Wait for a second in which nobody else computes; False if there is none before the deadline."""
    while time.perf_counter() < deadline:
        others = foreign()
        time.sleep(1)
        if foreign() - others < 0.05:
            return True
    return False


def interleave(work: dict[str, Work], seconds: float, before: dict[str, Work]) -> tuple[dict[str, list[float]], int]:
    """Seconds per call of every variant in each round, for `seconds` or so; and how many rounds were disturbed after all."""

    def timed(name: str, calls: int) -> float:
        before.get(name, work[name] if calls > 1 else dict)()  # what is short is timed warm
        start = time.perf_counter()
        for _ in range(calls):
            work[name]()
        return (time.perf_counter() - start) / calls

    least, patience, disturbed = (15, 30 * seconds, 0) if seconds >= 1 else (3, 0, 0)
    deadline = time.perf_counter() + patience
    quiet(deadline)
    calls = {n: 1 if n in before else int(max(1, 0.008 / min(timed(n, 1) for _ in range(3)))) for n in work}
    found: dict[str, list[float]] = {n: [] for n in work}
    names, wall = list(work), seconds
    while (done := len(found[names[0]])) < least or done < min(60, seconds / wall):
        names = names[1:] + names[:1]
        start, others = time.perf_counter(), foreign()
        times = {n: timed(n, calls[n]) for n in names}
        wall = time.perf_counter() - start
        if foreign() - others > 0.03 + 0.05 * wall:
            if quiet(deadline):
                continue
            disturbed += 1
        for n, t in times.items():
            found[n].append(t)
    return found, disturbed


def quartiles(values: Iterable[float]) -> list[float]:
    return [float(f"{v:.4g}") for v in statistics.quantiles(values, n=4, method="inclusive")]


def row(
    kind: str, cell: dict[str, Any], work: dict[str, Work], seconds: float, before: dict[str, Work]
) -> dict[str, Any]:
    found, disturbed = interleave(work, seconds, before)
    pairs = {f"{a} / {b}": quartiles(x / y for x, y in zip(found[a], found[b], strict=True)) for a, b in PAIRS[kind]}
    cell |= {"kind": kind, "rounds": len(next(iter(found.values()))), "disturbed": disturbed}
    print(kind, cell, pairs, file=sys.stderr)
    return cell | {"seconds": {n: quartiles(v) for n, v in found.items()}, "ratios": pairs}


def roof(dtype: torch.dtype, seconds: float) -> float:
    """GFLOP/s of the best product we can find, MKL's or oneDNN's."""
    best = 0.0
    for m, n in ((2048, 2048), (256, 4096), (64, 4096)):
        x, W = torch.randn(m, n, dtype=dtype), torch.randn(n, n, dtype=dtype)
        work: dict[str, Work] = {"mm": partial(torch.mm, x, W), "linear": partial(linear, x, W)}
        if (p := kernels.pack(W)) is not None:
            work["packed"] = partial(kernels.packed_linear, x, p)
        best = max(best, *(2e-9 * m * n * n / min(t) for t in interleave(work, seconds, {})[0].values()))
    return best


def measure(names: Sequence[str], seconds: float) -> Iterator[dict[str, Any]]:
    """The rows of one run."""
    for dtype in DTYPES:
        yield {"kind": "roof", "dtype": dtype, "gflops": roof(DTYPES[dtype], min(2, seconds))}
    for shape, dtype in ((s, d) for s in names for d in DTYPES):
        layer = build(shape, DTYPES[dtype])
        low = sum(W.shape[1] * len(g) + W.shape[0] for g, W in zip(GROUPS, layer.groups, strict=True)) * K * RANK
        weights = sum(W.numel() for W in layer.groups)
        for rows in (1, 16, PEOPLE):
            with torch.inference_mode():
                b = batch(layer, rows)
                work = decode(layer, b)
                cell = {"shape": shape, "dtype": dtype, "rows": rows, "errors": gate(layer, b, work)}
                cell["gflop"] = {"base": 2e-9 * rows * weights, "soup": 2e-9 * rows * (weights + low)}
                del work["soup alone"]
                yield row("decode", cell, work, seconds, {})
        if shape != "8B":
            with torch.inference_mode():
                work, before, errors = merging(layer)
                cell = {"shape": shape, "dtype": dtype, "errors": errors}
                yield row("merge", cell, work, seconds, before)


def aims(row: dict[str, Any]) -> list[tuple[str, str, float]]:
    if row["kind"] == "merge":
        return [("merge / addmm", "<=", 1.1), ("peft six / merge", ">=", 15), ("peft cat / merge", ">=", 15)]
    base = 0.75 if row["dtype"] == "fp32" else 1.35 if row["shape"] == "135M" else 1.0
    found = [("soup / base", "<=", base), ("soup / peft one", "<=", 1.0), ("peft mixed / soup", ">=", 8.0)]
    return found[: 3 if row["shape"] == "135M" else 2] if row["rows"] == PEOPLE else []


def table(columns: Iterable[str], lines: Iterable[Iterable[object]]) -> list[str]:
    rows = [list(columns), *([str(value) for value in line] for line in lines)]
    return ["", *("| " + " | ".join(cells) + " |" for cells in (rows[0], ["---"] * len(rows[0]), *rows[1:])), ""]


def judged(r: dict[str, Any], ratio: str, sign: str, bound: float) -> list[str]:
    middle = r["ratios"][ratio][1]
    met = middle <= bound if sign == "<=" else middle >= bound
    return [r["kind"], r["shape"], r["dtype"], ratio, f"{sign} {bound:g}", spread(r, ratio), "yes" if met else "**no**"]


def spread(r: dict[str, Any], ratio: str) -> str:
    low, middle, high = r["ratios"][ratio]
    return f"{middle:.3g} [{low:.3g}, {high:.3g}]"


def rates(r: dict[str, Any], roof: float) -> list[str]:
    base, packed, soup = (r["seconds"][n][1] for n in ("base", "base packed", "soup"))
    speeds = [r["gflop"][of] / s for of, s in (("base", base), ("base", packed), ("soup", soup))]
    total, *inside = (r["ratios"][f"{n} / base"][1] for n in ("soup", "base packed", "(shrink)", "(expand)"))
    shares = [*inside, total - sum(inside), r["gflop"]["soup"] / roof / base]
    return [
        r["shape"],
        r["dtype"],
        r["rows"],
        f"{base * 1e3:.3g}",
        *(f"{v:.0f}" for v in speeds),
        *(f"{v:.2f}" for v in shares),
    ]


def page(rows: list[dict[str, Any]]) -> str:
    """docs/cpu_kernels.md from the rows of one run."""
    a, roofs = rows[0], {r["dtype"]: r["gflops"] for r in rows if r["kind"] == "roof"}
    cells, merges = ([r for r in rows if r["kind"] == kind] for kind in ("decode", "merge"))
    best = ", ".join(f"{dtype} {speed:.0f} GFLOP/s" for dtype, speed in roofs.items())
    noise = f"{sum(r['disturbed'] for r in cells + merges)} of {sum(r['rounds'] for r in cells + merges)}"
    who, pairs = ["shape", "dtype", "rows"], [f"{x} / {y}" for x, y in PAIRS["merge"]]
    shown = ([*(r[w] for w in who), *(spread(r, f"{n} / base") for n in SHOWN)] for r in cells)
    about = f"""# CPU kernels, measured

{(__doc__ or "").split(chr(10) * 2, 2)[2]}
{a["run"][:10]}, {a["cpu"]} ({a["capability"]}), {a["threads"]} threads, {a["versions"]}. Ratios are of times within a round;
{noise} rounds were disturbed by other programs."""
    rate = f"""## Where the time goes

The best product found here runs at {best}. From `packed` on in units of `base`: the parts of `soup`,
what they leave (`rest`: scaling, checks, calls), and what `soup` would cost if all its products ran at the best speed."""
    names = [
        *(f"{n}, GFLOP/s" for n in ("base", "packed", "soup")),
        "packed",
        "shrink",
        "expand",
        "rest",
        "at the roof",
    ]
    lines = [about, "", "## Aims, at 64 people"]
    aimed = (judged(r, *aim) for r in cells + merges for aim in aims(r))
    lines += table(["what", *who[:2], "ratio", "aim", "median [quartiles]", "met"], aimed)
    lines += ["## Decode, in units of `base`: median [quartiles]", *table([*who, *SHOWN], shown), rate]
    lines += [
        *table([*who, "base, ms", *names], (rates(r, roofs[r["dtype"]]) for r in cells)),
        "## Merge: median [quartiles]",
    ]
    lines += table([*who[:2], *pairs], ([r["shape"], r["dtype"], *(spread(r, p) for p in pairs)] for r in merges))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8, help="for every cell, on a quiet machine")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="135M and few rounds; prints, writes nothing")
    parser.add_argument("--table", action="store_true", help="only write docs/cpu_kernels.md from the data")
    given = parser.parse_args()
    if not given.table:
        if os.environ.get("GOMP_SPINCOUNT", "0") == "0":  # read when torch is loaded
            os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"GOMP_SPINCOUNT": "100000"})
        torch.set_num_threads(given.threads)
        about = {"run": datetime.now(UTC).isoformat(timespec="seconds"), "cpu": processor()}
        about |= {"capability": torch.backends.cpu.get_cpu_capability(), "threads": given.threads}
        about |= {"versions": " ".join(f"{n} {version(n)}" for n in ("torch", "peft", "soupmix"))}
        about |= {"python": platform.python_version(), "spincount": os.environ["GOMP_SPINCOUNT"]}
        size, seconds = (1, 0.1) if given.quick else (len(SHAPES), given.seconds)
        rows = [about | found for found in measure(list(SHAPES)[:size], seconds)]
        if given.quick:
            print(page(rows))
            return
        with DATA.open("a") as file:
            file.writelines(json.dumps(found, sort_keys=True) + "\n" for found in rows)
    rows = [json.loads(line) for line in DATA.read_text().splitlines()]
    PAGE.write_text(page([found for found in rows if found["run"] == rows[-1]["run"]]))


if __name__ == "__main__":
    main()
