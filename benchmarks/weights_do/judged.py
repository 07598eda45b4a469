"""What the base itself says of answers: the judges of a report, of every pole alone and in soups."""

from collections.abc import Iterator, Mapping
from typing import Any

from weights_do.text import Report, luck, number, table, told, weight

LEAST = 0.05  # nats a token: shares of less are shares of nothing


def judged(report: Report) -> Iterator[str]:
    """Effects towards each pole, in nats a token, alone and in the soups that have it at the same weight."""
    judges = [each for each in report["measures"] if each["name"].startswith("judge_") and each["dimension"]]
    if not judges:
        return
    for temperature in sorted(report["results"], key=float, reverse=True):
        rows = [row for judge in judges for row in _rows(report, judge, temperature)]
        head = ("dimension", "pole", "weight", "alone", "in soups: least", "which", "mean", "kept of it")
        yield f"{luck(temperature).capitalize()}:"
        yield table(head, rows)


def _rows(report: Report, judge: Mapping[str, Any], temperature: str) -> Iterator[tuple[str, ...]]:
    found = report["results"][temperature]
    for adapter, facts in report["adapters"].items():
        if facts["dimension"] != judge["dimension"]:
            continue
        sign = 1 if facts["pole"] == judge["pole"] else -1
        soups: dict[str, dict[str, Mapping[str, float]]] = {}
        for arm in report["arms"]:
            effect = found.get(arm["name"], {}).get("measures", {}).get(judge["name"], {}).get("effect")
            if adapter in arm["weights"] and _is_plain(arm, report) and effect is not None:
                soups.setdefault(arm["weights"][adapter], {})[arm["name"]] = _toward(effect, sign)
        for word in sorted(soups, key=float):
            own = soups[word]
            alone = own.pop(f"{adapter}@{word}", None)
            if alone is None or not own:
                continue
            least = min(own, key=lambda name: own[name]["value"])
            mean = sum(each["value"] for each in own.values()) / len(own)
            kept = number(mean / alone["value"]) if alone["low"] > 0 and alone["value"] >= LEAST else "–"
            shown = (told(alone), told(own[least]), least.split("@")[0], number(mean), kept)
            yield (facts["dimension"], adapter, weight(word), *shown)


def _is_plain(arm: Mapping[str, Any], report: Report) -> bool:
    """A soup of one pole of each dimension, all at one weight, and nothing but a soup."""
    dimensions = [report["adapters"][name]["dimension"] for name in arm["weights"]]
    return (
        arm["way"] == "soup"
        and not arm["system"]
        and not arm["shots"]
        and len({*dimensions}) == len(dimensions)
        and len({*arm["weights"].values()}) == 1
    )


def _toward(effect: Mapping[str, float], sign: int) -> Mapping[str, float]:
    low, high = sorted((sign * effect["low"], sign * effect["high"]))
    return {"value": sign * effect["value"], "low": low, "high": high}
