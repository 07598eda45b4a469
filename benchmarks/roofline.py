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
OURS, THEIRS = ("soup", "soup_factors", "soup_requested"), ("merged", "stacked", "full")
KERNELS = {"shrink": ("#1b6ca8", "o"), "expand": ("#d9822b", "s"), "merge": ("#2e7d32", "D")}
RATIOS = (("FLOP per byte of memory", "useful", "compulsory"), ("bytes asked for per byte", "requested", "compulsory"))
RIDGE = GPU["flops_per_s"] / GPU["bytes_per_s"]
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
    inputs, (width, _) = groups("8B")["gate|up"]
    for people in PEOPLE[:7]:
        launch = traffic.merge_traffic(width, inputs, K * RANK, people, BF16)
        yield {"group": "gate|up", "rows": people, **figures(launch)}


def other_tiles() -> Iterator[Row]:
    """What other tiles would do to the expand of the largest decode step of 8B; SPLIT is the shrink's, too."""
    rows, chosen = tiles.DECODE_ROWS, tiles.expand_tile(BF16, tiles.DECODE_ROWS)
    for group, t, o, split in product(("gate|up", "o"), (16, 64), (64, 256), (8, 2)):
        sizes = {"BLOCK_T": t, "BLOCK_O": o, "SPLIT": split}
        tile = replace(chosen, constants=tuple((dict(chosen.constants) | sizes).items()))
        launch = traffic.expand_traffic(rows, rows, groups("8B")[group][1], K * RANK, BF16, tile=tile)
        yield {"group": group, "rows": rows, **sizes, "launched": tile == chosen, **figures(launch)}


def figures(launch: traffic.Traffic) -> Row:
    return {n: getattr(launch, n) for n in ("kernel", "programs", "requested", "compulsory", "useful", "issued")}


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
        ours, theirs = ([r[n] / r["base"] for n in names] for names in (OURS, THEIRS))
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
    """What holds each kernel back, with the numbers of 8B."""
    half, ones = data["about"]["decode_rows"], pick(data["steps"], K=K, r=RANK, people=1, tokens=1)
    at = {(r["group"], r["kernel"], r["rows"]): r for r in data["kernels"]}
    keys = [("gate|up", *key) for key in (("expand", half), ("expand", PROMPT), ("merge", 1), ("merge", 8))]
    again = [f"{at[key]['requested'] / at[key]['compulsory']:.1f}" for key in keys]
    dense = [f"{at[key]['useful'] / at[key]['compulsory']:.0f}" for key in keys]
    few = [at["down", "shrink", rows]["programs"] for rows in (half, 2 * half)]
    small = [r for r in data["kernels"] if r["rows"] == 1 and r["kernel"] in ("shrink", "expand")]
    short, guess = sum(least(r["compulsory"], 0) < GPU["launch_s"] for r in small), f"{GPU['launch_s'] * 1e6:g} µs"
    waits = (f"{r['soup_launches'] * GPU['launch_s'] / least(r['base_weights'], 0):.0%} ({r['model']})" for r in ones)
    best, narrow = (min(pick(data["tiles"], group=g), key=lambda r: r["requested"]) for g in ("gate|up", "o"))
    tile = ", ".join(f"{name} {best[name]}" for name in ("BLOCK_T", "BLOCK_O", "SPLIT"))
    share = f"{best['requested'] / at[keys[0]]['requested']:.2f} of that with {best['programs']} programs"
    return f"""Counted, with a datasheet's bandwidth and a guess of {guess} a launch. **Decode** is limited by launches: for one person {short} of the {len(small)} launches of a layer of 8B move less than memory could meanwhile, and all launches of a step add {", ".join(waits)} to the time in which memory could deliver the base's weights. A CUDA graph saves more there than any tile.
**Shrink** reads little, with few programs: `down` has {few[0]} for {half} rows and {few[1]} for {2 * half}, where its input is no longer split, on {GPU["multiprocessors"]} multiprocessors. That is latency, which no count of bytes shows, and the first thing to change: batches somewhat above {half} rows want a split, too.
**Expand** asks for {again[0]} times what it must (`gate|up`, {half} rows): every output tile reads all shares of h and the coefficients again, every block of rows reads B again. L2 answers that, not memory. {tile} would ask for {share}; `o` would have {narrow["programs"]}, so wide tiles are for wide layers. In a prefill it is limited by bandwidth, {dense[1]} FLOP per byte under a ridge of {RIDGE:.0f}: it reads and writes y, which only an epilogue of the base's own product would save.
**Factor** moves what delta moves, asks for coefficients twice, and issues more where the rank is below BLOCK_R.
**Merge** is limited by bandwidth, {dense[2]} FLOP per byte for one person and {dense[3]} for 8; it asks for {again[2]} and {again[3]} times what it must, A and B again for every tile, in an order that is to find them in L2.
**Coefficients** are computed once per person, not per step."""


def definitions(data: Row) -> str:
    about, peaks = (
        data["about"],
        f"{GPU['bytes_per_s'] / 1e12} TB/s, {GPU['flops_per_s'] / 1e12:.0f} TFLOP/s in dense bf16",
    )
    return f"""Generated by `python benchmarks/roofline.py` from `benchmarks/data/roofline.json`. **Nothing here ran on a GPU; no time here was measured.** Bytes and FLOPs follow from shapes, and from the grids and tiles that are launched (`soupmix_kernels/jit/traffic.py`). {about["checked"]} tests in Triton's interpreter (triton {about["triton"]}) find the same on small shapes, to the byte, for every kernel and argument. Times are bytes or FLOPs divided by the datasheet of {GPU["name"]} ({peaks}): a model.

![roofline](roofline.png)

Counted are the seven linear layers of every block in bf16; not attention, the KV cache, embeddings or the output head. All in percent of the *base*: every weight, input and output once.

- *pool*: what our launches add, every element of every launch once, everybody different, no coefficient zero. *its factors*: the part that is A and B; the rest is x, h, y and coefficients, which L2 often holds. *requested*: what lanes ask for, which caches see. *FLOPs*, *issued*: inside the masks, and with the padding of the tiles. *least time*: memory's or arithmetic's, whichever is longer, against that of the base; launches not counted.
- *(a)* a merged adapter of rank r per person, gathered per row as Punica does: exact for `factor`, an approximation for `delta`; a K-th of the pool's FLOPs. *(b)* the exact stacked adapter of rank K r per person; the pool's FLOPs. *(c)* a model per person. All at their best: grouped like ours, every element once."""


def page(data: Row) -> str:
    """docs/roofline.md: generated, never typed."""
    mine, half, even = pick(data["steps"], K=K, r=RANK), data["about"]["decode_rows"], data["break_even"]
    ways, ranks = tuple(product(MODELS, ADAPTERS)), "model; K; " + "; ".join(f"r = {r}" for r in RANKS)
    decode, prefill = ([r for r in pick(mine, tokens=n) if r["people"] in SHOWN] for n in (1, PROMPT))
    ones, many = pick(decode, people=1), pick(data["steps"], people=64, tokens=1)
    told = "{merged} / {stacked} / {asked}".format_map
    people = ((m, k, *map(told, pick(even, model=m, K=k))) for m, k in ways)
    shares = ((m, k, *(f"{r['soup'] / r['base']:.1%}" for r in pick(many, model=m, K=k))) for m, k in ways)
    held = ((r["model"], 4 * K, r["merged_factors"], r["stacked_factors"], r["base_weights"]) for r in ones)
    stored = ((model, *(f"{size(n)}, {size(n * 10**6)}" for n in each)) for model, *each in held)
    cells = [r for r in data["kernels"] if r["rows"] in (1, 8, half, 2 * half, PROMPT)]
    names = ("group", "rows", "BLOCK_T", "BLOCK_O", "SPLIT", "launched", "programs")
    tried = ((*(r[n] for n in names), size(r["requested"]), size(r["compulsory"])) for r in data["tiles"])
    launches = "Launches a step: " + ", ".join(map("{model} {soup_launches}".format_map, ones)) + "."
    since = f"From how many people on the pool moves no more bytes than (a) / than (b) / asks caches for no more than (a) must move; with more than {half} a step is launched like a prefill."
    sections = {
        f"Decode: one token each for different people, K = {K}, r = {RANK}": f"{added(decode)}\n\n{launches}",
        "Break-even: how many different people in a decode step": f"{since}\n\n{grid(ranks, people)}",
        f"Prefill: {PROMPT} tokens each, K = {K}, r = {RANK}": added(prefill),
        "Adapters and ranks: what the pool adds to a decode step of 64 people": grid(ranks, shares),
        f"Storage for one person, for a million, K = {K}, r = {RANK}": grid("model; soup; (a); (b); (c)", stored),
        "What limits each kernel": limits(data),
        f"Launches of 8B, K = {K}, r = {RANK}": launched(r for r in cells if r["group"] in ("gate|up", "down")),
        "Other tiles for expand, counted only": grid("; ".join(names) + "; requested; compulsory", tried),
    }
    parts = (f"## {title}\n\n{body}" for title, body in sections.items())
    return "\n\n".join(("# What a soup moves and computes, counted", definitions(data), *parts)) + "\n"


def plot(data: Row, path: Path) -> None:
    """Above, extra bytes against people for every model; below, for 8B, intensity and what is asked for again."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(13, 8.8), layout="constrained")
    boxes = figure.add_gridspec(2, 4)
    places = (*(boxes[0, n] for n in range(4)), boxes[1, :2], boxes[1, 2:])
    panels = [figure.add_subplot(place, xscale="log") for place in places]
    for panel, model in zip(panels, MODELS, strict=False):
        rows = pick(data["steps"], model=model, K=K, r=RANK, tokens=1)
        for name, (colour, style, label) in LINES.items():
            shown = [(r["people"], 100 * r[name] / r["base"]) for r in rows if r[name]]
            panel.plot(*zip(*shown, strict=True), style, color=colour, label=label)
        even = pick(data["break_even"], model=model, K=K, r=RANK)[0]["merged"]
        panel.axvline(even, color="#999999", lw=1, ls=":")
        panel.text(even * 1.2, 0.25, f"from {even} people on\nless than (a)", color="#555555", fontsize=8)
        panel.set(title=model, xlabel="different people in a decode step", yscale="log", ylim=(0.2, 2e5))
    panels[0].set_ylabel("extra bytes, % of the base")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    for panel, (title, above, below) in zip(panels[4:], RATIOS, strict=True):
        for kernel, (colour, mark) in KERNELS.items():
            points = [(r["rows"], r[above] / r[below]) for r in pick(data["kernels"], kernel=kernel, group="gate|up")]
            panel.plot(*zip(*points, strict=True), f"{mark}-", color=colour, label=kernel)
        panel.set(title=f"8B, gate|up: {title}", xlabel="rows of a launch; of a merge, people")
    panels[4].axhline(RIDGE, color="#333333", lw=1, label=f"ridge of {GPU['name']}, by its datasheet")
    panels[4].set(yscale="log", ylim=(0.5, 1500))
    panels[5].set_ylim(0)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xticks((*SHOWN[:3], 256, 1024), map(str, (*SHOWN[:3], 256, 1024)))
    panels[4].legend(loc="lower right", frameon=False)
    panels[5].legend(loc="upper right", frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    if "--plot" not in sys.argv[1:]:
        DATA.write_text(measure())
    data = json.loads(DATA.read_text())
    (ROOT / "docs" / "roofline.md").write_text(page(data))
    plot(data, ROOT / "docs" / "roofline.png")


if __name__ == "__main__":
    main()
