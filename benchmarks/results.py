"""What weights do, from a report of `soupmix evaluate`.

    python benchmarks/results.py OUT    OUT holds a report.json

Writes docs/results.md, which is to be read, docs/results_all.md with every arm, and docs/results.png.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from soupmix.evaluate.report import REPORT, read_report

ROOT = Path(__file__).parents[1]
PAGE, ALL, PICTURE = (ROOT / "docs" / name for name in ("results.md", "results_all.md", "results.png"))
ENOUGH, HALF = 0.8, 0.5  # of an effect, for a dimension to compose, and to be lost
UNITS = {"grade": 1, "words": 0, "lexicon": 1}  # decimals; all others are shares
SHOWN = ("grade", "words", "lexicon", "warm_at_all", "cold_at_all", "on_topic", "loop", "finished", "parroting")
DAMAGE = ("on_topic", "loop", "finished", "parroting", "repetition")

Report = Mapping[str, Any]
Figure = Mapping[str, float] | None


def number(value: float, decimals: int = 2) -> str:
    """.93 and -.08, as documents here have them."""
    text = f"{value:.{decimals}f}"
    text = text.lstrip("-") if not float(text) else text
    return text.replace("0.", ".", 1) if decimals and abs(value) < 1 and text.lstrip("-").startswith("0.") else text


def weight(word: str) -> str:
    return f"{float(word):g}".removeprefix("0")


def told(found: Figure, decimals: int = 2) -> str:
    if found is None:
        return "–"
    value, low, high = (number(found[name], decimals) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def bare(found: Figure, decimals: int = 2) -> str:
    return "–" if found is None else number(found["value"], decimals)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def folded(summary: str, body: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


def luck(temperature: str) -> str:
    return "greedy" if float(temperature) == 0 else f"temperature {temperature}"


def temperatures(report: Report) -> list[str]:
    """Sampled before greedy: it is how people are answered."""
    return sorted(report["results"], key=float, reverse=True)


def decided(report: Report) -> Iterator[tuple[str, str, str, Report]]:
    for temperature in temperatures(report):
        for method, strengths in report["decides"].get(temperature, {}).items():
            for strength in sorted(strengths, key=float):
                yield temperature, method, strength, strengths[strength]


def nearest(report: Report) -> tuple[str, str]:
    """The first method, and the strength that is .7 or nearest to it."""
    found = [each[1:3] for each in decided(report)]
    return min((each for each in found if each[0] == found[0][0]), key=lambda each: abs(float(each[1]) - 0.7))


def first_words(report: Report) -> str:
    """The worst, by name, at .7 or what is nearest, by the first method."""
    found = list(decided(report))
    if not found:
        return "No soup of this report mixes dimensions."
    method, strength = nearest(report)
    chosen = [each for each in found if each[1:3] == (method, strength)]
    sentences = []
    for temperature, _, _, each in chosen:
        worst = {name: one["worst"] for name, one in each["dimensions"].items() if one["worst"]}
        said = ", ".join(
            f"of {name} {told(one['share'])} in `{plain(one['soup'])}`"
            for name, one in sorted(worst.items(), key=lambda item: item[1]["share"]["value"])
        )
        damage = ", ".join(
            f"{measure.replace('_', ' ')} {number(one['effect']['value'])} in `{plain(one['soup'])}`"
            for measure, one in each["damage"].items()
            if one["effect"]
        )
        kept = f"least is kept {said}" if said else "no effect alone can be told from nothing"
        against = f"; against the base, worst {damage}" if damage else ""
        sentences.append(f"{luck(temperature).capitalize()}, {kept}{against}.")
    soups = f"{chosen[0][3]['soups']} pairs and corners of the adapters at {weight(strength)} each, by `{method}`"
    return f"{_verdict([each[3] for each in chosen])} In {soups}: {' '.join(sentences)}"


def _verdict(found: Sequence[Report]) -> str:
    """Which dimensions compose: the least of many looks less than it is, so a whole interval has to lie on one side."""
    shares: dict[str, list[Figure]] = {}
    for each in found:
        for name, one in each["dimensions"].items():
            shares.setdefault(name, []).extend(one["shares"].values())
    lacking = sorted(name for name, own in shares.items() if any(one and one["high"] < ENOUGH for one in own))
    whole = sorted(name for name, own in shares.items() if all(one and one["low"] >= ENOUGH for one in own))
    unsure = sorted(shares.keys() - {*lacking, *whole})
    said = [f"{_and(lacking)} {'do' if len(lacking) > 1 else 'does'} not compose"] if lacking else []
    if whole:
        said.append(f"{_and(whole)} compose{'s' * (len(whole) == 1)}" if lacking or unsure else "all compose")
    if unsure:
        said.append(f"of {_and(unsure)} it cannot be told")
    words = "; ".join(said)
    return f"**{words[:1].upper()}{words[1:]}.**"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def lost(report: Report, *only: tuple[str, str]) -> str:
    """In plain words, of every dimension, where it is lost; by these methods at these weights, or all."""
    lines = []
    for temperature, method, strength, each in decided(report):
        if only and (method, strength) not in only:
            continue
        for name, one in each["dimensions"].items():
            shares = {soup: share for soup, share in one["shares"].items() if share}
            gone = [soup for soup, share in shares.items() if share["value"] < HALF]
            if gone:
                lines.append(
                    (
                        luck(temperature),
                        method,
                        weight(strength),
                        name,
                        f"{len(gone)} of {len(shares)}",
                        _soups(gone),
                    )
                )
    if not lines:
        return "No dimension loses half of its effect in any soup."
    head = ("", "method", "weights", "dimension", "loses half in", "which")
    return table(head, lines)


def untold(report: Report) -> str:
    """Poles that do too little alone for anything to be kept of it."""
    found: dict[str, list[str]] = {}
    for temperature, method, strength, each in decided(report):
        where = f"{weight(strength)} ({method}, {luck(temperature)})"
        for name, one in each["dimensions"].items():
            parts = {part for soup, share in one["shares"].items() if share is None for part in plain(soup).split("+")}
            for pole in sorted(part for part in parts if report["adapters"][part]["dimension"] == name):
                found.setdefault(pole, []).append(where)
    said = "; ".join(f"`{pole}` at {', '.join(places)}" for pole, places in sorted(found.items()))
    return f"Of these the effect alone cannot be told from nothing, so there is no share of it: {said}." if said else ""


def plain(soup: str) -> str:
    return soup.split("@")[0]


def _soups(names: Sequence[str]) -> str:
    return ", ".join(map(plain, names))


def kept_table(report: Report) -> str:
    dimensions = list(dict.fromkeys(name for *_, each in decided(report) for name in each["dimensions"]))
    rows = []
    for temperature, method, strength, each in decided(report):
        cells = []
        for name in dimensions:
            one = each["dimensions"].get(name)
            worst = one and one["worst"]
            cells.append(f"{told(worst['share'])}<br>{plain(worst['soup'])}" if worst else "–")
            cells.append(bare(one["kept"]) if one else "–")
        rows.append((luck(temperature), method, weight(strength), *cells))
    head = ("", "method", "weights", *(cell for name in dimensions for cell in (f"{name}: least", "all")))
    return table(head, rows)


def effect_table(report: Report) -> str:
    """Whether answers have any effect, in the worst soup and alone."""
    rows = []
    for temperature, method, strength, each in decided(report):
        for name, one in each["dimensions"].items():
            if one["any"]:
                soup = plain(one["worst"]["soup"])
                cells = (name, told(one["any_alone"]), told(one["any"]), soup)
                rows.append((luck(temperature), method, weight(strength), *cells))
    return table(
        ("", "method", "weights", "dimension", "answers with some effect, alone", "in the worst soup", "which"), rows
    )


def across_table(report: Report) -> str:
    """What each adapter does to other dimensions, more towards the first pole of each: of each the worst strength last."""
    rows, poles = [], {}
    for found in report["fronts"].values():
        poles |= found["poles"]
    dimensions = list(poles)
    for temperature, method, strength, each in decided(report):
        found: dict[str, dict[str, Figure]] = {}
        for one in each["cross_talk"]:
            found.setdefault(plain(one["soup"]), {})[one["dimension"]] = one["share"]
        for adapter, shares in found.items():
            cells = (told(shares[name]) if name in shares else "" for name in dimensions)
            rows.append((luck(temperature), method, weight(strength), adapter, *cells))
    return table(
        (
            "",
            "method",
            "weight",
            "adapter alone",
            *(f"moves {each} towards {poles[each][0]} by" for each in dimensions),
        ),
        rows,
    )


def alone_table(report: Report, temperature: str) -> str:
    """Each adapter alone, and its prompt, by a measure of its dimension."""
    measures = {each["name"]: each for each in report["measures"]}
    arms, rows = report["results"][temperature], []
    steps = _steps(report)
    for adapter, facts in report["adapters"].items():
        name = _measure_of(facts, measures)
        if not name:
            continue
        asked = ["base", *(f"{adapter}@{step}" for step in steps), f"{adapter} by prompt", f"{adapter} by examples"]
        found = [arms.get(arm, {}).get("measures", {}).get(name, {}).get("mean") for arm in asked]
        cells = [told(each, UNITS.get(name, 2)) for each in found]
        rows.append((adapter, measures[name]["title"].split(",")[0], *cells))
    head = ("pole", "measure", "base", *(f"at {weight(step)}" for step in steps), "by prompt", "few-shot")
    empty = [place for place in range(2, len(head)) if all(row[place] == "–" for row in rows)]
    keep = [place for place in range(len(head)) if place not in empty]
    return table([head[place] for place in keep], [[row[place] for place in keep] for row in rows])


def _measure_of(facts: Report, measures: Mapping[str, Report]) -> str:
    """Whether its pole occurs at all, or the first measure of its dimension."""
    own = [name for name, each in measures.items() if each["dimension"] == facts["dimension"]]
    at_all = [name for name in own if name.endswith("_at_all") and measures[name]["pole"] == facts["pole"]]
    return next(iter([*at_all, *(name for name in ("grade", "words") if name in own), *own]), "")


def _steps(report: Report) -> list[str]:
    found = {w for arm in report["arms"] if len(arm["weights"]) == 1 for w in arm["weights"].values()}
    return sorted(found, key=float)


def groups_table(report: Report, temperature: str) -> str:
    """What asks for all dimensions at once, by every means."""
    found = report["groups"].get(temperature, [])
    dimensions = list(report["fronts"].get(temperature, {"poles": {}})["poles"])
    most = max((each["poles"] for each in found), default=0)
    cost = report.get("cost", {}).get(temperature, {})
    rows = [(*_group(each, dimensions), *_cost(each, cost)) for each in found if each["poles"] in (0, most)]
    head = ("by", "weights", "arms", *dimensions, "on topic", "loops", "finished", "parroting")
    return table((*head, *(["cost"] if cost else [])), rows)


def _cost(group: Report, cost: Report) -> list[str]:
    """Tokens that are decoded for a token of the answer."""
    own = [cost[name] for name in group["arms"] if name in cost]
    tokens, decoded = (sum(each[name] for each in own) for name in ("tokens", "decoded"))
    return [f"{decoded / tokens:.1f}" if tokens else "–"] if cost else []


def _group(each: Report, dimensions: Sequence[str]) -> tuple[str, ...]:
    toward = (told(each["toward"].get(name)) for name in dimensions)
    damage = (bare(each["measures"].get(name)) for name in ("on_topic", "loop", "finished", "parroting"))
    by = weight(each["weight"]) if each["weight"] not in ("", "mixed") else each["weight"]
    return (each["family"], by, str(len(each["arms"])), *toward, *damage)


def reached_table(report: Report, temperature: str, size: int) -> str:
    found = [each for each in report["fronts"][temperature]["reached"] if len(each["dimensions"]) == size]
    found.sort(key=lambda each: (each["dimensions"], -(each["hypervolume"] or {"value": 0})["value"]))
    rows = [
        (
            *([" + ".join(each["dimensions"])] if size == 2 else []),
            each["family"],
            str(each["arms"]),
            told(each["hypervolume"]),
            told(each["harmless"]),
            *(told(each["damage"].get(name)) for name in ("on_topic", "loop")),
        )
        for each in found
    ]
    head = (*(["dimensions"] if size == 2 else []), "by", "arms", "hypervolume", "harmless", "on topic", "loops")
    return table(head, rows)


def faithful(report: Report) -> Iterator[str]:
    """Fidelity, connectivity and perplexity, as far as they were measured."""
    for temperature in sorted(report.get("fidelity", {}), key=float, reverse=True):
        arms = report["fidelity"][temperature]
        rows = [(arm, _plain(each["kl_mod"], 3), _plain(each["kl_base"], 3)) for arm, each in arms.items()]
        near = [_value(each["kl_mod"]) for each in arms.values()]
        away = [_value(each["kl_base"]) for each in arms.values()]
        yield (
            f"{luck(temperature).capitalize()}: soups lie {number(min(near), 3)} to {number(max(near), 3)} nats a token from the mix "
            f"of their models, and {number(min(away), 3)} to {number(max(away), 3)} from the base."
        )
        yield folded(f"{len(rows)} soups, {luck(temperature)}", table(("soup", "from the mix", "from the base"), rows))
    if report.get("connectivity"):
        worst = min(report["connectivity"], key=lambda each: _value(each["margin"]))
        yield f"Linear mode connectivity: the least margin is {_plain(worst['margin'], 3)}, of `{worst['soup']}`."
        rows = [(each["soup"], _plain(each["margin"], 3)) for each in report["connectivity"]]
        yield folded(f"{len(rows)} soups", table(("soup", "margin"), rows))
    if report.get("prose"):
        rows = [(arm, _plain(each["perplexity"], 1)) for arm, each in report["prose"].items()]
        base = next((row[1] for row in rows if row[0] == "base"), "–")
        worst = max(report["prose"], key=lambda arm: _value(report["prose"][arm]["perplexity"]))
        yield f"Perplexity of neutral prose: base {base}, worst {_plain(report['prose'][worst]['perplexity'], 1)}, of `{worst}`."
        yield folded(f"{len(rows)} arms", table(("arm", "perplexity"), rows))


def _value(found: Any) -> float:
    return float(found["value"] if isinstance(found, Mapping) else found)


def _plain(found: Any, decimals: int) -> str:
    return told(found, decimals) if found is None or isinstance(found, Mapping) else number(float(found), decimals)


def facts(report: Report) -> str:
    made = ", ".join(f"{name} {value}" for name, value in report["made_by"][0].items()) if report["made_by"] else ""
    prompts, limits = report["prompts"], report["limits"]
    return (
        f"{report['samples']['count']:,} answers of `{report['base']['name']}` to {prompts['count']} prompts, none trained on, of at "
        f"most {limits['length']} tokens, by {len(report['arms'])} arms, at temperatures "
        f"{' and '.join(f'{each:g}' for each in limits['temperatures'])}; {made}; report `{report['digest']}`. Brackets hold 95 % "
        "bootstrap intervals over prompts."
    )


def partial(report: Report) -> str:
    asked = len(report["arms"]) * report["prompts"]["count"] * len(report["limits"]["temperatures"])
    if report["samples"]["count"] == asked:
        return ""
    return f"**This is of a run that is not whole: {report['samples']['count']:,} of {asked:,} answers.**\n\n"


def page(report: Report) -> str:
    parts = [
        f"{partial(report)}# What weights do",
        first_words(report),
        "Generated by `soupmix evaluate OUT` and `python benchmarks/results.py OUT`. "
        + facts(report)
        + " Every arm is in "
        "[results_all.md](results_all.md), how it is measured in [evaluate.md](evaluate.md), what it costs in [costs.md](costs.md).",
        "## What is kept",
        "Kept is the effect of a pole in a soup over its effect alone at the same weight, by all measures of its dimension together: 1 "
        "is all of it, 0 none, below 0 the opposite. Least is the worst soup, all is over all of them. The least of many looks worse "
        "than it is.",
        kept_table(report),
        *(["![what is kept of each dimension in every pair and corner](results.png)"] if list(decided(report)) else []),
        "## What does not compose",
        "Soups in which less than half of a dimension's effect is left:",
        *(
            [lost(report, nearest(report)), folded("By all methods, at all weights", lost(report))]
            if any(decided(report))
            else []
        ),
        *([untold(report)] if untold(report) else []),
        folded("Share of answers with some effect", effect_table(report)),
        folded("What each adapter does to other dimensions", across_table(report)),
        "## Each pole alone",
    ]
    for temperature in temperatures(report):
        parts += [luck(temperature).capitalize() + ":", alone_table(report, temperature)]
    parts += [
        "## All dimensions at once, by every means",
        "Effects towards the poles that are asked for, in standard deviations of all answers of the run, means over the corners; on "
        "topic, loops, finished and parroting (four words in a row of a trained phrase) are shares of answers. Cost is tokens "
        "decoded for one of the answer.",
    ]
    for temperature in temperatures(report):
        parts += [luck(temperature).capitalize() + ":", groups_table(report, temperature)]
    parts += [
        "## What reaches furthest",
        "Hypervolume of what some arm of a family is beyond in every dimension, from the base, the mean over the corners; more is "
        "better ([evaluate.md](evaluate.md#fronts)). Harmless is without arms that are .1 less on topic or loop .1 more often than the "
        "base. On topic and loops are differences to the base, over the arms of the fronts. A family of more arms has more tries.",
    ]
    for temperature in temperatures(report):
        if temperature in report["fronts"]:
            size = max((len(each["dimensions"]) for each in report["fronts"][temperature]["reached"]), default=2)
            parts += [luck(temperature).capitalize() + ":", reached_table(report, temperature, size)]
            parts += [folded("Two dimensions at a time", reached_table(report, temperature, 2))] if size > 2 else []
    told_apart = list(faithful(report))
    parts += ["## Is a soup what its parts are?", *told_apart] if told_apart else []
    parts += ["## What this does not show", "\n".join(f"- {each}" for each in report["cannot_show"])]
    if report["not_measured"]:
        parts.append(
            "Not measured: " + "; ".join(f"{each['what']} ({each['why']})" for each in report["not_measured"]) + "."
        )
    return "\n\n".join(map(wrapped, parts)) + "\n"


def wrapped(part: str) -> str:
    """Prose within 120 characters; tables and pictures as they are."""
    import textwrap

    if part.startswith(("|", "!", "<", "#", "**This is")):
        return part
    lines = part.split("\n")
    filled = (
        textwrap.fill(
            line, 118, subsequent_indent="  " * line.startswith("- "), break_long_words=False, break_on_hyphens=False
        )
        for line in lines
    )
    return "\n".join(filled)


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
    for temperature, method, strength, each in decided(report):
        dimensions = list(each["dimensions"])
        soups = list(dict.fromkeys(soup for one in each["dimensions"].values() for soup in one["shares"]))
        rows = [(soup, *(_share(each["dimensions"][name], soup) for name in dimensions)) for soup in soups]
        parts += [
            f"## Kept at {weight(strength)} by {method}, {luck(temperature)}",
            table(("soup", *dimensions), rows),
        ]
    return "\n\n".join(map(wrapped, parts)) + "\n"


def _share(one: Report, soup: str) -> str:
    return told(one["shares"][soup]) if soup in one["shares"] else ""


def draw(report: Report, path: Path) -> None:
    """Of every dimension what is kept in each soup, at every strength, by the first method and at the first temperature."""
    import matplotlib.pyplot as plt

    found = list(decided(report))
    if not found:
        path.unlink(missing_ok=True)
        return
    mine = [each for each in found if each[:2] == found[0][:2]]
    dimensions = list(mine[0][3]["dimensions"])
    soups = list(
        dict.fromkeys(
            s.split("@")[0] for *_, each in mine for one in each["dimensions"].values() for s in one["shares"]
        )
    )
    figure, panels = plt.subplots(1, len(dimensions), figsize=(11, 0.5 + 0.24 * len(soups)), sharey=True, squeeze=False)
    for panel, name in zip(panels[0], dimensions, strict=True):
        for place, (_, _, strength, each) in enumerate(mine):
            shares = {s.split("@")[0]: share for s, share in each["dimensions"][name]["shares"].items() if share}
            y = [soups.index(s) + 0.22 * (place - (len(mine) - 1) / 2) for s in shares]
            x = [min(max(s["value"], -1), 2) for s in shares.values()]
            low = [max(v - max(s["low"], -1), 0) for v, s in zip(x, shares.values(), strict=True)]
            high = [max(min(s["high"], 2) - v, 0) for v, s in zip(x, shares.values(), strict=True)]
            panel.errorbar(
                x,
                y,
                xerr=[low, high],
                fmt="osD^v"[place % 5],
                markersize=3.5,
                elinewidth=0.8,
                label=f"{float(strength):g}",
            )
        panel.axvline(0, color="0.6", linewidth=0.8, linestyle=":")
        panel.axvline(1, color="0.6", linewidth=0.8)
        panel.set(title=f"{name} kept", xlim=(-1, 2), ylim=(len(soups) - 0.4, -0.6), yticks=range(len(soups)))
        panel.set_yticklabels(soups, fontsize=7)
        panel.grid(axis="y", linewidth=0.3)
    panels[0][-1].legend(title="weights", fontsize=7)
    figure.suptitle(f"by {mine[0][1]}, {luck(mine[0][0])}; 1 is the whole effect of the pole alone", fontsize=9)
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder of an evaluation, with report.json")
    out = parser.parse_args().out
    found = read_report(out / REPORT)
    draw(found, PICTURE)
    PAGE.write_text(page(found), "utf-8")
    ALL.write_text(all_arms(found), "utf-8")
    print(PAGE, ALL, PICTURE, sep="\n")


if __name__ == "__main__":
    main()
