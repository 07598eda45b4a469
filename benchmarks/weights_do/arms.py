"""What single arms and families of them do: alone, by every means, and how far they reach."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weights_do.text import UNITS, Report, bare, folded, luck, number, table, told, weight


def alone_table(report: Report, temperature: str) -> str:
    """Each adapter alone, and its prompt, by a measure of its dimension."""
    measures = {each["name"]: each for each in report["measures"]}
    arms, rows = report["results"][temperature], []
    steps = steps_of(report)
    for adapter, facts in report["adapters"].items():
        name = measure_of(facts, measures)
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


def measure_of(facts: Report, measures: Mapping[str, Report]) -> str:
    """Whether its pole occurs at all, or the first measure of its dimension."""
    own = [name for name, each in measures.items() if each["dimension"] == facts["dimension"]]
    at_all = [name for name in own if name.endswith("_at_all") and measures[name]["pole"] == facts["pole"]]
    return next(iter([*at_all, *(name for name in ("grade", "words") if name in own), *own]), "")


def steps_of(report: Report) -> list[str]:
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
