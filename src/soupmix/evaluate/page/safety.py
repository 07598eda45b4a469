"""The part of the page that tells of the safety audit."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from soupmix.evaluate.page.parts import PageTable, Section
from soupmix.evaluate.page.plots import shown

__all__ = ["safety_part"]

Report = Mapping[str, Any]

_PARAGRAPHS = (
    "Every vertex of what the policy lets through, random points inside it, and the bare base beside them. The worst of many "
    "points looks worse than it is: an interval is of one point. Differences to the base are paired.",
)


def safety_part(report: Report) -> Section:
    """The section; empty where no audit was made."""
    found = report.get("safety")
    if found is None:
        return Section("safety", "Safety")
    tables = [
        _worst(found),
        _categories(found),
        *_pressures(found),
        _biases(found),
        _sweeps(found),
        *_accuracy(found),
        _drift(found),
        _points(found),
    ]
    return Section("safety", "Safety over the feasible set", _PARAGRAPHS, found["cannot_show"], tables)


def _worst(found: Report) -> PageTable:
    head = (
        "measure",
        "better",
        "base",
        "worst vertex",
        "there",
        "against base",
        "worst inside",
        "there",
        "against base",
    )
    rows = []
    for about in found["measures"]:
        worst, cells = found["worst"][about["name"]], []
        for place in ("vertex", "interior"):
            there = worst.get(place)
            cells += [there["point"], _shown(there), _shown(there["against_base"])] if there else ["–"] * 3
        rows.append((about["title"], "more" if about["better"] > 0 else "less", _shown(worst["base"]), *cells))
    return PageTable(head, rows, "Base, worst vertex and worst point inside")


def _categories(found: Report) -> PageTable:
    head = ("category", "ought to", "base refused", "vertices refused", "points inside refused")
    rows = [
        (category, ought, *(_of(counts.get(place)) for place in ("base", "vertex", "interior")))
        for category, of in sorted(found["categories"].items())
        for ought, counts in sorted(of.items(), reverse=True)
    ]
    return PageTable(head, rows, "Refusals by category, greedy")


def _pressures(found: Report) -> Iterator[PageTable]:
    head = ("measure", "turn", "nothing", "prompt", "soup", "prompt and soup")
    for each in found["pressure"]:
        rows = [
            (
                name,
                turn,
                _shown(held["nothing"]),
                *(_shown(held["changed"][way]) for way in ("prompt", "soup", "prompt+soup")),
            )
            for name, measure in each["measures"].items()
            for turn, held in sorted(measure["turns"].items(), key=lambda pair: int(pair[0]))
        ]
        title = f"{each['adapter']} at {each['weight']} while {each['asked_for']} is asked for, {each['questions']} questions"
        yield PageTable(head, rows, title, f"{each['adapter']}: what each way changes; turn 0 is without pressure")


def _biases(found: Report) -> PageTable:
    rows = [
        (place, str(each["points"]), *(f"{each[name]:.3f}" for name in ("utility", "safety", "both")))
        for place, each in found["personalisation_bias"].items()
    ]
    return PageTable(("over", "points", "utility", "safety", "both"), rows, "Personalisation bias")


def _sweeps(found: Report) -> PageTable:
    rows = [
        (name, each["weight"], f"{each['perplexity']:.3f}", f"{each['kl']:.4f}")
        for name, swept in found["sweeps"].items()
        for each in swept["weights"]
    ]
    head = ("adapter alone", "weight", "perplexity against base", "KL from base, nats a token")
    return PageTable(head, rows, "Along the weight of each adapter, on neutral prose")


def _accuracy(found: Report) -> Iterator[PageTable]:
    rows = [
        (name, str(each["pairs"]), *(_shown(each[kind]) for kind in ("base", "soup", "shift")))
        for name, each in found.get("policy_accuracy", {}).items()
    ]
    if rows:
        yield PageTable(("person", "pairs", "base", "soup", "what the soup adds"), rows, "Policy accuracy")


def _drift(found: Report) -> PageTable:
    factors = list(found["value_drift"]["base"])
    rows = [(name, *(f"{each[f]:+.2f}" for f in factors)) for name, each in found["value_drift"].items()]
    return PageTable(("point", *factors), rows, folded="Drift of value words, nats against the base")


def _points(found: Report) -> PageTable:
    names = [each["name"] for each in found["measures"]]
    rows = [
        (point, found["points"][point]["place"], *(_shown(each[name]) for name in names))
        for point, each in found["results"].items()
    ]
    return PageTable(("point", "where", *names), rows, folded=f"All {len(rows)} points")


def _shown(found: Mapping[str, Any] | None) -> str:
    """A figure; without an interval where it has none."""
    if found is None:
        return "–"
    if found.get("low") is None:
        return f"{found['value']:.3g}"
    return shown({name: found[name] for name in ("value", "low", "high")})


def _of(counts: Sequence[int] | None) -> str:
    return "–" if counts is None else f"{counts[0]} of {counts[1]}"
