"""The part of the page that says whether soups compose: the worst of all soups, by name."""

from collections.abc import Iterator, Mapping
from typing import Any

from soupmix.evaluate.page.parts import PageTable, Section
from soupmix.evaluate.page.plots import measures_of, told

__all__ = ["decided_part", "verdicts"]

Report = Mapping[str, Any]

_PARAGRAPHS = (
    "Over all pairs and corners whose adapters have the same weight: the soup in which least is left of a dimension, by "
    "all measures of it together. Kept is the effect in the soup over the effect alone at the same weight: 1 is all of "
    "it, 0 none, below 0 the opposite. The least of many looks worse than it is; an interval is of one soup. Some effect "
    "has an answer that lies towards the pole by a fifth of a standard deviation.",
)


def decided_part(report: Report) -> Section:
    """The section; empty where no soup mixes dimensions."""
    kept = PageTable(
        (
            "temperature",
            "method",
            "weights",
            "dimension",
            "least kept",
            "in",
            "kept in all",
            "some effect there",
            "alone",
        ),
        list(_kept(report)),
        "What is left of each dimension in the worst soup",
    )
    damage = PageTable(
        ("temperature", "method", "weights", "measure", "less the base", "in"),
        list(_damage(report)),
        "What is done to answers in the worst soup",
    )
    across = PageTable(
        ("temperature", "method", "weight", "adapter alone", "moves towards", "by, share of its span"),
        list(_across(report)),
        folded="What each adapter does to other dimensions",
    )
    return Section(
        "decides",
        "Do these soups compose?",
        _PARAGRAPHS,
        list(verdicts(report)),
        [t for t in (kept, damage, across) if t.rows],
    )


def _found(report: Report) -> Iterator[tuple[str, str, str, Report]]:
    """(temperature, method, strength, what was found) in order."""
    for temperature in sorted(report.get("decides", {}), key=float):
        for method, strengths in report["decides"][temperature].items():
            for strength in sorted(strengths, key=float):
                yield temperature, method, strength, strengths[strength]


def verdicts(report: Report) -> Iterator[str]:
    """A sentence for every temperature, method and strength: what composes least."""
    for temperature, method, strength, found in _found(report):
        worst = {name: each["worst"] for name, each in found["dimensions"].items() if each["worst"]}
        if worst:
            said = "; ".join(
                f"{name} {each['share']['value']:.2f} [{each['share']['low']:.2f}, {each['share']['high']:.2f}] in {each['soup']}"
                for name, each in worst.items()
            )
            yield f"At temperature {temperature}, {method}, weights {strength}, {found['soups']} soups, least kept: {said}."


def _kept(report: Report) -> Iterator[tuple[str, ...]]:
    for temperature, method, strength, found in _found(report):
        for name, each in found["dimensions"].items():
            worst = each["worst"]
            yield (
                temperature,
                method,
                strength,
                name,
                _share(worst["share"]) if worst else "–",
                worst["soup"] if worst else "–",
                _share(each["kept"]),
                _share(each["any"]),
                _share(each["any_alone"]),
            )


def _damage(report: Report) -> Iterator[tuple[str, ...]]:
    for temperature, method, strength, found in _found(report):
        for name, each in found["damage"].items():
            about = measures_of(report)[name]
            yield temperature, method, strength, about["title"], told(each["effect"], about), each["soup"]


def _across(report: Report) -> Iterator[tuple[str, ...]]:
    for temperature, method, strength, found in _found(report):
        for each in found["cross_talk"]:
            pole = report["fronts"][temperature]["poles"][each["dimension"]][0]
            yield temperature, method, strength, each["soup"], f"{pole} ({each['dimension']})", _share(each["share"])


def _share(found: Mapping[str, float] | None) -> str:
    return "–" if found is None else f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
