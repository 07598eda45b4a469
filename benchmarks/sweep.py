"""What weights do: two opposing poles in five steps, and a three-way soup at four strengths, against prompting.

    python benchmarks/sweep.py             measure (about 15 minutes on two cores; finished arms are kept), tabulate, plot
    python benchmarks/sweep.py --plot      only tabulate and plot from benchmarks/data/sweep.json

Writes benchmarks/data/sweep.json (figures without texts), docs/sweep.md and docs/sweep.png.
"""

import argparse
import json
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from soupmix.base import cache_root, resolve
from soupmix.cli.progress import stages
from soupmix.evaluate import Arm, Measures, held_out_prompts, interval, measure_arms, training_prompts
from soupmix.store import shipped_root
from soupmix.train import POLES
from soupmix.weights import Weights

ROOT = Path(__file__).parents[1]
DATA = ROOT / "benchmarks" / "data" / "sweep.json"
STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
STRENGTHS = (0.333333, 0.5, 0.75, 1.0)
AXES = {
    "expertise": ("expert", "elementary"),
    "length": ("informative", "concise"),
    "style": ("friendly", "unfriendly"),
}
METRIC = {"expertise": "grade", "length": "words", "style": "warmth"}
THREE = ("elementary", "concise", "friendly")


def arms() -> dict[str, Arm]:
    """Every arm by a key of what it is: axis:method:step, three:method:strength, prompt:..., base."""
    found = {"base": Arm("base", Weights({}))}
    for method in ("delta", "factor"):
        for axis, (up, down) in AXES.items():
            for step in STEPS:
                key = f"{axis}:{method}:{step}"
                found[key] = Arm(key, Weights({up: step, down: 1 - step}).nonzero(), method)
        for strength in STRENGTHS:
            key = f"three:{method}:{strength}"
            found[key] = Arm(key, Weights(dict.fromkeys(THREE, strength)), method)
    for axis, poles in AXES.items():
        for pole in poles:
            found[f"prompt:{axis}:{pole}"] = Arm(f"prompt:{axis}:{pole}", Weights({}), system=POLES[pole].systems[0])
    together = " ".join(POLES[pole].systems[0] for pole in THREE)
    found["prompt:three"] = Arm("prompt:three", Weights({}), system=together)
    return found


def measure(jobs: int, work: Path) -> dict[str, Any]:
    """Measure all arms on the held-out prompts with the shipped adapters."""
    with stages() as progress:
        found = measure_arms(
            resolve("smollm2-135m-instruct"),
            shipped_root(),
            list(arms().values()),
            held_out_prompts(),
            work,
            jobs=jobs,
            progress=progress,
        )
    figures = {name: {key: arm[key] for key in ("arm", "metrics", "perplexity")} for name, arm in found.items()}
    packages = {name: version(name) for name in ("torch", "transformers", "soupmix")}
    about = {"date": datetime.now(UTC).date().isoformat(), "python": platform.python_version(), **packages}
    return {"about": about, "prompts": len(held_out_prompts()), "arms": figures, "transfer": transfer(found)}


def transfer(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Each pole against the base, paired by prompt, on kinds of prompts that were trained on and on others."""
    trained = {prompt.kind for prompt in training_prompts()}
    rows = []
    for axis, (up, down) in AXES.items():
        for pole, step in ((down, 0.0), (up, 1.0)):
            pairs = list(zip(found[f"{axis}:delta:{step}"]["answers"], found["base"]["answers"], strict=True))
            for label, seen in (("trained on", True), ("new", False)):
                moved = [
                    value(answer, METRIC[axis]) - value(plain, METRIC[axis])
                    for answer, plain in pairs
                    if (answer["kind"] in trained) is seen
                ]
                change = {"kinds": label, "prompts": len(moved), **asdict(interval(moved))}
                rows.append({"pole": pole, "metric": METRIC[axis], **change})
    return rows


def value(answer: dict[str, Any], metric: str) -> float:
    return float(getattr(Measures(**answer["measures"]), metric))


def monotone(means: list[float]) -> bool:
    """Whether the means never turn back."""
    steps = [b - a for a, b in pairwise(means)]
    return all(s >= 0 for s in steps) or all(s <= 0 for s in steps)


def cell(arm: dict[str, Any], metric: str, digits: int) -> str:
    value = arm["metrics"][metric]
    return f"{value['mean']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def table(data: dict[str, Any]) -> str:
    """docs/sweep.md: generated, never typed."""
    found = data["arms"]
    columns = {"grade": 1, "words": 0, "warmth": 1, "on_topic": 2, "degenerate": 2, "finished": 2}
    header = ["| | " + " | ".join(columns) + " | perplexity |", "|---|" + "---|" * (len(columns) + 1)]

    def row(label: str, key: str) -> str:
        arm = found[key]
        return (
            f"| {label} | " + " | ".join(cell(arm, m, d) for m, d in columns.items()) + f" | {arm['perplexity']:.1f} |"
        )

    lines = [
        "# What weights do",
        "",
        f"Generated by `python benchmarks/sweep.py` on {data['about']['date']} from `benchmarks/data/sweep.json`: "
        f"{data['prompts']} held-out prompts, one answer each at temperature 0.7, at most 256 tokens; means with 95 % "
        "bootstrap intervals over prompts. torch "
        f"{data['about']['torch']}, transformers {data['about']['transformers']}.",
        "",
        "![sweep](sweep.png)",
    ]
    for axis, (up, down) in AXES.items():
        lines += ["", f"## {axis}: w {up}, 1 - w {down}", "", *header, row("base", "base")]
        for method in ("delta", "factor"):
            lines += [row(f"{method} w={step:g}", f"{axis}:{method}:{step}") for step in STEPS]
        lines += [row(f"prompt: {pole}", f"prompt:{axis}:{pole}") for pole in (down, up)]
        for method in ("delta", "factor"):
            means = [found[f"{axis}:{method}:{step}"]["metrics"][METRIC[axis]]["mean"] for step in STEPS]
            verdict = "monotone" if monotone(means) else "not monotone"
            lines += ["", f"{method}: {METRIC[axis]} is {verdict} in w."]
    lines += [
        "",
        "## kinds of prompts never trained on",
        "",
        "Change against the base at weight 1, paired by prompt.",
        "",
    ]
    lines += ["| pole | metric | kinds | prompts | change |", "|---|---|---|---|---|"]
    for r in data["transfer"]:
        change = f"{r['mean']:+.1f} [{r['low']:+.1f}, {r['high']:+.1f}]"
        lines.append(f"| {r['pole']} | {r['metric']} | {r['kinds']} | {r['prompts']} | {change} |")
    lines += [
        "",
        "## three at once: elementary, concise, friendly, each at the same weight",
        "",
        *header,
        row("base", "base"),
    ]
    for method in ("delta", "factor"):
        lines += [row(f"{method} {s:.2g}", f"three:{method}:{s}") for s in STRENGTHS]
    lines += [row("prompt: all three", "prompt:three")]
    return "\n".join(lines) + "\n"


def plot(data: dict[str, Any], path: Path) -> None:
    """Four panels: one per axis, and what three at once cost."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = data["arms"]
    figure, panels = pyplot.subplots(2, 2, figsize=(10, 7.2), layout="constrained")
    colours = {"delta": "#1b6ca8", "factor": "#d9822b"}
    for panel, (axis, (up, down)) in zip(panels.flat, AXES.items(), strict=False):
        for method, colour in colours.items():
            _line(panel, [found[f"{axis}:{method}:{s}"] for s in STEPS], STEPS, METRIC[axis], colour, method)
        base = found["base"]["metrics"][METRIC[axis]]["mean"]
        panel.axhline(base, color="#777777", lw=1, ls=":", label="base")
        for x, pole in ((0, down), (1, up)):
            value = found[f"prompt:{axis}:{pole}"]["metrics"][METRIC[axis]]["mean"]
            panel.plot([x], [value], marker="D", color="#2e7d32", ls="", label="prompt" if x else None)
        panel.set(title=f"{axis}", xlabel=f"{down}  ←  w  →  {up}", ylabel=METRIC[axis])
    panel = panels[1, 1]
    for method, colour in colours.items():
        _line(panel, [found[f"three:{method}:{s}"] for s in STRENGTHS], STRENGTHS, "on_topic", colour, method)
    prompt = found["prompt:three"]["metrics"]["on_topic"]["mean"]
    panel.axhline(prompt, color="#2e7d32", lw=1, label="prompt")
    panel.axhline(found["base"]["metrics"]["on_topic"]["mean"], color="#777777", lw=1, ls=":", label="base")
    panel.set(title="elementary + concise + friendly", xlabel="weight of each", ylabel="on topic", ylim=(0, 1.03))
    for each in panels.flat:
        each.spines[["top", "right"]].set_visible(False)
        each.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def _line(panel: Any, rows: list[dict[str, Any]], xs: tuple[float, ...], metric: str, colour: str, label: str) -> None:
    values = [row["metrics"][metric] for row in rows]
    panel.plot(xs, [v["mean"] for v in values], marker="o", color=colour, label=label)
    panel.fill_between(xs, [v["low"] for v in values], [v["high"] for v in values], color=colour, alpha=0.15, lw=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", action="store_true", help="do not measure")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", type=Path, default=cache_root() / "arms", help="where finished arms are kept")
    arguments = parser.parse_args()
    if not arguments.plot:
        DATA.parent.mkdir(exist_ok=True)
        DATA.write_text(json.dumps(measure(arguments.jobs, arguments.work), indent=1) + "\n")
    data = json.loads(DATA.read_text())
    (ROOT / "docs" / "sweep.md").write_text(table(data))
    plot(data, ROOT / "docs" / "sweep.png")
    print(table(data))


if __name__ == "__main__":
    main()
