"""The part of the page about weights: whether measures follow them, and how soups follow from their parts and from the models."""

from collections.abc import Iterator, Mapping
from typing import Any

from soupmix.evaluate.page.parts import PageTable, Section
from soupmix.evaluate.page.plots import shown

__all__ = ["faithful_part", "follows_part", "spans_part"]

Report = Mapping[str, Any]


def follows_part(report: Report) -> Section:
    """How measures follow weights."""
    tables = []
    for temperature in sorted(report["composition"], key=float):
        for method, found in report["composition"][temperature].items():
            where = f"temperature {temperature}, method {method}"
            tables += [
                PageTable(
                    ("adapter", "measure", "weights", "rank correlation"),
                    [
                        (e["adapter"], e["measure"], ", ".join(f"{step:g}" for step in e["steps"]), shown(e["rank"]))
                        for e in found["monotony"]
                    ],
                    folded=f"Does a measure rise with its weight? {where}",
                ),
                PageTable(
                    ("dimension", "measure", "weights asked", "error, share of the span"),
                    [(e["dimension"], e["measure"], str(e["asked"]), shown(e["error"])) for e in found["reached"]],
                    folded=f"How far is what is reached from what is asked? {where}",
                ),
                PageTable(
                    ("measure", "R2 of a plane", "additive"), list(_planes(found)), folded=f"Do effects add up? {where}"
                ),
            ]
    words = (
        "A weight asks for that share of what its adapter does alone at 1; the error is what soups of several dimensions "
        "miss of it, as a share of what the dimension spans. Rank correlation (Spearman) is over the weights of an "
        "adapter alone.",
    )
    tables = [each for each in tables if each.rows]
    return Section("follows", "Do answers follow the weights?", words if tables else (), tables=tables)


def _planes(found: Report) -> Iterator[tuple[str, str, str]]:
    linear = {each["measure"]: each["r2"] for each in found["linear"]}
    for each in found["additive"]:
        r2 = linear.get(each["measure"])
        if each["share"] or r2:
            yield each["measure"], shown(r2), shown(each["share"])


def spans_part(report: Report) -> Section:
    """Floors and ceilings."""
    tables = []
    for temperature in sorted(report["spans"], key=float):
        rows = [
            (
                each["adapter"],
                each["measure"],
                f"{each['floor']:.3g}",
                f"{each['ceiling']:.3g}",
                each["ceiling_of"],
                shown(each["candidates"][each["ceiling_of"]]),
                str(each["prompts"]),
            )
            for each in report["spans"][temperature]
        ]
        head = ("adapter", "measure", "floor", "ceiling", "of", "effect", "prompts")
        tables.append(PageTable(head, rows, folded=f"Floors and ceilings, temperature {temperature}"))
    words = (
        "The floor is the bare base. The ceiling is the most of the adapter alone at full weight, its preference prompt, "
        "and the texts that it was trained on, where these are given.",
    )
    tables = [each for each in tables if each.rows]
    return Section("spans", "Between which floor and ceiling", words if tables else (), tables=tables)


def faithful_part(report: Report) -> Section:
    """What was found without reading answers: perplexity of prose, distances to a mix of models, connectivity, where measured."""
    tables = []
    if "prose" in report:
        rows = [(arm, _cell(each["perplexity"])) for arm, each in report["prose"].items()]
        tables.append(PageTable(("arm", "perplexity"), rows, folded=f"Perplexity of neutral prose: {len(rows)} arms"))
    for temperature, arms in sorted(report.get("fidelity", {}).items(), key=lambda each: float(each[0])):
        rows = [
            (arm, *(_cell(each.get(name)) for name in ("kl_mod", "kl_base", "tokens"))) for arm, each in arms.items()
        ]
        head = ("soup", "nats a token from MOD", "nats a token from the base", "tokens")
        tables.append(
            PageTable(head, rows, folded=f"Distance to the mix of the single models, temperature {temperature}")
        )
    if "connectivity" in report:
        rows = [(each["soup"], _cell(each["margin"])) for each in report["connectivity"]]
        tables.append(PageTable(("soup", "margin"), rows, folded="Linear mode connectivity"))
    words = (
        "MOD mixes the log-probabilities of the single-adapter models with the same weights: a soup that is near to it "
        "loses nothing by being merged. A margin above 0 is a barrier between the parts of a soup.",
    )
    tables = [each for each in tables if each.rows]
    return Section("faithful", "Is a soup what its parts are?", words if tables else (), tables=tables)


def _cell(found: Any) -> str:
    """A figure with or without an interval, or a count."""
    if found is None or isinstance(found, Mapping):
        return shown(found)
    return str(found) if isinstance(found, int) else f"{found:.3g}"
