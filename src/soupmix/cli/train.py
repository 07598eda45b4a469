"""`soupmix train`: one adapter per pole, from prompts to folders that `soupmix adapters add` accepts."""

from pathlib import Path

import click

from soupmix.cli.options import PATH, base_option, chat_template_option, open_base

__all__ = ["command"]


@click.command("train")
@click.argument("out", type=PATH)
@click.option("--pole", "poles", multiple=True, help="Train this pole only; repeatable.  [default: all six]")
@base_option()
@chat_template_option
@click.option("--method", type=click.Choice(["sft", "dpo"]), default="sft", show_default=True, help="Training method.")
@click.option("--prompts", type=PATH, help="JSONL of prompts.  [default: the shipped set]")
@click.option("--pairs", default=128, show_default=True, type=click.IntRange(4), help="Most examples per pole.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 1_000_000), help="Seed of data and order.")
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1, 64), help="Worker processes.")
@click.option("--measure/--no-measure", default=True, help="Measure the adapters on held-out prompts and write cards.")
def command(
    out: Path,
    poles: tuple[str, ...],
    base: str,
    chat_template: Path | None,
    method: str,
    prompts: Path | None,
    pairs: int,
    seed: int,
    jobs: int,
    measure: bool,
) -> None:
    """Train one adapter per pole into OUT; a stopped run goes on where it was."""
    from soupmix.cli.progress import stages
    from soupmix.evaluate import read_prompts, training_prompts
    from soupmix.train import POLES, TrainingPlan, TrainingRecipe, run, write_effects

    asked = tuple(read_prompts(prompts)) if prompts else tuple(training_prompts())
    learning_rate = 7e-4 if method == "sft" else 1.5e-4
    recipe = TrainingRecipe(method=method, learning_rate=learning_rate, seed=seed)
    plan = TrainingPlan(
        open_base(base, chat_template), poles or tuple(POLES), asked, out, recipe, pairs=pairs, jobs=jobs
    )
    with stages() as progress:
        folders = run(plan, progress=progress)
        if measure:
            write_effects(plan, progress=progress)
    for folder in folders.values():
        click.echo(str(folder))
