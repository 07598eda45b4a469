"""Soup layers on the CPU: decode against the plain base, PEFT and a per-person gather; merging against addmm and PEFT.

    python benchmarks/cpu_kernels.py [--quick] [--seconds 8] [--threads 2]
    python benchmarks/cpu_kernels.py --table          only docs/cpu_kernels.md, from benchmarks/data/cpu_kernels.jsonl

Decode: the seven linears of one transformer layer, 1, 16 and 64 rows, every row another person, K = 6 adapters of rank 16.
`base` is F.linear per projection, the reference of the ratios. `soup` is what the engine does: weights packed for oneDNN,
q|k|v and gate|up as one product, then `soup_linear_`; coefficients are made once per step for all layers and not timed.
`peft mixed` (adapter_names) and `gather` (index, bmm) hold a ready-merged adapter per person. PEFT's adapters have the
base's dtype, which favours it: by default it keeps fp32. `(shrink)`, `(expand)`: the two low-rank products of soup, alone.

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import linear

import soupmix_kernels as kernels
from soupmix_kernels import reference

DATA = Path(__file__).parent / "data" / "cpu_kernels.jsonl"
PAGE = Path(__file__).parents[1] / "docs" / "cpu_kernels.md"
SHAPES = {"135M": (576, 192, 1536), "1B": (2048, 512, 8192), "8B": (4096, 1024, 14336)}
GROUPS = (("q", "k", "v"), ("o",), ("gate", "up"), ("down",))
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PEOPLE, K, RANK = 64, 6, 16
SHOWN = ("soup", "soup factor", "soup unpacked", "base packed", "peft one", "peft mixed", "gather")
PAIRS = {
    "decode": (*((n, "base") for n in (*SHOWN, "(shrink)", "(expand)")), ("soup", "peft one"), ("peft mixed", "soup")),
    "merge": (("merge", "addmm"), ("peft six", "merge"), ("peft cat", "merge"), ("merge", "copy")),
}
Work = Callable[[], Any]


class Layer(NamedTuple):
    """Base weights (each a part of its group's), packed groups, an adapter per person, the pools of the first K."""

    groups: list[Tensor]
    weights: dict[str, Tensor]
    packed: list[Tensor | None]
    A: dict[str, Tensor]  # [people, in, rank]
    B: dict[str, Tensor]  # [people, rank, out]
    pools: dict[tuple[str, ...], kernels.Pool]  # of groups, and of single matrices
    peft: PeftModel


def build(shape: str, dtype: torch.dtype) -> Layer:
    h, kv, f = SHAPES[shape]
    sizes = {"q": (h, h), "k": (h, kv), "v": (h, kv), "o": (h, h), "gate": (h, f), "up": (h, f), "down": (f, h)}
    A = {n: torch.randn(PEOPLE, i, RANK, dtype=dtype).div_(i**0.5) for n, (i, _) in sizes.items()}
    B = {n: torch.randn(PEOPLE, RANK, o, dtype=dtype).mul_(0.2) for n, (_, o) in sizes.items()}
    groups: list[Tensor] = []
    weights: dict[str, Tensor] = {}
    pools: dict[tuple[str, ...], kernels.Pool] = {}
    single: set[tuple[str, ...]] = {(n,) for n in sizes}
    for names in GROUPS:
        inputs, widths = sizes[names[0]][0], [sizes[n][1] for n in names]
        groups.append(torch.randn(sum(widths), inputs, dtype=dtype).div_(inputs**0.5))
        weights |= zip(names, torch.split(groups[-1], widths), strict=True)
    for members in single.union(GROUPS):
        slices = [[kernels.Part(k, A[n][k].t(), B[n][k].t(), 1.0) for k in range(K)] for n in members]
        inputs, widths = sizes[members[0]][0], [sizes[n][1] for n in members]
        pools[members] = kernels.Pool.stack(slices, widths, inputs=inputs, dtype=dtype, device=groups[0].device)
    return Layer(groups, weights, [kernels.pack(W) for W in groups], A, B, pools, peft_model(weights, A, B))


def peft_model(weights: dict[str, Tensor], A: dict[str, Tensor], B: dict[str, Tensor]) -> PeftModel:
    """Bare linears with one adapter per person, named by number; the first is active."""
    bare, config = nn.Module(), LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(weights))
    for name, weight in weights.items():
        bare.add_module(name, nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta"))
        bare.get_submodule(name).weight = nn.Parameter(weight, requires_grad=False)
    model = get_peft_model(bare, config, adapter_name="0", low_cpu_mem_usage=True)
    for person in map(str, range(PEOPLE)):
        if person != "0":
            model.add_adapter(person, config, low_cpu_mem_usage=True)
        for name in weights:
            for held, mine in ((getattr(bare, name).lora_A, A), (getattr(bare, name).lora_B, B)):
                held[person].weight = nn.Parameter(mine[name][int(person)].t().contiguous(), requires_grad=False)
    return model.eval()


class Batch(NamedTuple):
    """Inputs of every group; coefficients: everybody different, the same for `factor`, and for the gate adapter 0 alone."""

    x: list[Tensor]
    people: Tensor
    coefficients: dict[str, list[kernels.Coefficients]]


def batch(layer: Layer, rows: int) -> Batch:
    narrow, wide = (torch.randn(rows, layer.groups[g].shape[1], dtype=layer.groups[g].dtype) for g in (0, 3))
    random, alone, lo, hi = torch.rand(rows, K), torch.eye(K)[:1].repeat(rows, 1), torch.zeros(K), torch.ones(K)
    kinds: dict[str, tuple[Tensor, Any]] = {"soup": (random, "delta"), "factor": (random, "factor")}
    kinds["alone"] = (alone, "delta")
    made = {n: [layer.pools[g].coefficients(w, lo, hi, how) for g in GROUPS] for n, (w, how) in kinds.items()}
    return Batch([narrow, narrow, narrow, wide], torch.arange(rows, dtype=torch.int32), made)


def decode(layer: Layer, b: Batch) -> dict[str, Work]:
    """All variants; each answers with its outputs, side by side the same numbers in the same order."""
    inputs = {n: x for names, x in zip(GROUPS, b.x, strict=True) for n in names}
    modules = {n: getattr(layer.peft.base_model.model, n) for n in inputs}
    rows, everyone = b.people.long(), [str(person) for person in b.people.tolist()]
    pools, plain = [layer.pools[g] for g in GROUPS], [None] * len(GROUPS)
    slices = [B for p in pools for B in torch.split(p.B, list(p.widths))]
    expand = [(B.new_zeros(len(rows), len(B)), B.new_zeros(len(rows), B.shape[1]), B.t()) for B in slices]

    def base(packed: Sequence[Tensor | None]) -> list[Tensor]:
        held = zip(b.x, layer.groups, packed, strict=True)
        return [linear(x, W) if p is None else kernels.packed_linear(x, p) for x, W, p in held]

    def soup(packed: Sequence[Tensor | None], kind: str, add: Callable[..., Tensor]) -> list[Tensor]:
        held = zip(base(packed), b.x, pools, b.coefficients[kind], strict=True)
        return [add(y, x, p, c, b.people) for y, x, p, c in held]

    def gather(n: str, x: Tensor) -> Tensor:
        h = torch.bmm(x[:, None], layer.A[n].index_select(0, rows))
        return linear(x, layer.weights[n]).add_(torch.bmm(h, layer.B[n].index_select(0, rows))[:, 0])

    return {
        "base": lambda: [linear(x, layer.weights[n]) for n, x in inputs.items()],
        "base packed": lambda: base(layer.packed),
        "soup": lambda: soup(layer.packed, "soup", kernels.soup_linear_),
        "soup factor": lambda: soup(layer.packed, "factor", kernels.soup_linear_factor_),
        "soup unpacked": lambda: soup(plain, "soup", kernels.soup_linear_),
        "soup alone": lambda: soup(layer.packed, "alone", kernels.soup_linear_),
        "peft one": lambda: [modules[n](x) for n, x in inputs.items()],
        "peft mixed": lambda: [modules[n](x, adapter_names=everyone) for n, x in inputs.items()],
        "gather": lambda: [gather(n, x) for n, x in inputs.items()],
        "(shrink)": lambda: [torch.mm(x, p.A.t()) for x, p in zip(b.x, pools, strict=True)],
        "(expand)": lambda: [y.addmm_(h, B) for y, h, B in expand],
    }


def gate(layer: Layer, b: Batch, work: dict[str, Work]) -> dict[str, float]:
    """Relative errors: against float64, and of soup with one adapter alone against PEFT, and of the gather against PEFT."""
    truth: dict[str, list[Tensor]] = {"base": [], "soup": [], "factor": []}
    plain: dict[str, list[Tensor]] = {"base": work["base"](), "soup": [], "factor": []}
    for g, (names, W, x) in enumerate(zip(GROUPS, layer.groups, b.x, strict=True)):
        p, y = layer.pools[names], x.double() @ W.double().t()
        c, f = (b.coefficients[kind][g].values for kind in ("soup", "factor"))
        truth["base"].append(y)
        truth["soup"].append(reference.soup_linear(y, x.double(), p.A, p.B, c, b.people, p.widths))
        truth["factor"].append(reference.soup_linear_factor(y, x.double(), p.A, p.B, f, b.people, p.widths, RANK))
        for kind, mine in (("soup", c), ("factor", f)):
            own = mine.to(x.dtype).view(len(x), len(names), K, RANK)
            h = (x @ p.A.t()).view_as(own) * own
            h = h.sum(2, keepdim=True) * own if kind == "factor" else h
            deltas = [h[:, s].flatten(1) @ B.t() for s, B in enumerate(torch.split(p.B, list(p.widths)))]
            plain[kind].append(linear(x, W) + torch.cat(deltas, 1))

    def error(got: list[Tensor], exact: list[Tensor]) -> float:
        want = torch.cat(exact, 1).double()
        return float((torch.cat(got, 1) - want).norm() / want.norm())

    limits, errors = {of: 2 * error(got, truth[of]) for of, got in plain.items()}, {}
    judged = {"base packed": "base", "soup": "soup", "soup unpacked": "soup", "soup factor": "factor"}
    for name, of in judged.items():
        errors[name], limits[name] = error(work[name](), truth[of]), limits[of]
    for ours, theirs in (("soup alone", "peft one"), ("gather", "peft mixed")):
        errors[ours], limits[ours] = error(work[ours](), work[theirs]()), 2 * limits["soup"]
    return checked(errors, limits)


def checked(errors: dict[str, float], limits: dict[str, float]) -> dict[str, float]:
    """Under 1e-6 nobody is judged: a product of one row sums in another order than one of many."""
    if wrong := {name: e for name, e in errors.items() if not e <= max(limits[name], 1e-6)}:
        sys.exit(f"nothing is timed, for these are wrong: {wrong}; the limits are {limits}")
    return errors


def merging(layer: Layer) -> tuple[dict[str, Work], dict[str, Work], dict[str, float]]:
    """Variants that merge one person's soup into every matrix, what to do before each, and the errors."""
    W, share = {n: w.clone() for n, w in layer.weights.items()}, torch.rand(1, K)
    pools, modules = {n: layer.pools[n,] for n in W}, {n: getattr(layer.peft.base_model.model, n) for n in W}
    A, six = {n: p.A.contiguous() for n, p in pools.items()}, [str(k) for k in range(K)]
    c = {n: p.coefficients(share, torch.zeros(K), torch.ones(K)) for n, p in pools.items()}
    out, dtype = {n: torch.empty_like(w) for n, w in W.items()}, layer.groups[0].dtype

    def restore(scales: list[float]) -> None:
        for n, module in modules.items():
            module.merged_adapters.clear()
            module.get_base_layer().weight.copy_(W[n])
            for name, scale in zip(six, scales, strict=True):
                module.set_scale(name, scale)
        if "cat" in layer.peft.peft_config:
            layer.peft.base_model.delete_adapter("cat")

    def cat() -> None:
        layer.peft.base_model.add_weighted_adapter(six, share[0].tolist(), "cat", combination_type="cat")
        for module in modules.values():
            module.merge(adapter_names=["cat"])

    before: dict[str, Work] = {"peft six": lambda: restore(share[0].tolist()), "peft cat": lambda: restore([1.0] * K)}
    work: dict[str, Work] = {
        "copy": lambda: [out[n].copy_(w) for n, w in W.items()],
        "addmm": lambda: [torch.addmm(W[n], (p.B * c[n].values).to(dtype), A[n], out=out[n]) for n, p in pools.items()],
        "merge": lambda: [kernels.merge(w, A[n], pools[n].B, c[n], out=out[n][None]) for n, w in W.items()],
        "peft six": lambda: [module.merge(adapter_names=six) for module in modules.values()],
        "peft cat": cat,
    }
    exact, errors = {n: reference.merge(w.double(), A[n], pools[n].B, c[n].values)[0] for n, w in W.items()}, {}
    for name in ("addmm", "merge", "peft six", "peft cat"):
        before.get(name, dict)()
        work[name]()
        got = {n: modules[n].get_base_layer().weight if name in before else out[n] for n in W}
        errors[name] = max(float((got[n] - exact[n]).norm() / exact[n].norm()) for n in W)
    six_roundings = {"peft six": K * errors["addmm"]}
    return work, before, checked(errors, dict.fromkeys(errors, 2 * errors["addmm"]) | six_roundings)


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
        cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
        about = {"run": datetime.now(UTC).isoformat(timespec="seconds"), "cpu": cpu.partition(": ")[2]}
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
