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
            shown(each["hypervolume"]),
            shown(each["harmless"]),
            *damage,
        )


def draw_front(report: Report, temperature: str, pair: Sequence[str]) -> Plot | None:
    """Of every family the arms on its fronts in two dimensions, corner by corner; those behind are counted, not drawn."""
    found = report["fronts"][temperature]
    fronts = {each["family"]: each["front"] for each in found["reached"] if each["dimensions"] == [*pair]}
    fronts = {family: own for family, own in fronts.items() if any(own.values())}
    if not fronts:
        return None
    figure, axes = new_figure(4.6, 4.2 + 0.1 * len(fronts))
    rows: list[tuple[str, ...]] = []
    for number, (family, own) in enumerate(fronts.items()):
        style, label = style_of(number), family
        for corner, names in own.items():
            spots = {name: _spot(found, name, pair) for name in names}
            if spots:
                axes.plot(
                    *zip(*spots.values(), strict=True), **{**style, "linestyle": "", "markersize": 4}, label=label
                )
                axes.plot(*zip(*_edge(list(spots.values())), strict=True), **{**style, "marker": "", "linewidth": 1})
                label = "_nolegend_"
            rows += [(arm, family, corner, f"{x:.2f}", f"{y:.2f}") for arm, (x, y) in spots.items()]
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.set_xlabel(_axis(found["poles"][pair[0]]))
    axes.set_ylabel(_axis(found["poles"][pair[1]]))
    axes.set_title(f"{pair[0]} and {pair[1]}", loc="left")
    figure.legend(loc="outside lower center", ncols=2)
    arms = sum(each["arms"] for each in found["reached"] if each["dimensions"] == [*pair])
    on = len({arm for arm, *_ in rows})
    caption = (
        f"{pair[0]} and {pair[1]}, standard deviations from the base, temperature {temperature}: the fronts of every family, "
        f"{on} of {arms} arms"
    )
    name = f"front-{pair[0]}-{pair[1]}-{temperature}".replace(".", "_")
    return Plot(svg(figure, name, caption), caption, ("arm", "family", "corner", *pair), tuple(rows))


def _spot(found: Report, arm: str, pair: Sequence[str]) -> Spot:
    x, y = (found["points"][arm]["toward"][found["poles"][name][0]]["value"] for name in pair)
    return x, y


def _axis(poles: Sequence[str]) -> str:
    return f"← {poles[1]} | {poles[0]} →" if len(poles) > 1 else f"{poles[0]} →"


def _edge(spots: Sequence[Spot]) -> list[Spot]:
    """The edge of what the points of one front dominate, from one axis to the other."""
    far = sorted(spots, key=lambda spot: -abs(spot[0]))
    steps, height = [], 0.0
    for x, y in far:
        steps += [(x, height), (x, y)]
        height = y
    return [*steps, (0.0, height)]
