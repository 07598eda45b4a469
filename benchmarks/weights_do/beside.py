"""Before and now: two reports of one evaluation side by side, such as of adapters before and after a training."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weights_do.arms import measure_of, steps_of
from weights_do.composed import HALF, NOT, decided, nearest, verdict
from weights_do.text import UNITS, Figure, Report, bare, folded, luck, plain, table, told, weight

DAMAGE = ("on_topic", "loop")


def beside(before: Report, now: Report) -> Iterator[str]:
    """What was and what is: per dimension, in every pair and corner, and of each adapter alone."""
    yield " ".join(_of_what(before, now))
    old, new = _by_key(before), _by_key(now)
    both = [key for key in new if key in old]
    if not both:
        yield "The two reports have no soups of several dimensions by one method at one strength in common."
        return
    yield f"Before: {_said(before)} Now: {_said(now)}"
    yield table(_HEAD, [row for key in both for row in _summary(key, old[key], new[key])])
    shown = nearest(now)
    for key in both:
        temperature, method, strength = key
        name = f"Every pair and corner at {weight(strength)} by {method}, {luck(temperature)}"
        kept = table(*_kept(old[key], new[key]))
        reached = table(*_reached(before, now, temperature, [*new[key]["dimensions"]], _soups(old[key], new[key])))
        if (method, strength) == shown:
            yield f"{name}: what is kept, before → now."
            yield kept
            yield "What answers of these soups are, and of the base, before → now:"
            yield reached
        else:
            yield folded(name, f"{kept}\n\n{reached}")
    for temperature in dict.fromkeys(key[0] for key in both):
        yield f"Each pole alone, {luck(temperature)}, before → now:"
        yield table(*_alone(before, now, temperature))


_HEAD = ("", "method", "weights", "dimension", "least before", "least now", "all before", "all now", "half lost in")


def _of_what(before: Report, now: Report) -> Iterator[str]:
    """What is compared, and what is not alike besides the adapters."""
    old, new = before["adapters"], now["adapters"]
    changed = sorted(name for name in new if name in old and old[name]["digest"] != new[name]["digest"])
    others = sorted(old.keys() ^ new.keys())
    yield f"Before is report `{before['digest']}`, now is report `{now['digest']}`."
    yield f"Other bytes have {', '.join(changed)}." if changed else "No adapter that both have changed."
    if others:
        yield f"Only one of them has {', '.join(others)}."
    if before["prompts"]["digest"] != now["prompts"]["digest"]:
        yield f"**The prompts are not the same** ({before['prompts']['count']} and {now['prompts']['count']})."
    unlike = [name for name, value in now["limits"].items() if before["limits"].get(name) != value]
    if before["base"]["digest"] != now["base"]["digest"]:
        unlike.append("base")
    if unlike:
        yield f"**Not the same either: {', '.join(unlike)}.**"


def _said(report: Report) -> str:
    chosen = nearest(report)
    return verdict([each for *key, each in decided(report) if tuple(key[1:]) == chosen])


def _by_key(report: Report) -> dict[tuple[str, str, str], Report]:
    return {(temperature, method, strength): each for temperature, method, strength, each in decided(report)}


def _summary(key: tuple[str, str, str], old: Report, new: Report) -> Iterator[tuple[str, ...]]:
    temperature, method, strength = key
    for name in new["dimensions"]:
        pair = [each["dimensions"].get(name) for each in (old, new)]
        lost = " → ".join("–" if one is None else _lost(one) for one in pair)
        figures = (*(_worst(one) for one in pair), *(bare(one["kept"]) if one else "–" for one in pair), lost)
        yield (luck(temperature), method, weight(strength), name, *figures)


def _worst(one: Report | None) -> str:
    worst = one and one["worst"]
    return f"{told(worst['share'])}<br>{plain(worst['soup'])}" if worst else NOT


def _lost(one: Report) -> str:
    told_of = [share for share in one["shares"].values() if share]
    return f"{sum(share['value'] < HALF for share in told_of)} of {len(told_of)}"


def _soups(*found: Report) -> list[str]:
    """Pairs, then corners, by name, of all reports."""
    names = {soup for each in found for one in each["dimensions"].values() for soup in one["shares"]}
    return sorted(names, key=lambda name: (name.count("+"), name))


def _kept(old: Report, new: Report) -> tuple[Sequence[str], list[tuple[str, ...]]]:
    dimensions = list(new["dimensions"])
    rows = []
    for soup in _soups(old, new):
        shares = (
            tuple(each["dimensions"].get(name, {}).get("shares", {}) for each in (old, new)) for name in dimensions
        )
        cells = (
            _arrow(*(told(own.get(soup)) for own in pair)) if any(soup in own for own in pair) else ""
            for pair in shares
        )
        rows.append((plain(soup), *cells))
    return ("soup", *dimensions), rows


def _reached(
    before: Report, now: Report, temperature: str, dimensions: Sequence[str], soups: Sequence[str]
) -> tuple[Sequence[str], list[tuple[str, ...]]]:
    """Of every adapter of a soup the measure of its dimension, in units, and what damage there is."""
    measures = {each["name"]: each for each in now["measures"]}
    rows = []
    for soup in ("base", *soups):
        pair = [report["results"][temperature].get(soup, {}).get("measures", {}) for report in (before, now)]
        cells = []
        for dimension in dimensions:
            parts = [] if soup == "base" else plain(soup).split("+")
            own = [
                now["adapters"][part] for part in parts if now["adapters"].get(part, {}).get("dimension") == dimension
            ]
            names = [measure_of(facts, measures) for facts in own] or _of_base(now, dimension, measures)
            cells.append("<br>".join(_moved(name, pair) for name in names) if own or soup == "base" else "")
        rows.append((plain(soup), *cells, *(_moved(name, pair, named=False) for name in DAMAGE)))
    return ("soup", *dimensions, *(name.replace("_", " ") for name in DAMAGE)), rows


def _of_base(now: Report, dimension: str, measures: Mapping[str, Report]) -> list[str]:
    own = [facts for facts in now["adapters"].values() if facts["dimension"] == dimension]
    return list(dict.fromkeys(measure_of(facts, measures) for facts in own))


def _moved(name: str, pair: Sequence[Mapping[str, Any]], *, named: bool = True) -> str:
    means: list[Figure] = [each.get(name, {}).get("mean") for each in pair]
    cell = _arrow(*(bare(each, UNITS.get(name, 2)) for each in means))
    return f"{name.replace('_', ' ')} {cell}" if named else cell


def _alone(before: Report, now: Report, temperature: str) -> tuple[Sequence[str], list[tuple[str, ...]]]:
    measures = {each["name"]: each for each in now["measures"]}
    steps = steps_of(now)
    rows = []
    for adapter, facts in now["adapters"].items():
        name = measure_of(facts, measures)
        arms = ["base", *(f"{adapter}@{step}" for step in steps)]
        found = [[r["results"][temperature].get(arm, {}).get("measures", {}) for r in (before, now)] for arm in arms]
        rows.append((adapter, name.replace("_", " "), *(_moved(name, pair, named=False) for pair in found)))
    return ("pole", "measure", "base", *(f"at {weight(step)}" for step in steps)), rows


def _arrow(one: str, other: str) -> str:
    return f"{one} → {other}"
