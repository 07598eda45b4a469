"""Bytes and FLOPs of decode steps and prefills, counted from the kernels' own launch geometry. Nothing runs on a GPU.

    python benchmarks/roofline.py             check the counts against the interpreter (a minute), count, tabulate, plot
    python benchmarks/roofline.py --plot      only tabulate and plot from benchmarks/data/roofline.json

Writes benchmarks/data/roofline.json, docs/roofline.md and docs/roofline.png.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import torch

from soupmix_kernels.jit import tiles, traffic

ROOT = Path(__file__).parents[1]
DATA = ROOT / "benchmarks" / "data" / "roofline.json"
MODELS = {  # hidden, width of k and v, inner, layers
    "135M": (576, 192, 1536, 30),
    "1B": (2048, 512, 8192, 16),
    "8B": (4096, 1024, 14336, 32),
    "70B": (8192, 1024, 28672, 80),
}
ADAPTERS, RANKS, PEOPLE = (3, 6, 8, 16), (8, 16, 32, 64), tuple(2**n for n in range(11))
K, RANK, PROMPT, SHOWN, BF16 = 6, 16, 2048, (1, 16, 64, 1024), torch.bfloat16
# NVIDIA's datasheet of the H100 SXM: a model to divide by, never a measurement. What a launch costs is a guess.
GPU = {"name": "H100 SXM", "bytes_per_s": 3.35e12, "flops_per_s": 989e12, "multiprocessors": 132, "launch_s": 3e-6}
LINES = {
    "soup": ("#1b6ca8", "-", "shared pool, from memory"),
    "soup_requested": ("#1b6ca8", ":", "shared pool, asked of caches"),
    "merged": ("#d9822b", "-", "(a) a merged rank-r adapter each"),
    "stacked": ("#2e7d32", "-", "(b) an exact rank-Kr adapter each"),
    "full": ("#777777", "-", "(c) a model each"),
}
THEIRS = ("merged", "stacked", "full")
KERNELS = {"shrink": "#1b6ca8", "expand": "#d9822b", "merge": "#2e7d32"}
Row = dict[str, Any]


def groups(model: str) -> dict[str, tuple[int, tuple[int, ...]]]:
    """The pools of a layer: in-features and the widths of the slices."""
    hidden, kv, inner, _ = MODELS[model]
    attention = {"q|k|v": (hidden, (hidden, kv, kv)), "o": (hidden, (hidden,))}
    return attention | {"gate|up": (hidden, (inner, inner)), "down": (inner, (hidden,))}


def step(model: str, adapters: int, rank: int, people: int, tokens: int) -> Row:
    """All layers: the base, what a soup for everybody adds to it, and what the alternatives add. tokens 1: a decode step."""
    rows, total, size = people * tokens, Counter[str](), BF16.itemsize
    R = -(-adapters * rank // 16) * 16  # padded as a pool pads
    for inputs, widths in groups(model).values():
        out, slices = sum(widths), len(widths)
        weights = inputs * out * size
        total.update(
            base=weights + rows * (inputs + out) * size, base_weights=weights, base_flops=2 * rows * inputs * out
        )
        for launch in traffic.soup_traffic(rows, people, inputs, widths, R, BF16):
            factors = sum(launch.arguments[name].read for name in ("a", "b") if name in launch.arguments)
            total.update(soup=launch.compulsory, soup_factors=factors, soup_requested=launch.requested)
            total.update(soup_useful=launch.useful, soup_issued=launch.issued, soup_launches=1)
        for name, own in (("merged", rank), ("stacked", adapters * rank)):
            factors = people * (slices * inputs + out) * own * size
            moved = rows * ((inputs + 2 * out) * size + 2 * slices * own * 4)  # x, y twice, h written and read in fp32
            total.update({name: factors + moved, f"{name}_factors": factors})
        total.update(full=(people - 1) * weights)
    counts = {key: MODELS[model][3] * count for key, count in total.items()}
    return {"model": model, "K": adapters, "r": rank, "people": people, "tokens": tokens, **counts}


def steps() -> Iterator[Row]:
    for model, adapters, rank in product(MODELS, ADAPTERS, RANKS):
        main = (adapters, rank) == (K, RANK)
        yield from (step(model, adapters, rank, people, 1) for people in (PEOPLE if main else SHOWN))
        yield from (step(model, adapters, rank, people, PROMPT) for people in (PEOPLE if main else (1,)))


def kernels() -> Iterator[Row]:
    """Single launches of 8B at K and RANK; a merge is of one half of gate|up, its rows are people."""
    for group, (inputs, widths) in groups("8B").items():
        for rows, people in (*((n, n) for n in PEOPLE), (PROMPT, 1)):
            factor = traffic.expand_factor_traffic(rows, people, widths, K * RANK, RANK, BF16)
            for launch in (*traffic.soup_traffic(rows, people, inputs, widths, K * RANK, BF16), factor):
                yield {"group": group, "rows": rows, **figures(launch)}
    for people in PEOPLE[:7]:
        (hidden, (width, _)) = groups("8B")["gate|up"]
        yield {
            "group": "gate|up",
            "rows": people,
            **figures(traffic.merge_traffic(width, hidden, K * RANK, people, BF16)),
        }


def figures(launch: traffic.Traffic) -> Row:
    names = ("kernel", "programs", "requested", "compulsory", "useful", "issued")
    return {name: getattr(launch, name) for name in names}


def other_tiles() -> Iterator[Row]:
    """What other tiles would do to the expand of the largest decode step of 8B; SPLIT is the shrink's, too."""
    rows, chosen = tiles.DECODE_ROWS, tiles.expand_tile(BF16, tiles.DECODE_ROWS)
    for group, t, o, split in product(("gate|up", "o"), (16, 64), (64, 256), (8, 2)):
        sizes = {"BLOCK_T": t, "BLOCK_O": o, "SPLIT": split}
        tile = replace(chosen, constants=tuple((dict(chosen.constants) | sizes).items()))
        launch = traffic.expand_traffic(rows, rows, groups("8B")[group][1], K * RANK, BF16, tile=tile)
        yield {"group": group, "rows": rows, **sizes, "launched": tile == chosen, **figures(launch)}


def break_even() -> Iterator[Row]:
    """Fewest different people in a decode step for whom the shared pool moves no more than adapters of their own."""
    pairs = {"merged": ("soup", "merged"), "stacked": ("soup", "stacked"), "asked": ("soup_requested", "merged")}
    for model, adapters, rank in product(MODELS, ADAPTERS, RANKS):
        found: Row = dict.fromkeys(pairs)
        for people in range(PEOPLE[-1], 0, -1):
            row = step(model, adapters, rank, people, 1)
            found |= {name: people for name, (ours, theirs) in pairs.items() if row[ours] <= row[theirs]}
        yield {"model": model, "K": adapters, "r": rank, **found}


def measure() -> str:
    """The data as JSON, a line for every row of a table; only if the interpreter counts the same."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/kernels/interpreted/test_traffic.py"]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, cwd=ROOT, capture_output=True, text=True)
    passed = re.search(r"(\d+) passed", done.stdout)
    if done.returncode or passed is None:
        sys.exit(f"{done.stdout}\nthe counts are not what the interpreter counts; nothing was written")
    about = {"checked": int(passed[1]), "triton": version("triton"), "decode_rows": tiles.DECODE_ROWS}
    tables = {"steps": steps(), "kernels": kernels(), "tiles": other_tiles(), "break_even": break_even()}
    lines = [f'"about": {json.dumps(about)}', f'"gpu": {json.dumps(GPU)}']
    lines += [f'"{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]" for name, rows in tables.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def pick(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def size(count: float) -> str:
    power = (len(str(int(count))) - 1) // 3
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB')[power]}"


def grid(head: str, rows: Iterable[Sequence[object]]) -> str:
    """A table in markdown."""
    names = head.split("; ")
    lines = (names, ["---"] * len(names), *rows)
    return "\n".join("| " + " | ".join(str(cell).replace("|", ", ") for cell in line) + " |" for line in lines)


def least(count: float, flops: float) -> float:
    """Seconds on the GPU that is the model, at its best."""
    return max(count / GPU["bytes_per_s"], flops / GPU["flops_per_s"])


def added(rows: Iterable[Row]) -> str:
    """What is added to the base, ours and theirs."""
    head, lines = "model; people; base; pool; its factors; requested; FLOPs; issued; least time; (a); (b); (c)", []
    for r in rows:
        ours, theirs = (
            [r[n] / r["base"] for n in names] for names in (("soup", "soup_factors", "soup_requested"), THEIRS)
        )
        flops = [r[name] / r["base_flops"] for name in ("soup_useful", "soup_issued")]
        time = least(r["soup"], r["soup_issued"]) / least(r["base"], r["base_flops"])
        lines.append([r["model"], r["people"], size(r["base"]), *(f"{n:.1%}" for n in (*ours, *flops, time, *theirs))])
    return grid(head, lines)


def launched(rows: Iterable[Row]) -> str:
    """Single launches, and what takes longest on the GPU that is the model, at its best: memory, arithmetic or the launch."""
    head = "pool; launch; rows; programs; compulsory; FLOP per byte; requested / compulsory; issued / useful; limit"
    lines = []
    for r in rows:
        ratios = (r["useful"] / r["compulsory"], r["requested"] / r["compulsory"], r["issued"] / r["useful"])
        times = (least(r["compulsory"], 0), least(0, r["issued"]), GPU["launch_s"])
        seconds, limit = max(zip(times, ("bandwidth", "compute", "launch"), strict=True))
        told = (*(f"{number:.3g}" for number in ratios), f"{limit}, {seconds * 1e6:.3g} µs")
        lines.append([r["group"], r["kernel"], r["rows"], r["programs"], size(r["compulsory"]), *told])
    return grid(head, lines)


def limits(data: Row) -> str:
    """The paragraph on what holds each kernel back, with the numbers of 8B."""
    half, ones = data["about"]["decode_rows"], pick(data["steps"], K=K, r=RANK, people=1, tokens=1)
    at = {(r["group"], r["kernel"], r["rows"]): r for r in data["kernels"]}
    keys = (
        ("gate|up", "expand", half),
        ("gate|up", "expand", PROMPT),
        ("gate|up", "merge", 8),
        ("gate|up", "merge", 1),
    )
    again = [f"{at[key]['requested'] / at[key]['compulsory']:.1f}" for key in keys]
    dense = [f"{at[key]['useful'] / at[key]['compulsory']:.0f}" for key in keys]
    few = [at["down", "shrink", rows]["programs"] for rows in (half, 2 * half)]
    small = [r for r in data["kernels"] if r["rows"] == 1 and r["kernel"] in ("shrink", "expand")]
    short, guess = sum(least(r["compulsory"], 0) < GPU["launch_s"] for r in small), f"{GPU['launch_s'] * 1e6:g} µs"
    waits = (f"{r['soup_launches'] * GPU['launch_s'] / least(r['base_weights'], 0):.0%} ({r['model']})" for r in ones)
    best, narrow = (min(pick(data["tiles"], group=g), key=lambda r: r["requested"]) for g in ("gate|up", "o"))
    tile = ", ".join(f"{name} {best[name]}" for name in ("BLOCK_T", "BLOCK_O", "SPLIT"))
    share = f"{best['requested'] / at[keys[0]]['requested']:.2f} of that with {best['programs']} programs"
    return f"""**Decode is limited by launches**: for one person {short} of the {len(small)} launches of a layer of 8B move less than memory could
in {guess}, a guess of what a launch takes. At that guess all launches of a step add {", ".join(waits)} to
the time in which memory could deliver the base: a CUDA graph saves more there than any tile. **Shrink** reads little, with
few programs: `down` has {few[0]} for {half} rows and {few[1]} for {2 * half}, where the input is no longer split, on {GPU["multiprocessors"]} multiprocessors: the
figure to change first. **Expand** asks for {again[0]} times what it must (`gate|up`, {half} rows): every output tile reads all shares of h
and the coefficients again, and every block of rows reads B again. L2 answers that, not memory.
{tile} would ask for {share}, but `o` would have {narrow["programs"]}: wide tiles are for wide layers.
In a **prefill** expand has {dense[1]} FLOP per byte, far below the ridge of {GPU["flops_per_s"] / GPU["bytes_per_s"]:.0f}: it reads and writes y, which only an
epilogue of the base's own product would save. **Factor** moves what delta does, asks for coefficients twice, and issues more
where the rank is below BLOCK_R. **Merge** is limited by bandwidth ({dense[3]} FLOP per byte for one person, {dense[2]} for 8); it asks for
{again[3]} and {again[2]} times what it must, A and B again for every tile, in an order that finds them in L2. **Coefficients** are
computed once per person, not per step. Nothing is limited by arithmetic at these ranks."""


def page(data: Row) -> str:
    """docs/roofline.md: generated, never typed."""
    about, mine, half = data["about"], pick(data["steps"], K=K, r=RANK), data["about"]["decode_rows"]
    ways, ranks = tuple(product(MODELS, ADAPTERS)), "model; K; " + "; ".join(f"r = {r}" for r in RANKS)
    decode, prefill = ([r for r in pick(mine, tokens=n) if r["people"] in SHOWN] for n in (1, PROMPT))
    ones, many, even = pick(decode, people=1), pick(data["steps"], people=64, tokens=1), data["break_even"]
    people = [
        [*w, *("{merged} / {stacked} / {asked}".format(**r) for r in pick(even, model=w[0], K=w[1]))] for w in ways
    ]
    shares = [[*w, *(f"{r['soup'] / r['base']:.1%}" for r in pick(many, model=w[0], K=w[1]))] for w in ways]
    held = ((r["model"], 4 * K, r["merged_factors"], r["stacked_factors"], r["base_weights"]) for r in ones)
    stored = [[model, *(f"{size(n)}, {size(n * 10**6)}" for n in each)] for model, *each in held]
    cells = [
        r for r in data["kernels"] if r["rows"] in (1, 8, half, 2 * half, PROMPT) and r["group"] in ("gate|up", "down")
    ]
    names = ("group", "rows", "BLOCK_T", "BLOCK_O", "SPLIT", "launched", "programs")
    tried = [[*(r[n] for n in names), size(r["requested"]), size(r["compulsory"])] for r in data["tiles"]]
    gpu = f"{GPU['name']}, {GPU['bytes_per_s'] / 1e12} TB/s, {GPU['flops_per_s'] / 1e12:.0f} TFLOP/s in dense bf16"
    return f"""# What a soup moves and computes, counted

Generated by `python benchmarks/roofline.py` from `benchmarks/data/roofline.json`. **Nothing here ran on a GPU; no time here was
measured.** Bytes and FLOPs follow from shapes, and from the grids and tiles that are launched (`soupmix_kernels/jit/traffic.py`).
{about["checked"]} tests in Triton's interpreter (triton {about["triton"]}) find the same on small shapes, to the byte, for every kernel and
argument. Times are bytes or FLOPs divided by a datasheet ({gpu}): a model.

![roofline](roofline.png)

Counted are the seven linear layers of every block in bf16; not attention, the KV cache, embeddings or the output head. *base*:
every weight, input and output once. *pool*: what our launches add, every element of every launch once, everybody different, no
coefficient zero; *its factors* is the part that is A and B, the rest is x, h, y and coefficients, which L2 often holds.
*requested*: what lanes ask for, which caches see. Against it, at their best (grouped like ours, every element once): *(a)* a merged
adapter of rank r per person, gathered per row as Punica does, exact for `factor`, an approximation for `delta`; *(b)* the exact
stacked adapter of rank K r per person; *(c)* a model per person. All in percent of the base. (b) computes what the pool does,
(a) a K-th of that. *least time* divides the larger of memory's and arithmetic's time by that of the base; launches not counted.

## Decode: one token each for different people, K = {K}, r = {RANK}

{added(decode)}

Launches a step: {", ".join(f"{r['model']} {r['soup_launches']}" for r in ones)}.

## Break-even: how many different people in a decode step

From how many people on the pool moves no more bytes than (a) / than (b) / asks caches for no more than (a) must move.

{grid(ranks, people)}

## Prefill: {PROMPT} tokens each, K = {K}, r = {RANK}

{added(prefill)}

## Adapters and ranks: what the pool adds to a decode step of 64 people

{grid(ranks, shares)}

## Storage: for one person, for a million, K = {K}, r = {RANK}

{grid("model; weights of a soup; (a); (b); (c)", stored)}

## What limits each kernel

{limits(data)}

{launched(cells)}

Other tiles for expand (counted, neither compiled nor run):

{grid("; ".join(names) + "; requested; compulsory", tried)}
"""


def plot(data: Row, path: Path) -> None:
    """Above, extra bytes against people for every model; below, 8B's kernels under the roofline, and what they read again."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(13, 8.6), layout="constrained")
    boxes = figure.add_gridspec(2, 4, height_ratios=(1, 1.05))
    for number, model in enumerate(MODELS):
        panel, rows = figure.add_subplot(boxes[0, number]), pick(data["steps"], model=model, K=K, r=RANK, tokens=1)
        for name, (colour, style, label) in LINES.items():
            shown = [(r["people"], 100 * r[name] / r["base"]) for r in rows if r[name]]
            panel.plot(*zip(*shown, strict=True), style, color=colour, label=label)
        even = pick(data["break_even"], model=model, K=K, r=RANK)[0]["merged"]
        panel.axvline(even, color="#999999", lw=1, ls=":")
        panel.text(even * 1.2, 0.25, f"pool = (a) from {even} people on", color="#555555", fontsize=8)
        panel.set(title=model, xlabel="different people in a decode step", xscale="log", yscale="log", ylim=(0.2, 2e5))
        panel.set(xticks=SHOWN, xticklabels=SHOWN, ylabel="extra bytes, % of the base" if model == "135M" else None)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    roof, again = figure.add_subplot(boxes[1, :2]), figure.add_subplot(boxes[1, 2:])
    xs, peak, half = (
        (0.5, GPU["flops_per_s"] / GPU["bytes_per_s"], 2000),
        GPU["flops_per_s"] / 1e12,
        data["about"]["decode_rows"],
    )
    roof.plot(xs, [min(x / xs[1], 1) * peak for x in xs], color="#333333")
    for kernel, colour in KERNELS.items():
        rows = pick(data["kernels"], kernel=kernel, group="gate|up")
        again.plot(
            [r["rows"] for r in rows],
            [r["requested"] / r["compulsory"] for r in rows],
            "o-",
            color=colour,
            label=kernel,
        )
        dense = [r["useful"] / r["compulsory"] for r in rows]
        roof.plot(dense, [x / xs[1] * peak for x in dense], "o", color=colour, label=kernel)
    for axes, title in ((roof, "roofline"), (again, "bytes asked of caches / bytes of memory")):
        axes.set(title=f"8B, gate|up: {title}", xscale="log")
        axes.legend(frameon=False)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    if "--plot" not in sys.argv[1:]:
        DATA.write_text(measure())
    data = json.loads(DATA.read_text())
    (ROOT / "docs" / "roofline.md").write_text(page(data))
    plot(data, ROOT / "docs" / "roofline.png")


if __name__ == "__main__":
    main()
