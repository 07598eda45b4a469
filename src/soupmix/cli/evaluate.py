"""`soupmix evaluate`: what soups do to answers, sampled, measured and reported; a stopped run goes on where it was."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soupmix.cli.arms import arms_of, arms_options, feasible
from soupmix.cli.documents import load_policy
from soupmix.cli.options import (
    PATH,
    attribute_option,
    base_option,
    chat_template_option,
    dtype_option,
    find_store,
    maintain_option,
    open_base,
    open_store,
    parse_attributes,
    parse_sources,
    policy_option,
    source_option,
    store_option,
    trust_option,
)
from soupmix.cli.stopping import exit_code
from soupmix.errors import EvaluationError

if TYPE_CHECKING:
    from soupmix.evaluate.judging import Judging
    from soupmix.evaluate.measuring import MeasuredSamples
    from soupmix.evaluate.record import EvaluationRecord
    from soupmix.evaluate.safety import SafetyPlan
    from soupmix.evaluate.samples import ArmSample, SampleFile
    from soupmix.evaluate.sampling import Evaluation
    from soupmix.surface import SurfaceDocument

__all__ = ["command"]


@click.command("evaluate")
@click.argument("out", type=PATH)
@base_option("Base model that the adapters were trained on.")
@chat_template_option
@store_option
@click.option(
    "--prompts", metavar="FILE", type=PATH, help="JSONL of prompts.  [default: the shipped ones, none trained on]"
)
@click.option("--first", metavar="N", type=click.IntRange(1), help="Only the first N prompts.  [default: all]")
@arms_options
@click.option(
    "--temperature",
    "temperatures",
    multiple=True,
    type=click.FloatRange(0, 10),
    default=(0.0, 0.7),
    help="0 is greedy; repeatable.  [default: 0, 0.7]",
)
@click.option("--length", default=160, show_default=True, type=click.IntRange(1), help="Most tokens of an answer.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**61), help="Seed of all random numbers.")
@dtype_option
@click.option("--rows", default=64, show_default=True, type=click.IntRange(1, 4096), help="Answers made at once.")
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1, 64), help="Worker processes.")
@click.option(
    "--trained", metavar="PATH", type=PATH, help="Texts trained on, for ceilings: JSONL, or OUT of `soupmix train`."
)
@click.option("--judge/--no-judge", default=True, help="Also measure by what the base says of answers; it takes long.")
@click.option(
    "--judge-first",
    metavar="N",
    type=click.IntRange(1),
    help="Judge answers to the first N prompts only, and so for --fidelity.  [default: all]",
)
@click.option(
    "--fidelity", is_flag=True, help="Also tell how far soups are from mixing their adapters (MOD); it takes long."
)
@click.option("--page/--no-page", default=True, help="Also write report.html, with plots.")
@click.option(
    "--safety", is_flag=True, help="Also audit the safety of all that --policy lets through; --people random points."
)
@click.option(
    "--pressed", default=8, type=click.IntRange(0, 8), help="For --safety: questions under pressure.  [default: 8]"
)
@click.option(
    "--turn",
    "turns",
    multiple=True,
    type=click.IntRange(1, 20),
    default=(1, 5, 20),
    help="For --safety: in which turns of a conversation; repeatable.  [default: 1, 5, 20]",
)
@click.option("--surface", is_flag=True, help="Also put surface.json, which `soupmix ask` needs, into the store.")
@maintain_option
@click.option("--report-only", is_flag=True, help="Let nobody answer; measure and report what OUT holds.")
@policy_option
@trust_option
@attribute_option
@source_option
def command(
    out: Path,
    base: str | None,
    chat_template: Path | None,
    store: Path | None,
    prompts: Path | None,
    first: int | None,
    rows: int,
    jobs: int,
    report_only: bool,
    **options: Any,
) -> None:
    """Measure what soups do: let them, and what they are compared with, answer prompts, and report in OUT.

    OUT gets samples.jsonl with every answer, report.json with figures, intervals and a digest, which
    `soupmix approve --evidence` takes, and report.html for people. The same command goes on where it was stopped, and one
    with more soups, prompts or temperatures adds to OUT.
    """
    from soupmix.evaluate.trained import read_trained

    store = find_store(store, base)
    options |= {"base": base, "chat_template": chat_template, "store": store}
    options["trained"] = read_trained(options["trained"]) if options["trained"] else None
    options["policy"] = cache(lambda: load_policy(options["policies"], open_store(store), options["trust"]))
    if _stated(options):
        options["policy"]()  # a wrong file is refused now, not after hours of sampling
    if options["surface"]:
        open_store(store, maintain=options["maintain"]).check_writable()
    if report_only:
        _reported(out, jobs, options)
        return
    from soupmix.evaluate import held_out_prompts, read_prompts
    from soupmix.evaluate.measuring import check_libraries
    from soupmix.evaluate.preferences import read_preferences, shipped_preferences
    from soupmix.evaluate.sampling import Evaluation

    held = open_store(store)
    asked = tuple(read_prompts(prompts) if prompts else held_out_prompts())[:first]
    given = options["preferences"]
    preferences = read_preferences(given) if given else shipped_preferences()
    arms = arms_of(held, preferences, options)
    check_libraries(page=options["page"])
    evaluation = Evaluation(
        open_base(base, chat_template, held),
        held.folder,
        arms,
        asked,
        preferences,
        tuple(dict.fromkeys(options["temperatures"])),
        options["length"],
        options["seed"],
        options["dtype"],
    )
    plan = _plan(first, options) if options["safety"] else None
    _sampled(evaluation, out, rows, jobs)
    if plan is not None:
        _audited(evaluation, plan, out, rows, jobs)
    _reported(out, jobs, options)


def _plan(first: int | None, options: Mapping[str, Any]) -> "SafetyPlan":
    """What the audit does, its points found already: a policy that has too many is refused before hours of sampling."""
    from soupmix.evaluate.safety import SafetyPlan, points

    turns, people = tuple(dict.fromkeys(options["turns"])), options["count"]
    attributes, sources = parse_attributes(options["attributes"]), parse_sources(options["sources"])
    plan = SafetyPlan(
        feasible(options),
        people,
        first,
        pressed=options["pressed"],
        turns=turns,
        attributes=attributes,
        sources=sources,
    )
    points(plan, options["seed"])
    return plan


def _audited(evaluation: "Evaluation", plan: "SafetyPlan", out: Path, rows: int, jobs: int) -> None:
    """Carry out what is left of the safety audit, and keep its section."""
    from soupmix.cli.progress import stages
    from soupmix.evaluate.safety import audit_in
    from soupmix.evaluate.sampling import Advance

    with stages() as progress:

        def stage(name: str, total: int) -> Advance:
            return lambda done, tokens: progress(name, done, total)

        audit_in(out, evaluation, plan, rows=rows, jobs=jobs, stage=stage)


def _sampled(evaluation: "Evaluation", out: Path, rows: int, jobs: int) -> None:
    """Sample what OUT does not hold yet."""
    from soupmix.cli.progress import paced
    from soupmix.evaluate.record import write_record
    from soupmix.evaluate.room import check_room
    from soupmix.evaluate.samples import Keys, open_samples
    from soupmix.evaluate.sampling import as_begun, sample
    from soupmix.files import writing

    evaluation, record = as_begun(evaluation, out)
    check_room(record)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with open_samples(out, record) as file:
        write_record(out, record)
        total = len(record.arms) * len(record.prompts) * len(record.temperatures)
        _tell_resumed(file, total)
        with _interrupted(file, total), paced("answers", total, len(file.samples)) as advance:
            sample(evaluation, Keys(record), file, rows=rows, jobs=jobs, advance=advance)
        file.sort()


def _reported(out: Path, jobs: int, options: Mapping[str, Any]) -> None:
    """Measure what OUT holds, and write the report; fit a map, and put it into the store."""
    from soupmix.cli.progress import stages
    from soupmix.evaluate.fidelity import fidelity
    from soupmix.evaluate.judging import judged
    from soupmix.evaluate.measuring import NotMeasured, measure_samples
    from soupmix.evaluate.page import PAGE, write_page
    from soupmix.evaluate.record import held_record
    from soupmix.evaluate.report import REPORT, report, write_report
    from soupmix.evaluate.safety import held_section
    from soupmix.evaluate.samples import read_samples
    from soupmix.evaluate.surface import surface_of
    from soupmix.evaluate.trained import trained_effects

    texts = trained_effects(*options["trained"]) if options["trained"] else None
    record = held_record(out)
    samples = () if record is None else read_samples(out, record)
    if record is None or not samples:
        raise EvaluationError(f"{out} holds no answers yet; run `soupmix evaluate {out}` first", reason="no-answers")
    judging = _judging(record, out, options) if options["judge"] or options["fidelity"] else None
    more: dict[str, Any] = {}
    with stages() as progress:
        measured = measure_samples(record, samples, jobs=jobs, progress=progress)
        given: Mapping[str, Any] = {"first": options["judge_first"], "jobs": jobs, "progress": progress}
        with _kept_so_far(out):
            if judging is not None and options["judge"]:
                measured = judged(judging, measured, samples, out, **given)
            if judging is not None and options["fidelity"]:
                more = fidelity(judging, samples, out, **given)
    safety = held_section(out, record)
    if safety is not None and (why := _of_others(safety, options)):
        safety, measured = None, replace(measured, left_out=(*measured.left_out, NotMeasured("safety", why)))
    found = report(record, samples, measured, safety, texts, more)
    write_report(out, found)
    click.echo(f"{out / REPORT}\n{found['digest']}")
    if options["page"]:
        write_page(out, found)
        click.echo(out / PAGE)
    if options["surface"]:
        measured = _rewarded(judging or _judging(record, out, options), measured, samples, out, jobs)
        _mapped(surface_of(record, measured, found["digest"]), options)


def _rewarded(
    judging: "Judging", measured: "MeasuredSamples", samples: "Sequence[ArmSample]", out: Path, jobs: int
) -> "MeasuredSamples":
    """With what adapters say of answers, of dimensions that no measure of a map tells."""
    from soupmix.cli.progress import stages
    from soupmix.evaluate.rewarding import rewarded

    with stages() as progress, _kept_so_far(out):
        return rewarded(judging, measured, samples, out, jobs=jobs, progress=progress)


def _of_others(safety: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Why an audit that was made before is not one of what this command says of policy and requests; "" if it is.

    A command that says nothing of them reports what there is.
    """
    from soupmix.evaluate.safety import audited_for

    attributes, sources = parse_attributes(options["attributes"]), parse_sources(options["sources"])
    return audited_for(safety, options["policy"]().digest, attributes, sources) if _stated(options) else ""


def _stated(options: Mapping[str, Any]) -> bool:
    return any(options[each] for each in ("policies", "trust", "attributes", "sources"))


def _mapped(document: "SurfaceDocument", options: Mapping[str, Any]) -> None:
    """Put a map into the store whose adapters it is of, and say how good it is."""
    from soupmix.surface import SURFACE, Surface, write_surface

    store = open_store(options["store"], maintain=options["maintain"])
    Surface.of(document, store)
    store.check_writable()
    write_surface(store.folder, document)
    click.echo(store.folder / SURFACE)
    for name, each in document.measures.items():
        held_out = "" if each.held_out_r2 is None else f", {each.held_out_r2:.2f} of combinations left out"
        click.echo(f"{name}: {each.form}, R2 {each.r2 or 0:.2f}{held_out}")


def _judging(record: "EvaluationRecord", out: Path, options: Mapping[str, Any]) -> "Judging":
    """The base that answered, to judge answers."""
    from soupmix.evaluate.judging import Judging

    store = open_store(options["store"])
    base = open_base(options["base"], options["chat_template"], store)
    judging = Judging(base, store.folder, record)
    judging.check(out)
    return judging


@contextmanager
def _kept_so_far(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        click.echo(f"soupmix: interrupted; {out} keeps what was measured, and the same command goes on", err=True)
        sys.exit(exit_code(stop))


def _tell_resumed(file: "SampleFile", total: int) -> None:
    if file.cut:
        click.echo(f"soupmix: note: {file.cut} bytes of a torn last line were cut off {file.path}", err=True)
    if file.samples:
        click.echo(f"soupmix: going on behind {len(file.samples)} of {total} answers in {file.path}", err=True)


@contextmanager
def _interrupted(file: "SampleFile", total: int) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        click.echo(
            f"soupmix: interrupted; {file.path} keeps {len(file.samples)} of {total} answers, and the same command goes on "
            "behind them",
            err=True,
        )
        sys.exit(exit_code(stop))
