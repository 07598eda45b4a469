"""The part of the page about Pareto fronts."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from soupmix.evaluate.page.drawing import MUTED, new_figure, style_of, svg
from soupmix.evaluate.page.parts import PageTable, PlotGroup, Section
from soupmix.evaluate.page.plots import Plot, measures_of, shown, told

__all__ = ["draw_front", "fronts_part", "reached_rows"]

Report = Mapping[str, Any]
Spot = tuple[float, float]

_WORDS = (
    "How far families of arms get in several dimensions at once. Coordinates are effects by all measures of a dimension "
    "together, in standard deviations; the base is the origin, and each corner has its own quarter. The hypervolume is "
    "the volume of all that some arm of a family is beyond in every dimension, the mean over the corners; more is better. "
    "Harmless is the same without arms that are .1 less often on topic than the base, or .1 more often run in circles. A "
    "family of more arms has more tries.",
)


def fronts_part(report: Report) -> Section:
    """The section; empty where there are no two dimensions."""
    tables, groups = [], []
    for temperature in sorted(report.get("fronts", {}), key=float):
        rows = list(reached_rows(report, temperature))
        damage = [measures_of(report)[name]["title"] for name in _damage(report, temperature)]
        head = (
            "dimensions",
            "family",
            "arms",
            "hypervolume",
            "harmless",
            *(f"{each}, less the base" for each in damage),
        )
        tables.append(PageTable(head, rows, f"Temperature {temperature}"))
        poles = report["fronts"][temperature]["poles"]
        plots = [draw_front(report, temperature, pair) for pair in combinations(poles, 2)]
        groups.append(PlotGroup(f"Fronts, temperature {temperature}", [each for each in plots if each]))
    tables = [each for each in tables if each.rows]
    return Section(
        "fronts",
        "What reaches furthest",
        _WORDS if tables else (),
        tables=tables,
        groups=[g for g in groups if g.plots],
    )


def _damage(report: Report, temperature: str) -> list[str]:
    return list(dict.fromkeys(name for each in report["fronts"][temperature]["reached"] for name in each["damage"]))


def reached_rows(report: Report, temperature: str) -> Iterator[tuple[str, ...]]:
    """Of all dimensions together first, of each the largest volume first."""
    names = _damage(report, temperature)
    found = sorted(
        report["fronts"][temperature]["reached"],
        key=lambda each: (
            -len(each["dimensions"]),
            each["dimensions"],
            -(each["hypervolume"] or {"value": 0})["value"],
        ),
    )
    for each in found:
        damage = (told(each["damage"].get(name), measures_of(report)[name]) for name in names)
        yield (
            " + ".join(each["dimensions"]),
            each["family"],
            str(each["arms"]),
            shown(each["hypervolume"], 2),
            shown(each["harmless"], 2),
            *damage,
        )


def draw_front(report: Report, temperature: str, pair: Sequence[str]) -> Plot | None:
    """Points of two dimensions, and of every family the fronts of the four quarters."""
    found = report["fronts"][temperature]
    spots: dict[str, dict[str, Spot]] = {}
    for arm, each in found["points"].items():
        x, y = (each["toward"][found["poles"][name][0]] for name in pair)
        if each["family"] != "base" and x and y and {*each["asks"]} <= {*pair}:
            spots.setdefault(each["family"], {})[arm] = (x["value"], y["value"])
    if not spots:
        return None
    figure, axes = new_figure(4.6, 4.2 + 0.1 * len(spots))
    for number, (family, own) in enumerate(spots.items()):
        style = style_of(number)
        axes.plot(
            *zip(*own.values(), strict=True), label=family, **{**style, "linestyle": "", "markersize": 4, "alpha": 0.85}
        )
        for corner in _quarters(list(own.values())):
            axes.plot(*zip(*corner, strict=True), **{**style, "marker": "", "linewidth": 1, "alpha": 0.7})
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.set_xlabel(_axis(found["poles"][pair[0]]))
    axes.set_ylabel(_axis(found["poles"][pair[1]]))
    axes.set_title(f"{pair[0]} and {pair[1]}", loc="left")
    figure.legend(loc="outside lower center", ncols=2)
    caption = (
        f"{pair[0]} and {pair[1]}, standard deviations from the base, temperature {temperature}; lines are the fronts"
    )
    rows = [(arm, family, f"{x:.2f}", f"{y:.2f}") for family, own in spots.items() for arm, (x, y) in own.items()]
    name = f"front-{pair[0]}-{pair[1]}-{temperature}".replace(".", "_")
    return Plot(svg(figure, name, caption), caption, ("arm", "family", *pair), tuple(rows))


def _axis(poles: Sequence[str]) -> str:
    return f"← {poles[1]} | {poles[0]} →" if len(poles) > 1 else f"{poles[0]} →"


def _quarters(spots: Sequence[Spot]) -> Iterator[list[Spot]]:
    """Of every quarter that has any, the edge of what its points dominate, from one axis to the other."""
    for right, up in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        inside = sorted(((x * right, y * up) for x, y in spots if x * right > 0 and y * up > 0), reverse=True)
        edge: list[Spot] = []
        for x, y in inside:
            height = edge[-1][1] if edge else 0.0
            if y > height:
                edge += [(x, height), (x, y)]
        if edge:
            yield [(x * right, y * up) for x, y in (*edge, (0.0, edge[-1][1]))]
