"""What weights do, from a report of `soupmix evaluate`.

    python benchmarks/results.py OUT [--before OLD]    OUT and OLD hold a report.json
    python benchmarks/results.py OUT --composition
    python benchmarks/results.py OUT --fidelity

Writes docs/results.md, which is to be read, docs/results_all.md with every arm, and docs/results.png; prints the table of the
README. `--composition` writes docs/composition.md and its picture instead: what is kept in soups and nothing else, of a run with
fewer arms and more prompts. `--fidelity` writes docs/fidelity.md instead: how far soups are from the mix of their models, and what
the base says of their answers, of a run with `--fidelity` and a judge. With OLD, such as the evaluation of the adapters before a
training, docs/results.md also says what was before and what is now.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from weights_do.arms import alone_table, faithful, groups_table, measure_of, reached_table, steps_of
from weights_do.asked import asked
from weights_do.beside import beside
from weights_do.composed import (
    across_table,
    decided,
    effect_table,
    first_words,
    kept_table,
    lost,
    nearest,
    temperatures,
    untold,
)
from weights_do.judged import judged
from weights_do.picture import draw
from weights_do.text import UNITS, Report, bare, folded, luck, table, told, weight, wrapped

from soupmix.evaluate.report import REPORT, read_report

ROOT = Path(__file__).parents[1]
PAGE, ALL, PICTURE = (ROOT / "docs" / name for name in ("results.md", "results_all.md", "results.png"))
COMPOSITION, KEPT_PICTURE = (ROOT / "docs" / name for name in ("composition.md", "composition.png"))
FIDELITY = ROOT / "docs" / "fidelity.md"
SHOWN = ("grade", "words", "lexicon", "warm_at_all", "cold_at_all", "on_topic", "loop", "finished", "parroting")


def page(report: Report, before: Report | None = None) -> str:
    parts = [
        f"{partial(report)}# What weights do",
        first_words(report),
        *asked(report),
        _made_of(report),
        *_kept(report),
    ]
    parts += [] if before is None else ["## Before and now", *beside(before, report)]
    parts += [*_lost(report), *_alone(report)]
    parts += [*_by_every_means(report), *_furthest(report)]
    return "\n\n".join(map(wrapped, [*parts, *_limits(report)])) + "\n"


def composition(report: Report) -> str:
    """What is kept in soups, and nothing else."""
    made = (
        f"{facts(report)} What else answers, and at other weights, is in [results.md](results.md), of fewer prompts; how it is measured "
        "in [evaluate.md](evaluate.md)."
    )
    parts = [
        f"{partial(report)}# What soups keep",
        first_words(report),
        *asked(report, "--composition"),
        made,
        *_kept(report, KEPT_PICTURE.name),
        *_lost(report),
    ]
    parts += ["## Every pair and corner", *_shares(report, "###"), *_alone(report), "## All dimensions at once"]
    for temperature in temperatures(report):
        parts += [luck(temperature).capitalize() + ":", groups_table(report, temperature)]
    return "\n\n".join(map(wrapped, [*parts, *_limits(report)])) + "\n"


def fidelity(report: Report) -> str:
    """How true soups are to their parts, and what the base says of what they answer."""
    parts = [f"{partial(report)}# Is a soup what its parts are?", *asked(report, "--fidelity"), facts(report)]
    parts += [
        "## Against the mix of their models",
        "MOD mixes the log-probabilities of the models of one adapter each, with the weights of the soup: what a soup in one pass "
        "approximates ([evaluate.md](evaluate.md)).",
        *faithful(report),
        "## In the words of the base",
        "How much likelier the base finds an answer when a system prompt asks it for the pole than when one asks for the opposite, less "
        "the same of its own answers, in nats a token: a measure that nobody wrote for the dimension, and a small model's. Soups are "
        "those that have the pole at the same weight; kept is their mean over the effect alone.",
        *judged(report),
    ]
    return "\n\n".join(map(wrapped, [*parts, *_limits(report)])) + "\n"


def _made_of(report: Report) -> str:
    return (
        f"{facts(report)} Every arm is in "
        "[results_all.md](results_all.md), how it is measured in [evaluate.md](evaluate.md), what it costs in [costs.md](costs.md). "
        "What soups keep, of more prompts, is in [composition.md](composition.md); how far they are from the mix of their models, and "
        "what the base says of their answers, in [fidelity.md](fidelity.md)."
    )


def _kept(report: Report, picture: str = PICTURE.name) -> Iterator[str]:
    yield "## What is kept"
    yield (
        "Kept is the effect of a pole in a soup over its effect alone at the same weight, by all measures of its dimension together: 1 "
        "is all of it, 0 none, below 0 the opposite. Least is the worst soup, all is over all of them. The least of many looks worse "
        "than it is."
    )
    yield kept_table(report)
    if any(decided(report)):
        yield f"![what is kept of each dimension in every pair and corner]({picture})"


def _lost(report: Report) -> Iterator[str]:
    yield "## What does not compose"
    yield "Soups in which less than half of a dimension's effect is left:"
    if any(decided(report)):
        yield lost(report, nearest(report))
        yield folded("By all methods, at all weights", lost(report))
    if untold(report):
        yield untold(report)
    yield folded("Share of answers with some effect", effect_table(report))
    yield folded("What each adapter does to other dimensions", across_table(report))


def _alone(report: Report) -> Iterator[str]:
    yield "## Each pole alone"
    for temperature in temperatures(report):
        yield luck(temperature).capitalize() + ":"
        yield alone_table(report, temperature)


def _by_every_means(report: Report) -> Iterator[str]:
    yield "## All dimensions at once, by every means"
    yield (
        "Effects towards the poles that are asked for, in standard deviations of all answers of the run, means over the corners; on "
        "topic, loops, finished and parroting (four words in a row of a trained phrase) are shares of answers. Cost is tokens "
        "decoded for one of the answer."
    )
    for temperature in temperatures(report):
        yield luck(temperature).capitalize() + ":"
        yield groups_table(report, temperature)


def _furthest(report: Report) -> Iterator[str]:
    yield "## What reaches furthest"
    yield (
        "Hypervolume of what some arm of a family is beyond in every dimension, from the base, the mean over the corners; more is "
        "better ([evaluate.md](evaluate.md#fronts)). Harmless is without arms that are .1 less on topic or loop .1 more often than the "
        "base. On topic and loops are differences to the base, over the arms of the fronts. A family of more arms has more tries."
    )
    for temperature in temperatures(report):
        if temperature in report["fronts"]:
            size = max((len(each["dimensions"]) for each in report["fronts"][temperature]["reached"]), default=2)
            yield luck(temperature).capitalize() + ":"
            yield reached_table(report, temperature, size)
            if size > 2:
                yield folded("Two dimensions at a time", reached_table(report, temperature, 2))


def _limits(report: Report) -> Iterator[str]:
    yield "## What this does not show"
    yield "\n".join(f"- {each}" for each in report["cannot_show"])
    if report["not_measured"]:
        said = "; ".join(f"{each['what']} ({each['why']})" for each in report["not_measured"])
        yield f"Not measured: {said}."


def facts(report: Report) -> str:
    made = ", ".join(f"{name} {value}" for name, value in report["made_by"][0].items()) if report["made_by"] else ""
    prompts, limits = report["prompts"], report["limits"]
    return (
        f"{report['samples']['count']:,} answers of `{report['base']['name']}` to {prompts['count']} prompts, none trained on, of at "
        f"most {limits['length']} tokens, {_dtype(limits)}by {len(report['arms'])} arms, at temperatures "
        f"{' and '.join(f'{each:g}' for each in limits['temperatures'])}; {made}; report `{report['digest']}`. Brackets hold 95 % "
        "bootstrap intervals over prompts."
    )


def _dtype(limits: Report) -> str:
    return "" if limits["dtype"] is None else f"in {limits['dtype']}, "


def partial(report: Report) -> str:
    asked = len(report["arms"]) * report["prompts"]["count"] * len(report["limits"]["temperatures"])
    if report["samples"]["count"] == asked:
        return ""
    return f"**This is of a run that is not whole: {report['samples']['count']:,} of {asked:,} answers.**\n\n"


def all_arms(report: Report) -> str:
    known = {each["name"]: each for each in report["measures"]}
    names = [name for name in SHOWN if name in known]
    parts = [
        f"{partial(report)}# Every arm",
        f"The long tables of [results.md](results.md), generated with it from report `{report['digest']}`: means over prompts with 95 % "
        "bootstrap intervals.",
    ]
    for temperature in temperatures(report):
        rows = [
            (name, *(told(arm["measures"].get(each, {}).get("mean"), UNITS.get(each, 2)) for each in names))
            for name, arm in report["results"][temperature].items()
        ]
        parts += [
            f"## {luck(temperature).capitalize()}",
            table(("arm", *(each.replace("_", " ") for each in names)), rows),
        ]
    return "\n\n".join(map(wrapped, [*parts, *_shares(report, "##")])) + "\n"


def _shares(report: Report, level: str) -> Iterator[str]:
    """What every soup keeps of every dimension."""
    for temperature, method, strength, each in decided(report):
        dimensions = list(each["dimensions"])
        soups = list(dict.fromkeys(soup for one in each["dimensions"].values() for soup in one["shares"]))
        rows = [(soup, *(_share(each["dimensions"][name], soup) for name in dimensions)) for soup in soups]
        yield f"{level} Kept at {weight(strength)} by {method}, {luck(temperature)}"
        yield table(("soup", *dimensions), rows)


def _share(one: Report, soup: str) -> str:
    return told(one["shares"][soup]) if soup in one["shares"] else ""


def readme_table(report: Report) -> str:
    """What each pole does alone, at the first temperature, as the README has it."""
    temperature, measures = temperatures(report)[0], {each["name"]: each for each in report["measures"]}
    arms, steps = report["results"][temperature], steps_of(report)

    def mean(arm: str, name: str) -> str:
        return bare(arms.get(arm, {}).get("measures", {}).get(name, {}).get("mean"), UNITS.get(name, 2))

    rows = []
    for adapter, each in report["adapters"].items():
        name = measure_of(each, measures)
        at = ", ".join(mean(f"{adapter}@{step}", name) for step in steps)
        title = measures[name]["title"].split(",")[0].lower()
        rows.append((f"`{adapter}`, {title}", mean("base", name), at, mean(f"{adapter} by prompt", name)))
    return table(("alone", "base", f"at weight {', '.join(map(weight, steps))}", "by system prompt"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder of an evaluation, with report.json")
    parser.add_argument("--before", type=Path, help="folder of another one, of before, to stand beside it")
    parser.add_argument("--composition", action="store_true", help="write only what is kept in soups")
    parser.add_argument(
        "--fidelity", action="store_true", help="write only how soups differ from the mix of their models"
    )
    options = parser.parse_args()
    found = read_report(options.out / REPORT)
    if options.composition:
        draw(found, KEPT_PICTURE)
        COMPOSITION.write_text(composition(found), "utf-8")
        print(COMPOSITION, KEPT_PICTURE, sep="\n")
        return
    if options.fidelity:
        FIDELITY.write_text(fidelity(found), "utf-8")
        print(FIDELITY)
        return
    before = read_report(options.before / REPORT) if options.before else None
    draw(found, PICTURE, before)
    PAGE.write_text(page(found, before), "utf-8")
    ALL.write_text(all_arms(found), "utf-8")
    print(PAGE, ALL, PICTURE, "", readme_table(found), sep="\n")


if __name__ == "__main__":
    main()
