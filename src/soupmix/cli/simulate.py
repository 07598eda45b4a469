"""`soupmix simulate`: people with hidden wants talk with soups that learn them, and with what soups are compared with."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soupmix.cli.asking import Asking, asking_options
from soupmix.cli.extras import need
from soupmix.cli.options import PATH, base_option, dtype_option, json_option, open_base, open_store, print_json
from soupmix.cli.progress import stages
from soupmix.cli.wanting import measuring_of, reach_of, sources_of
from soupmix.errors import EvaluationError
from soupmix.files import canonical_json, write_file

if TYPE_CHECKING:
    from soupmix.engine import Engine
    from soupmix.evaluate.samples import ArmSample
    from soupmix.evaluate.statistics import Estimate
    from soupmix.policy import Grant, Policy
    from soupmix.preference import Measuring
    from soupmix.preference.reach import Reach
    from soupmix.simulate import ArmName, Conversations, Curves, SimulatedAnswers, SimulationPlan, SoupAccuracy
    from soupmix.store import Store
    from soupmix.weights import Weights

__all__ = ["command"]

_ANSWERS, _RESULT, _PLOT, _PERSON = "answers.jsonl", "simulation.json", "curves.svg", "person.svg"
_Advance = Callable[[str, int, int], None]


@click.command("simulate")
@click.argument("out", type=PATH)
@asking_options()
@base_option()
@dtype_option
@click.option("--people", default=40, show_default=True, type=click.IntRange(2, 10_000), help="How many people.")
@click.option("--turns", default=10, show_default=True, type=click.IntRange(2, 20), help="Of a conversation.")
@click.option("--prompts", default=10, show_default=True, type=click.IntRange(2, 30), help="Different prompts in it.")
@click.option("--exam", default=4, show_default=True, type=click.IntRange(0, 20), help="Prompts asked after it.")
@click.option(
    "--sharpness", default=4.0, show_default=True, type=click.FloatRange(0, 100), help="How strictly they choose."
)
@click.option("--flips", default=0.05, show_default=True, type=click.FloatRange(0, 0.5), help="Share of wrong answers.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31))
@click.option("--length", default=128, show_default=True, type=click.IntRange(1), help="Most tokens of an answer.")
@click.option(
    "--rows", default=48, show_default=True, type=click.IntRange(1, 4096), help="SimulatedAnswers made at once."
)
@click.option(
    "--samples",
    metavar="DIR",
    type=PATH,
    help="Answer with what `soupmix evaluate` kept there; its soups and prompts only.",
)
@click.option("--few-shot/--no-few-shot", default=True, help="With --samples: make the answers behind examples.")
@click.option(
    "--accuracy",
    default=0,
    show_default=True,
    type=click.IntRange(0, 100),
    help="Also measure policy accuracy, by so many pairs of texts of the exam a person; needs the model.",
)
@click.option("--expected", is_flag=True, help="Without the model: answers are as the map of the store expects them.")
@json_option
def command(
    out: Path, asking: Asking, expected: bool, as_json: bool, samples: Path | None, few_shot: bool, **options: Any
) -> None:
    """Simulate people, and write into OUT how good answers get turn by turn, for every arm.

    OUT gets simulation.json with AL(k), slopes and intervals, curves.svg, person.svg (the first of them), and the answers that
    were made, answers.jsonl: the same command goes on where it was stopped.
    """
    need("plot", "drawing curves")
    from soupmix.simulate import ExpectedAnswers, RecordedAnswers, accuracy, simulate

    _check(out)
    reach, policy = reach_of(asking)
    if samples and expected:
        raise click.UsageError("--samples and --expected exclude each other")
    if options["accuracy"] and (expected or not options["exam"]):
        raise click.UsageError("--accuracy is of texts of the exam; leave out --expected, and give --exam 1 or more")
    kept = () if samples is None else _kept(samples, reach)
    engine = cache(lambda: _engine(asking, options))
    measure = measuring_of(asking, policy, reach.traits, engine)
    plan = _plan(reach, measure, open_store(asking.store), options, kept)
    with stages() as advance:
        answers: SimulatedAnswers
        if expected:
            answers = ExpectedAnswers(plan.reach, plan.seed)
        elif samples is None:
            answers = _generated(out, asking, policy, plan, engine, options, advance)
        else:
            made = _generated(out, asking, policy, plan, engine, options, advance) if few_shot else None
            answers = RecordedAnswers(kept, plan.measure, made)
            plan = replace(plan, soups=answers.soups)
        found = simulate(plan, answers, advance=advance)
        likelier: Mapping[ArmName, SoupAccuracy] = {}
        if options["accuracy"]:
            allow = _allowing(asking, policy)
            likelier = accuracy(plan, found, engine(), allow, pairs=options["accuracy"], advance=advance)
    _written(out, reach, found, {**options, "expected": expected}, likelier, as_json)


def _written(
    out: Path,
    reach: "Reach",
    found: "Conversations",
    options: Mapping[str, Any],
    likelier: "Mapping[ArmName, SoupAccuracy]",
    as_json: bool,
) -> None:
    """Write what came of it, and say it."""
    from soupmix.simulate import curves

    result = curves(found)
    said = {
        "settings": {name: value for name, value in options.items() if name not in ("base", "rows")},
        "traits": [each.key for each in reach.traits.axes],
        "surface": reach.surface.document.digest,
        **result.to_dict(),
    }
    if likelier:
        said["policy_accuracy"] = {arm: asdict(each) for arm, each in likelier.items()}
    write_file(out / _RESULT, canonical_json(said))
    with suppress(EvaluationError):  # no matplotlib
        from soupmix.simulate.plots import curves_svg, posterior_svg

        write_file(out / _PLOT, curves_svg(result).encode())
        if found.first is not None:
            write_file(out / _PERSON, posterior_svg(found.first).encode())
    print_json(said) if as_json else _print(result, likelier)


def _check(out: Path) -> None:
    """Nothing else is in the folder. Raises `EvaluationError` (reason "not-a-simulation")."""
    known = {_ANSWERS, _RESULT, _PLOT, _PERSON}
    if out.exists() and (not out.is_dir() or any(each.name not in known for each in out.iterdir())):
        raise EvaluationError(
            f"{out} holds something else than a simulation; choose another folder", reason="not-a-simulation"
        )
    out.mkdir(parents=True, exist_ok=True)


def _kept(folder: Path, reach: "Reach") -> "tuple[ArmSample, ...]":
    """Samples of an evaluation of these adapters. Raises `EvaluationError` if it is none, or of others ("other-adapters")."""
    from soupmix.evaluate.record import held_record
    from soupmix.evaluate.samples import read_samples

    record = held_record(folder)
    if record is None or not {each.digest for each in record.adapters.values()} <= set(reach.surface.document.adapters):
        raise EvaluationError(
            f"{folder} is no evaluation of the adapters of this store; run `soupmix evaluate` on them",
            reason="other-adapters",
        )
    return read_samples(folder, record)


def _plan(
    reach: "Reach", measure: "Measuring", store: "Store", options: Mapping[str, Any], kept: "Sequence[ArmSample]"
) -> "SimulationPlan":
    from soupmix.evaluate import held_out_prompts
    from soupmix.simulate import SimulationPlan, people

    asked = {each.prompt for each in kept}
    prompts = [each for each in held_out_prompts() if each.text in asked or not kept]
    turns, count = options["turns"], options["prompts"]
    first, then = (0, count) if kept else (10, 40)
    who = people(reach, options["people"], seed=options["seed"], sharpness=options["sharpness"], flips=options["flips"])
    return SimulationPlan(
        reach,
        measure,
        tuple(who),
        tuple(prompts[first : first + count]),
        _preferences(reach, store),
        tuple(prompts[then : then + options["exam"]]),
        turns,
        options["seed"],
    )


def _preferences(reach: "Reach", store: "Store") -> dict[tuple[str, int], tuple[str, str]]:
    """What asks for more (1) or less (-1) of a trait: the preference prompt of the pole whose adapter does that the most."""
    from soupmix.evaluate.preferences import shipped_preferences
    from soupmix.weights import Weights

    said = shipped_preferences()
    found: dict[tuple[str, int], tuple[str, str]] = {}
    for axis, trait in enumerate(reach.traits.axes):
        own = [each for each in store if reach.surface.dimensions.get(each.name) == trait.name]
        effects = {
            each.pole: float(point[axis])
            for each, point in zip(own, reach.expected([Weights({each.name: 1}) for each in own]), strict=True)
        }
        for sign in (1, -1):
            pole = max(effects, key=lambda each: sign * effects[each])
            found[trait.name, sign] = pole, said.get(pole, "")
    return found


def _engine(asking: Asking, options: Mapping[str, Any]) -> "Engine":
    from soupmix.engine import Engine

    store = open_store(asking.store)
    return Engine.load(open_base(options["base"], None, store), store, dtype=options["dtype"], compiled=True)


def _allowing(asking: Asking, policy: "Policy") -> "Callable[[Weights], Grant]":
    sources = sources_of(asking, open_store(asking.store))
    return lambda weights: policy._grant(weights, asking.attributes, sources)


def _generated(
    out: Path,
    asking: Asking,
    policy: "Policy",
    plan: "SimulationPlan",
    engine: "Callable[[], Engine]",
    options: Mapping[str, Any],
    advance: _Advance,
) -> "SimulatedAnswers":
    from soupmix.simulate import GeneratedAnswers

    return GeneratedAnswers(
        engine(),
        _allowing(asking, policy),
        plan.measure,
        out / _ANSWERS,
        length=options["length"],
        seed=options["seed"],
        rows=options["rows"],
        advance=lambda kept: advance("answers", kept, kept),
    )


def _print(made: "Curves", likelier: "Mapping[ArmName, SoupAccuracy]") -> None:
    rows = [("", "AL(1)", f"AL({len(made.arms['base'].turns)})", "slope", "exam", "of oracle", "N-IR", "N-R2")]
    for name, each in made.arms.items():
        exam = "" if each.exam is None else f"{each.exam.value:.2f} ({each.exam.low:.2f} to {each.exam.high:.2f})"
        slope = f"{each.slope.value:+.3f} ({each.slope.low:+.3f} to {each.slope.high:+.3f})"
        ends = (f"{each.turns[0].value:.2f}", f"{each.turns[-1].value:.2f}")
        rows.append((name, *ends, slope, exam, f"{each.of_oracle.value:.2f}", f"{each.n_ir:.2f}", f"{each.n_r2:.2f}"))
    for arm, sure in likelier.items():
        gained = "" if sure.gained is None else f", adds more to it in {_told(sure.gained)}"
        click.echo(f"{arm} finds the preferred text likelier in {_told(sure.likelier)} of pairs{gained}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _told(sure: "Estimate") -> str:
    return f"{sure.value:.2f} ({sure.low:.2f} to {sure.high:.2f})"
