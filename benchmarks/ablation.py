"""What training in mixtures owes to the mixture, and what to its data: the ways side by side, each evaluated alike.

    python benchmarks/ablation.py out/ablation --seeds 0,1 --mixtures 1024 --prompts 24

Arms: `before`, the store as it is; `together`, all adapters in active mixtures; `apart`, the same examples without the mixture;
`frozen`, one adapter at a time beside the others; `skip`, together without the first tokens of concise and elementary answers;
`answer`, together with the prompt on the bare base; `unheld`, together without what holds soups to the base on prose;
`unlikelihood`, together with words that were said made unlikely. All begin with the adapters of one store and share their
samples. Every arm goes on where it was stopped; measures that chose no training data say what came of it. The figures are in
OUT/figures.jsonl.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from soupmix.base import resolve
from soupmix.evaluate import training_prompts
from soupmix.store import Store
from soupmix.store.manifest import shipped_root
from soupmix.train import POLES, SoupRecipe, TrainingPlan, TrainingRecipe, run

RECIPES = {
    "together": SoupRecipe(),
    "apart": SoupRecipe(arm="apart"),
    "frozen": SoupRecipe(arm="frozen"),
    "skip": SoupRecipe(skip=6),
    "answer": SoupRecipe(mode="answer"),
    "unheld": SoupRecipe(hold=0.0),
    "unlikelihood": SoupRecipe(unlikelihood=0.5),
}
SOUPMIX = (sys.executable, "-c", "from soupmix.cli import run; run()")


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--arms", default="before,together,apart,frozen", show_default=True)
@click.option("--seeds", default="0", show_default=True)
@click.option("--mixtures", default=1024, show_default=True)
@click.option("--rate", default=SoupRecipe().learning_rate, show_default=True, help="Highest learning rate.")
@click.option(
    "--from", "start", type=click.Path(path_type=Path), help="Store to begin with.  [default: the shipped one]"
)
@click.option("--base", default="smollm2-135m-instruct", show_default=True)
@click.option("--first", type=int, help="Only the first prompts of training.")
@click.option("--prompts", default=24, show_default=True, help="Prompts of the evaluation.")
@click.option("--threads", default=1, show_default=True)
@click.option("--jobs", default=2, show_default=True)
@click.option("--evaluate/--no-evaluate", "is_evaluated", default=True)
def main(
    out: Path,
    arms: str,
    seeds: str,
    mixtures: int,
    rate: float,
    start: Path | None,
    base: str,
    first: int | None,
    prompts: int,
    threads: int,
    jobs: int,
    is_evaluated: bool,
) -> None:
    """Train and evaluate every arm with every seed."""
    begin = start or shipped_root()
    asked = tuple(training_prompts()[:first])
    plan = TrainingPlan(
        resolve(base), tuple(POLES), asked, out, TrainingRecipe(), jobs=jobs, beside=begin, shared=out / "samples"
    )
    rows: list[dict[str, Any]] = []
    for arm in arms.split(","):
        for seed in map(int, seeds.split(",") if arm != "before" else ["0"]):
            folder = out / f"{arm}-{seed}"
            store = begin
            if arm != "before":
                recipe = replace(RECIPES[arm], seed=seed, examples=mixtures, threads=threads, learning_rate=rate)
                store = trained(replace(plan, folder=folder, soup=recipe))
            if is_evaluated:
                rows += [
                    {"arm": arm, "seed": seed, **row} for row in figures(folder / "evaluated", store, prompts, jobs)
                ]
    if rows:
        (out / "figures.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        print(table(rows))


def trained(plan: TrainingPlan) -> Path:
    """The store of one arm."""
    folders = run(
        plan, progress=lambda stage, done, total: print(f"{plan.folder.name} {stage} {done}/{total}", flush=True)
    )
    store = Store(plan.folder / "store", create=True)
    for pole, folder in folders.items():
        store.add(folder, dimension=POLES[pole].dimension, pole=pole, base=plan.base, force=True)
    return store.folder


def figures(out: Path, store: Path, prompts: int, jobs: int) -> Iterator[dict[str, object]]:
    """Of every dimension what is kept in pairs and corners at .7, in all and in the worst; and the worst damage."""
    options = ["--store", store, "--first", prompts, "--strength", "0.7", "--jobs", jobs, "--no-page", "--no-judge"]
    options += ["--temperature", "0.7", "--temperature", "0"]
    subprocess.run([*SOUPMIX, "evaluate", out, *map(str, options)], check=True)
    decided = json.loads((out / "report.json").read_bytes())["decides"]
    for temperature, methods in sorted(decided.items(), key=lambda item: -float(item[0])):
        found = methods["delta"]["0.7"]
        for dimension, each in found["dimensions"].items():
            worst = each["worst"] and {"soup": each["worst"]["soup"], **each["worst"]["share"]}
            yield {"temperature": temperature, "figure": f"{dimension} kept", "value": each["kept"]}
            yield {"temperature": temperature, "figure": f"{dimension} kept in the worst", "value": worst}
        for measure, each in found["damage"].items():
            value = {"soup": each["soup"], **each["effect"]}
            yield {"temperature": temperature, "figure": f"{measure} against the base, worst", "value": value}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a figure, one column an arm and seed."""
    columns = list(dict.fromkeys(f"{row['arm']} {row['seed']}" for row in rows))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        cells.setdefault((row["temperature"], row["figure"]), {})[f"{row['arm']} {row['seed']}"] = told(row["value"])
    lines = ["| temperature | figure | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for key, found in cells.items():
        lines.append(f"| {' | '.join(key)} | " + " | ".join(found.get(each, "") for each in columns) + " |")
    return "\n".join(lines)


def told(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "not told"
    return (
        f"{value['value']:.2f} [{value['low']:.2f}, {value['high']:.2f}] {value.get('soup', '').split('@')[0]}".strip()
    )


if __name__ == "__main__":
    main()
