"""`soupmix train`: one adapter per pole, from prompts to folders that `soupmix adapters add` accepts."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soupmix.cli.extras import need
from soupmix.cli.options import DEFAULT_BASE, PATH, base_option, chat_template_option, open_base
from soupmix.modes import FULL, MODES, Mode

if TYPE_CHECKING:
    from soupmix.train import GivenPairs, Pole

__all__ = ["command"]

_MODE = "In mixtures, whether the prompt is read with the soup too, or the answer alone."
_MORE = "In mixtures, have this pole twice as often as others of its dimension; repeatable."
_SKIP = "In mixtures, first tokens that are not learned of concise and elementary answers without a tone."
_RATE = "In mixtures, the highest learning rate.  [default: 0.0007]"
_RATES = {"sft": 7e-4, "dpo": 1.5e-4}
_ENOUGH = 128  # examples that are seen where a file has fewer


@click.command("train")
@click.argument("out", type=PATH)
@click.option("--pole", "poles", multiple=True, help="Train this pole only; repeatable.  [default: all six]")
@click.option(
    "--pairs", metavar="FILE", type=PATH, help="JSONL of preference data that the one --pole is learned from."
)
@click.option("--dimension", help="What the pole of --pairs is an end of.")
@click.option(
    "--poles", "described", metavar="FILE", type=PATH, help="YAML of poles: system prompts, and a metric or judge."
)
@click.option("--run-judges", is_flag=True, help="Import and call the functions that --poles names as judges.")
@base_option(unsaid=DEFAULT_BASE)
@chat_template_option
@click.option("--method", type=click.Choice(["sft", "dpo"]), default="sft", show_default=True, help="Training method.")
@click.option("--prompts", type=PATH, help="JSONL of prompts.  [default: the shipped set]")
@click.option("--most", type=click.IntRange(4), help="Most examples per pole.  [default: 128, of --pairs all]")
@click.option("--epochs", type=click.IntRange(1, 100), help="Passes over them.  [default: 1, over few more]")
@click.option(
    "--together", is_flag=True, help="Then train all of them in mixtures, each active as in the soups to come."
)
@click.option("--with", "beside", metavar="DIR", type=PATH, help="Store whose adapters are in the mixtures too.")
@click.option(
    "--freeze-others", is_flag=True, help="In mixtures train one at a time; the others are active and frozen."
)
@click.option("--mode", type=click.Choice(MODES), default=FULL, show_default=True, help=_MODE)
@click.option(
    "--mixtures", default=1024, show_default=True, type=click.IntRange(8), help="How many mixtures to learn from."
)
@click.option("--rate", type=click.FloatRange(0, 1, min_open=True), help=_RATE)
@click.option("--more", metavar="POLE", multiple=True, help=_MORE)
@click.option(
    "--interpolate",
    metavar="SHARE",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="In mixtures, how far to go from where adapters were to where training leads.",
)
@click.option("--skip", default=0, show_default=True, type=click.IntRange(0, 64), help=_SKIP)
@click.option(
    "--threads", default=1, show_default=True, type=click.IntRange(1, 64), help="Threads a worker for mixtures."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 1_000_000), help="Seed of data and order.")
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1, 64), help="Worker processes.")
@click.option("--measure/--no-measure", default=True, help="Measure the adapters on held-out prompts and write cards.")
def command(
    out: Path,
    poles: tuple[str, ...],
    pairs: Path | None,
    dimension: str | None,
    described: Path | None,
    run_judges: bool,
    base: str | None,
    chat_template: Path | None,
    method: str,
    prompts: Path | None,
    most: int | None,
    epochs: int | None,
    together: bool,
    beside: Path | None,
    freeze_others: bool,
    mode: Mode,
    mixtures: int,
    rate: float | None,
    more: tuple[str, ...],
    skip: int,
    interpolate: float,
    threads: int,
    seed: int,
    jobs: int,
    measure: bool,
) -> None:
    """Train one adapter per pole into OUT; a stopped run goes on where it was.

    Without --pairs the shipped poles are trained from answers of the base itself. With it, one pole is learned from examples:
    {"prompt", "chosen", "rejected"} or {"prompt", "completion"} a line, texts or messages. With --together or --with, adapters
    are then trained in the soups that they will be in.
    """
    need("train", "training")
    from soupmix.cli.progress import stages
    from soupmix.evaluate import read_prompts, training_prompts
    from soupmix.train import POLES, SoupRecipe, TrainingPlan, TrainingRecipe, run, write_effects

    if described is not None and (pairs is not None or dimension is not None):
        raise click.UsageError("--poles FILE says all of its poles: leave out --pairs and --dimension")
    known, given = _poles(poles, dimension, pairs) if described is None else (_described(described, run_judges), {})
    is_mixed = together or beside is not None
    mixing = {"--freeze-others": freeze_others, "--mode": mode != FULL, "--more": more, "--skip": skip, "--rate": rate}
    mixing |= {"--interpolate": interpolate != 1}
    _check_mixing(mixing, is_mixed)
    how: dict[str, Any] = {"skip": skip, "more": more, "seed": seed, "threads": threads}
    soup = SoupRecipe("frozen" if freeze_others else "together", mode, mixtures, **how)
    soup = soup if rate is None else replace(soup, learning_rate=rate)
    few = min((len(each.examples) for each in given.values()), default=_ENOUGH)
    plan = TrainingPlan(
        open_base(base, chat_template),
        poles or tuple(name for name in known if described is None or name not in POLES),
        tuple(read_prompts(prompts)) if prompts else tuple(training_prompts()),
        out,
        TrainingRecipe(
            method, learning_rate=_RATES[method], epochs=float(epochs or max(1, -(-_ENOUGH // few))), seed=seed
        ),
        pairs=most if most or given else _ENOUGH,
        jobs=jobs,
        known=known,
        given=given,
        soup=soup if is_mixed else None,
        beside=beside,
        interpolation=interpolate,
    )
    for name in plan.unmixed:
        click.echo(f"soupmix: note: {name} of {beside} is in no mixture, as nothing here says what it means", err=True)
    with stages() as progress:
        folders = run(plan, progress=progress)
        if measure:
            write_effects(plan, progress=progress)
    for folder in folders.values():
        click.echo(str(folder))


def _check_mixing(given: Mapping[str, object], is_mixed: bool) -> None:
    """Options of mixtures are of no use without any."""
    for option, value in given.items():
        if value and not is_mixed:
            raise click.UsageError(f"{option} goes with --together or --with DIR")


def _poles(
    poles: tuple[str, ...], dimension: str | None, pairs: Path | None
) -> "tuple[Mapping[str, Pole], Mapping[str, GivenPairs]]":
    """The poles that are known, and what was given for one of them."""
    from soupmix.train import POLES, Pole, read_pairs

    if pairs is None:
        if dimension is not None:
            raise click.UsageError("--dimension goes with --pairs FILE and one --pole")
        return POLES, {}
    if len(poles) != 1 or dimension is None:
        raise click.UsageError("--pairs FILE goes with one --pole NAME and --dimension NAME")
    return {poles[0]: Pole(poles[0], dimension)}, {poles[0]: read_pairs(pairs)}


def _described(path: Path, run_judges: bool) -> "Mapping[str, Pole]":
    """The shipped poles and those of a file; functions that it names are code, which is run only if that was asked for."""
    from soupmix.train import POLES, read_poles

    found = read_poles(path)
    for pole in found.values():
        if ":" in pole.judge and not run_judges:
            raise click.UsageError(
                f"pole {pole.name} is judged by code, {pole.judge}: pass --run-judges if you trust it"
            )
    return {**POLES, **found}
