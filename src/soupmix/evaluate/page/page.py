"""Write the page: what stands where, in words."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from soupmix.evaluate.composition import LEAST_PROMPTS
from soupmix.evaluate.page.decided import decided_part
from soupmix.evaluate.page.drawing import plotting
from soupmix.evaluate.page.follows import faithful_part, follows_part, spans_part
from soupmix.evaluate.page.fronts import fronts_part
from soupmix.evaluate.page.parts import PageTable, PlotGroup, Section
from soupmix.evaluate.page.plots import (
    arms_of,
    cross_talk,
    effects,
    greedy_and_sampled,
    kept,
    measures_of,
    told,
)
from soupmix.evaluate.page.safety import safety_part
from soupmix.files import write_file

__all__ = ["PAGE", "page", "write_page"]

PAGE = "report.html"
_TEMPLATE = "report.html.jinja"

Report = Mapping[str, Any]


def page(report: Report) -> str:
    """A report as HTML: no script, no resource from elsewhere.

    Raises:
        EvaluationError: matplotlib is not installed (reason "no-library").
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    with plotting():
        sections = [each for each in _sections(report) if each.points or each.tables or each.groups]
    return environment.get_template(_TEMPLATE).render(
        title=f"What soups of {report['base']['name']} do", lead=_lead(report), facts=_facts(report), sections=sections
    )


def write_page(out: Path, report: Report) -> None:
    """Write it, whole or not at all. Raises `OutputError`, and as `page` does."""
    write_file(out / PAGE, page(report).encode())


def _lead(report: Report) -> str:
    counts = {temperature: [arm["prompts"] for arm in arms.values()] for temperature, arms in report["results"].items()}
    few = [sum(each < max(found) for each in found) for found in counts.values() if found]
    same = "all arms answered the same prompts"
    if any(few):
        same = f"up to {max(few)} arms answered fewer prompts than the others, and are compared with the base alone; all answered"
    return (
        f"Figures are means over prompts with 95 % bootstrap intervals in brackets; {same} with the same random numbers. "
        "An effect is the difference to the bare base at the same prompt. A dash is no figure: nothing was measured, or a "
        f"share of something that cannot be told from nothing, or over fewer than {LEAST_PROMPTS} prompts."
    )


_NO_PLOT = "A pole whose effect alone cannot be told from nothing, at no weight, has nothing to keep, and no plot."


def _facts(report: Report) -> list[tuple[str, str]]:
    limits, prompts = report["limits"], report["prompts"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(prompts["kinds"].items()))
    versions = [", ".join(f"{name} {value}" for name, value in each.items()) for each in report["made_by"]]
    return [
        ("digest", report["digest"]),
        ("base", f"{report['base']['name']}, {report['base']['digest']}"),
        ("adapters", ", ".join(f"{name} ({facts['dimension']})" for name, facts in report["adapters"].items())),
        ("prompts", f"{prompts['count']} ({kinds})"),
        ("answers", f"{report['samples']['count']:,} of {_asked(report):,}, at most {limits['length']} tokens each"),
        ("arms", str(len(report["arms"]))),
        ("temperatures", ", ".join(f"{each:g}" for each in limits["temperatures"])),
        ("seed", str(limits["seed"])),
        *(("answered by", each) for each in versions),
    ]


def _asked(report: Report) -> int:
    """How many answers a whole run has."""
    return len(report["arms"]) * int(report["prompts"]["count"]) * len(report["limits"]["temperatures"])


def _sections(report: Report) -> Iterator[Section]:
    temperatures = sorted(report["results"], key=float)
    heads = _headlines(report)
    yield decided_part(report)
    yield Section("limits", "What this cannot show", points=report["cannot_show"])
    yield Section(
        "composes",
        "What is kept of each pole",
        [
            "Kept is the effect of a pole in a soup over its effect alone at the same weight: 1 is all of it, 0 none, below 0 "
            "the opposite. Least and most are over all soups of equal weights with adapters of other dimensions."
        ],
        tables=[table for each in temperatures if (table := _composes(report, each, heads)).rows],
    )
    yield Section("effects", "Each pole alone", groups=list(_effect_groups(report, temperatures)))
    yield spans_part(report)
    yield Section(
        "kept", "Kept in pairs and corners", [_NO_PLOT], groups=list(_kept_groups(report, temperatures, heads))
    )
    yield Section("cross-talk", "What poles do to other dimensions", groups=list(_cross_groups(report, temperatures)))
    yield fronts_part(report)
    yield follows_part(report)
    yield faithful_part(report)
    yield Section("damage", "Damage", groups=list(_damage_groups(report, temperatures)))
    greedy = [plot for measure in heads.values() if (plot := greedy_and_sampled(report, measure))]
    yield Section("greedy", "Greedy against sampled", groups=[PlotGroup("Effects of soups", greedy)] if greedy else [])
    yield safety_part(report)
    yield Section("arms", "All arms, all measures", tables=[_all(report, each) for each in temperatures])
    yield Section("measures", "Measures", tables=[_measures(report)])
    missing = [f"{each['what']}: {each['why']}" for each in report["not_measured"]]
    yield Section("not-measured", "What was not measured", points=missing)


def _headlines(report: Report) -> dict[str, str]:
    """The first measure of every dimension."""
    found: dict[str, str] = {}
    for name, about in measures_of(report).items():
        if about["dimension"]:
            found.setdefault(about["dimension"], name)
    dimensions = {facts["dimension"] for facts in report["adapters"].values()}
    return {dimension: name for dimension, name in found.items() if dimension in dimensions}


def _composes(report: Report, temperature: str, heads: Mapping[str, str]) -> PageTable:
    rows = []
    for adapter, facts in report["adapters"].items():
        measure = heads.get(facts["dimension"])
        found: dict[tuple[str, str], list[tuple[float | None, str, str]]] = {}
        for method in report["composition"].get(temperature, {}) if measure else ():
            for each in report["composition"][temperature][method]["kept"]:
                weights = arms_of(report)[each["soup"]]["weights"]
                if each["measure"] == measure and adapter in weights and len(set(weights.values())) == 1:
                    value = each["share"]["value"] if each["share"] else None
                    alone = told(each["alone"], measures_of(report)[each["measure"]])
                    found.setdefault((method, weights[adapter]), []).append((value, each["soup"].split("@")[0], alone))
        for method, weight in sorted(found, key=lambda key: (key[0], float(key[1]))):
            rows.append((adapter, str(measure), weight, method, *_range_of(found[method, weight])))
    return PageTable(
        ("pole", "measure", "weight", "method", "alone", "kept least", "kept most"), rows, f"Temperature {temperature}"
    )


def _range_of(found: Sequence[tuple[float | None, str, str]]) -> tuple[str, str, str]:
    told = sorted((value, soup) for value, soup, _ in found if value is not None)
    if not told:
        return found[0][2], "–", "–"
    (least, one), (most, other) = told[0], told[-1]
    return found[0][2], f"{least:.2f} in {one}", f"{most:.2f} in {other}"


def _effect_groups(report: Report, temperatures: Sequence[str]) -> Iterator[PlotGroup]:
    for temperature in temperatures:
        for dimension in dict.fromkeys(facts["dimension"] for facts in report["adapters"].values()):
            adapters = [name for name, facts in report["adapters"].items() if facts["dimension"] == dimension]
            names = [name for name, about in measures_of(report).items() if about["dimension"] == dimension]
            plots = [plot for name in names if (plot := effects(report, temperature, name, adapters))]
            if plots:
                yield PlotGroup(f"{dimension}, temperature {temperature}", plots)


def _kept_groups(report: Report, temperatures: Sequence[str], heads: Mapping[str, str]) -> Iterator[PlotGroup]:
    for temperature in temperatures:
        for method in report["composition"].get(temperature, {}):
            plots = [
                plot
                for adapter, facts in report["adapters"].items()
                if facts["dimension"] in heads
                and (plot := kept(report, temperature, method, heads[facts["dimension"]], adapter))
            ]
            if plots:
                yield PlotGroup(f"temperature {temperature}, method {method}", plots)


def _cross_groups(report: Report, temperatures: Sequence[str]) -> Iterator[PlotGroup]:
    measures = [name for name, about in measures_of(report).items() if about["dimension"]]
    for temperature in temperatures:
        found = report["composition"].get(temperature, {})
        plots = [plot for method in list(found)[:1] if (plot := cross_talk(report, temperature, method, measures))]
        if plots:
            yield PlotGroup(f"temperature {temperature}", plots, wide=True)


def _damage_groups(report: Report, temperatures: Sequence[str]) -> Iterator[PlotGroup]:
    found = measures_of(report).items()
    measures = [name for name, about in found if not about["dimension"] and about["better"]]
    for temperature in temperatures:
        made = (effects(report, temperature, name, list(report["adapters"])) for name in measures)
        plots = [plot for plot in made if plot]
        if plots:
            yield PlotGroup(f"temperature {temperature}", plots)


def _all(report: Report, temperature: str) -> PageTable:
    measures = measures_of(report)
    rows = [
        (
            name,
            str(arm["prompts"]),
            *(told(arm["measures"].get(n, {}).get("mean"), each) for n, each in measures.items()),
        )
        for name, arm in report["results"][temperature].items()
    ]
    return PageTable(("arm", "prompts", *measures), rows, folded=f"Temperature {temperature}: {len(rows)} arms")


def _measures(report: Report) -> PageTable:
    words = {1: "more", -1: "less", 0: "–"}
    rows = [
        (
            name,
            about["title"],
            about["dimension"] or "damage",
            about["unit"] or "–",
            words[about["better"]],
            about["source"],
        )
        for name, about in measures_of(report).items()
    ]
    return PageTable(("name", "what it is", "dimension", "unit", "better", "source"), rows)
