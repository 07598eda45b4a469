"""The plots of a report: from its JSON to SVG and the table behind it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from soupmix.evaluate.page.drawing import (
    FOREGROUND,
    LESS,
    MORE,
    MUTED,
    Series,
    draw_series,
    new_figure,
    style_of,
    svg,
)

__all__ = ["Plot", "arms_of", "cross_talk", "effects", "greedy_and_sampled", "kept", "measures_of", "shown", "told"]

_WIDE, _HIGH = 4.4, 2.9  # inches
_MOST_SHARE = 2.0  # shares beyond are drawn at the edge, and told as they are in the table

Report = Mapping[str, Any]
Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot with its table.

    Attributes:
        svg: an element of the page. caption: what it is. head: of the table. rows: of the table, as text.
    """

    svg: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def shown(found: Mapping[str, float] | None) -> str:
    """A figure with its interval, as text; all three with the decimals that the largest calls for."""
    if found is None:
        return "–"
    ends = [found[name] for name in ("value", "low", "high")]
    largest = max(map(abs, ends))
    decimals = 0 if largest >= 100 else 1 if largest >= 10 else 2 if largest >= 0.1 or not largest else 3
    value, low, high = (f"{end:.{decimals}f}" for end in ends)
    return f"{value} [{low}, {high}]"


def told(found: Mapping[str, float] | None, about: Mapping[str, Any]) -> str:
    """A figure of a measure; two decimals where it has no unit, for then it lies between -1 and 1."""
    if found is None or about["unit"]:
        return shown(found)
    value, low, high = (f"{found[name]:.2f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def arms_of(report: Report) -> dict[str, Mapping[str, Any]]:
    """The arms by name, in order."""
    return {each["name"]: each for each in report["arms"]}


def measures_of(report: Report) -> dict[str, Mapping[str, Any]]:
    """The measures by name, in order."""
    return {each["name"]: each for each in report["measures"]}


def _single_soups(report: Report) -> dict[str, dict[float, str]]:
    """Adapter -> weight -> arm, of the soups of one adapter by the first method and nothing else."""
    method = next((arm["method"] for arm in report["arms"] if arm["weights"]), "")
    found: dict[str, dict[float, str]] = {name: {} for name in report["adapters"]}
    for name, arm in arms_of(report).items():
        plain = not arm["system"] and not arm["shots"] and arm["way"] == "soup" and arm["method"] == method
        if plain and len(arm["weights"]) == 1:
            ((adapter, weight),) = arm["weights"].items()
            found[adapter][float(weight)] = name
    return found


def effects(report: Report, temperature: str, measure: str, adapters: Sequence[str]) -> Plot | None:
    """One measure against the weight of each adapter alone; the base is weight 0, prompts are dashed lines."""
    arms, singles = report["results"][temperature], _single_soups(report)
    base = _mean(arms, "base", measure)
    series, rows = [], []
    for adapter in adapters:
        steps = {0.0: "base", **dict(sorted(singles[adapter].items()))}
        points = [_mean(arms, name, measure) for name in steps.values()]
        if len(steps) > 1 and any(points[1:]):
            series.append(Series(adapter, list(steps), points))
            rows += [(adapter, f"{weight:g}", _cell(report, arms, name, measure)) for weight, name in steps.items()]
    if not series or base is None:
        return None
    about = measures_of(report)[measure]
    figure, axes = new_figure(_WIDE, _HIGH + 0.12 * len(series))
    draw_series(axes, series, shift=0.012)
    for adapter in adapters if about["dimension"] else ():
        asked = _mean(arms, f"{adapter} by prompt", measure)
        if asked is not None:
            place = [each.name for each in series].index(adapter) if adapter in [s.name for s in series] else 0
            style = {**style_of(place), "marker": "", "linestyle": ":"}
            axes.axhline(asked[0], linewidth=1, label=f"{adapter} by prompt", **style)
            rows.append((f"{adapter} by prompt", "–", _cell(report, arms, f"{adapter} by prompt", measure)))
    axes.set_title(measure, loc="left")
    axes.set_xlabel("weight of the adapter, alone")
    axes.set_ylabel(about["unit"] or "value")
    lines, names = axes.get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda place: names[place].endswith("by prompt"))
    handles, labels = [lines[place] for place in order], [names[place] for place in order]
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    name = f"effect-{measure}-{temperature}".replace(".", "_")
    caption = f"{about['title']}, temperature {temperature}"
    return Plot(svg(figure, name, caption), caption, ("arm", "weight", measure), tuple(rows))


def kept(report: Report, temperature: str, method: str, measure: str, adapter: str) -> Plot | None:
    """What is left of an adapter's effect in every soup of equal weights that has it."""
    found = list(_kept(report, temperature, method, measure, adapter))
    if not any(each["share"] for _, _, each in found):
        return None
    strengths = sorted({weight for weight, _, _ in found})
    partners = list(dict.fromkeys(others for _, others, _ in found))
    figure, axes = new_figure(_WIDE, 0.9 + 0.23 * len(partners) + 0.2)
    for number, strength in enumerate(strengths):
        style = {**style_of(number), "linestyle": ""}
        offset = 0.22 * (number - (len(strengths) - 1) / 2)
        points = [(partners.index(o) + offset, e["share"]) for w, o, e in found if w == strength and e["share"]]
        x = [_clipped(each["value"]) for _, each in points]
        left = [max(value - _clipped(each["low"]), 0) for value, (_, each) in zip(x, points, strict=True)]
        right = [max(_clipped(each["high"]) - value, 0) for value, (_, each) in zip(x, points, strict=True)]
        y = [place for place, _ in points]
        axes.errorbar(x, y, xerr=[left, right], label=f"{strength:g}", markersize=4, elinewidth=0.9, capsize=2, **style)
    for place, label in ((0.0, ":"), (1.0, "-")):
        axes.axvline(place, color=MUTED, linestyle=label, linewidth=1)
    axes.set_yticks(range(len(partners)), [f"+ {each}" for each in partners], fontsize=7)
    axes.set_ylim(len(partners) - 0.4, -0.6)
    axes.set_xlim(-_MOST_SHARE / 2, _MOST_SHARE)
    axes.set_title(f"{adapter}: {measure} kept", loc="left")
    axes.set_xlabel("effect in the soup / effect alone")
    figure.legend(loc="outside lower center", ncols=len(strengths), title="weights")
    name = f"kept-{adapter}-{measure}-{temperature}-{method}".replace(".", "_")
    caption = f"What is kept of {adapter} on {measure}, temperature {temperature}, method {method}"
    about = measures_of(report)[measure]
    rows = [
        (f"+ {others}", f"{weight:g}", shown(each["share"]), told(each["effect"], about), told(each["alone"], about))
        for weight, others, each in found
    ]
    return Plot(svg(figure, name, caption), caption, ("with", "weights", "kept", "in the soup", "alone"), tuple(rows))


def _kept(
    report: Report, temperature: str, method: str, measure: str, adapter: str
) -> Iterator[tuple[float, str, Mapping[str, Any]]]:
    """(weight, other adapters, entry) of the soups in which all weights are equal."""
    dimension = report["adapters"][adapter]["dimension"]
    for each in report["composition"][temperature].get(method, {}).get("kept", ()):
        weights = arms_of(report)[each["soup"]]["weights"]
        ours = (each["measure"], each["dimension"]) == (measure, dimension) and adapter in weights
        if ours and len(set(weights.values())) == 1:
            yield float(weights[adapter]), " + ".join(name for name in weights if name != adapter), each


def cross_talk(report: Report, temperature: str, method: str, measures: Sequence[str]) -> Plot | None:
    """What every adapter at its largest weight alone does to all measures, as shares of what they span."""
    singles = {name: max(steps.items())[1] for name, steps in _single_soups(report).items() if steps}
    entries = {
        (each["soup"], each["measure"]): each
        for each in report["composition"][temperature].get(method, {}).get("cross_talk", ())
    }
    rows = {adapter: [entries.get((arm, measure)) for measure in measures] for adapter, arm in singles.items()}
    if not any(any(row) for row in rows.values()):
        return None
    figure, axes = new_figure(max(_WIDE, 1.6 + 0.52 * len(measures)), 1.3 + 0.28 * len(rows))
    for place, (adapter, row) in enumerate(rows.items()):
        for column, entry in enumerate(row):
            _draw_cell(
                axes,
                place,
                column,
                entry,
                report["adapters"][adapter]["dimension"],
                measures_of(report)[measures[column]],
            )
    axes.set_xticks(range(len(measures)), measures, rotation=40, ha="right", rotation_mode="anchor", fontsize=7)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=7)
    axes.set_xlim(-0.5, len(measures) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False)
    axes.set_title("cross-talk, share of the span", loc="left")
    name = f"cross-{temperature}-{method}".replace(".", "_")
    caption = f"Cross-talk at the largest weight, temperature {temperature}, method {method}; empty: its own dimension"
    table = [
        (adapter, *("" if entry is None else shown(entry["share"]) for entry in row)) for adapter, row in rows.items()
    ]
    return Plot(svg(figure, name, caption), caption, ("adapter", *measures), tuple(table))


def _draw_cell(
    axes: Any, row: int, column: int, entry: Mapping[str, Any] | None, dimension: str, measure: Mapping[str, Any]
) -> None:
    if measure["dimension"] == dimension or entry is None:
        return
    share = entry["share"]
    if share is None:
        axes.text(column, row, "–", ha="center", va="center", fontsize=7, color=MUTED)
        return
    sure = share["low"] > 0 or share["high"] < 0
    opacity = min(abs(share["value"]), 1.0) * 0.7 if sure else 0.0
    axes.fill(
        [column - 0.48, column + 0.48, column + 0.48, column - 0.48],
        [row - 0.46, row - 0.46, row + 0.46, row + 0.46],
        color=MORE if share["value"] > 0 else LESS,
        alpha=opacity,
        linewidth=0,
    )
    text = f"{share['value']:+.2f}".replace("0.", ".", 1)
    axes.text(column, row, text, ha="center", va="center", fontsize=7, color=FOREGROUND if sure else MUTED)


def greedy_and_sampled(report: Report, measure: str) -> Plot | None:
    """The effect of every arm at temperature 0 against that at the highest other one."""
    others = [each for each in report["results"] if float(each) > 0]
    if "0" not in report["results"] or not others:
        return None
    other = max(others, key=float)
    groups: dict[int, list[tuple[str, Mapping[str, float], Mapping[str, float]]]] = {}
    for name, arm in arms_of(report).items():
        greedy, sampled = (_effect(report["results"][each], name, measure) for each in ("0", other))
        plain = not arm["system"] and not arm["shots"] and arm["way"] == "soup"
        if greedy and sampled and plain and arm["weights"]:
            groups.setdefault(len(arm["weights"]), []).append((name, greedy, sampled))
    if not groups:
        return None
    figure, axes = new_figure(_WIDE, _HIGH + 0.2)
    for number, (size, points) in enumerate(sorted(groups.items())):
        style = {**style_of(number), "linestyle": ""}
        x, y = [greedy["value"] for _, greedy, _ in points], [sampled["value"] for _, _, sampled in points]
        axes.plot(x, y, label=f"{size} adapter{'s' * (size > 1)}", markersize=4, alpha=0.85, **style)
    axes.axline((0, 0), slope=1, color=MUTED, linewidth=0.8)
    axes.set_title(f"{measure}: greedy against sampled", loc="left")
    axes.set_xlabel("effect at temperature 0")
    axes.set_ylabel(f"effect at {other}")
    figure.legend(loc="outside lower center", ncols=3)
    caption = f"Effects on {measure}, greedy against temperature {other}; on the line both are equal"
    about = measures_of(report)[measure]
    rows = [
        (n, told(greedy, about), told(sampled, about)) for points in groups.values() for n, greedy, sampled in points
    ]
    made = svg(figure, f"greedy-{measure}", caption)
    return Plot(made, caption, ("soup", "greedy", f"temperature {other}"), tuple(rows))


def _entry(arms: Report, name: str, measure: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = arms.get(name, {}).get("measures", {}).get(measure, {})
    return found


def _mean(arms: Report, name: str, measure: str) -> Point | None:
    found = _entry(arms, name, measure).get("mean")
    return None if found is None else (found["value"], found["low"], found["high"])


def _cell(report: Report, arms: Report, name: str, measure: str) -> str:
    return told(_entry(arms, name, measure).get("mean"), measures_of(report)[measure])


def _effect(arms: Report, name: str, measure: str) -> Mapping[str, float] | None:
    found: Mapping[str, float] | None = _entry(arms, name, measure).get("effect")
    return found


def _clipped(share: float) -> float:
    return max(-_MOST_SHARE / 2, min(share, _MOST_SHARE))
