"""What training in mixtures owes to the mixture, and what to its data: the ways side by side, each evaluated alike.

    python benchmarks/ablation.py out/ablation --seeds 0,1 --mixtures 384 --prompts 24

Arms: `before`, the store as it is; `together`, all adapters in active mixtures; `apart`, the same examples without the mixture;
`frozen`, one adapter at a time beside the others; `skip`, together without the first tokens of concise and elementary answers;
`answer`, together with the prompt on the bare base. All begin with the adapters of one store and share their samples. Every arm
goes on where it was stopped; measures that chose no training data say what came of it. The figures are in OUT/figures.jsonl.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

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
}
SOUPMIX = (sys.executable, "-c", "from soupmix.cli import main; main()")


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--arms", default="before,together,apart,frozen", show_default=True)
@click.option("--seeds", default="0", show_default=True)
@click.option("--mixtures", default=384, show_default=True)
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
    rows: list[dict[str, object]] = []
    for arm in arms.split(","):
        for seed in map(int, seeds.split(",") if arm != "before" else ["0"]):
            folder = out / f"{arm}-{seed}"
            store = begin
            if arm != "before":
                recipe = replace(RECIPES[arm], seed=seed, examples=mixtures, threads=threads)
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
    """What is left of each dimension in pairs and corners at .7, a measure, in the median over soups."""
    options = ["--store", store, "--first", prompts, "--strength", "0.7", "--jobs", jobs, "--no-page", "--no-judge"]
    subprocess.run([*SOUPMIX, "evaluate", out, *map(str, options)], check=True)
    kept = json.loads((out / "report.json").read_bytes())["composition"]["kept"]
    groups: dict[tuple[int, str, str], list[dict[str, dict[str, float]]]] = {}
    for each in kept:
        groups.setdefault((each["soup"].count("+") + 1, each["dimension"], each["measure"]), []).append(each)
    for (size, dimension, measure), found in sorted(groups.items()):
        yield {
            "poles": size,
            "dimension": dimension,
            "measure": measure,
            "soups": len(found),
            "effect": middle(found, "effect"),
            "share": middle(found, "share"),
        }


def middle(found: list[dict[str, dict[str, float]]], key: str) -> float | None:
    values = [each[key]["value"] for each in found if each[key]]
    return round(median(values), 3) if values else None


def table(rows: list[dict[str, object]]) -> str:
    """One line a measure and number of poles, one column an arm and seed: the share that is left."""
    columns = list(dict.fromkeys(f"{row['arm']} {row['seed']}" for row in rows))
    cells: dict[tuple[object, ...], dict[str, object]] = {}
    for row in rows:
        key = row["poles"], row["dimension"], row["measure"]
        cells.setdefault(key, {})[f"{row['arm']} {row['seed']}"] = row["share"]
    lines = ["| poles | dimension | measure | " + " | ".join(columns) + " |", "|---|---|---|" + "---|" * len(columns)]
    for key, found in cells.items():
        lines.append(f"| {' | '.join(map(str, key))} | " + " | ".join(str(found.get(c, "")) for c in columns) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
