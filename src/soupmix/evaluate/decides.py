"""What decides whether soups compose: the least that is left of a dimension in any soup, and the worst that is done to answers.

Soups of several dimensions count in which every adapter has the same weight and no dimension has two: pairs and corners.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soupmix.evaluate.answered import is_plain_soup
from soupmix.evaluate.composition import CrossTalk, Effects, cross_talk
from soupmix.evaluate.index import Index
from soupmix.evaluate.record import AdapterFacts, EvaluationRecord
from soupmix.evaluate.statistics import Estimate, estimate, ratio
from soupmix.weights import decimal_text

__all__ = ["DAMAGE", "decides"]

DAMAGE: Mapping[str, int] = {"on_topic": 1, "loop": -1}
"""Measures of damage that are told beside what soups reach -> whether more is better or less."""

_ANY = 0.2  # standard deviations, a small effect by Cohen 1988

Numbers = NDArray[np.float64]


def decides(record: EvaluationRecord, index: Index) -> dict[str, Any]:
    """Method -> strength -> {"soups", "dimensions", "cross_talk", "damage"}, with `Estimate`s for figures.

    Of a dimension {"worst": {"soup", "share"}, "shares": soup -> share, "kept", "untold", "any", "any_alone"}: the soup that
    keeps the least, what is kept in all of them together, in how many the effect alone cannot be told from nothing or too few
    prompts tell anything (`LEAST_PROMPTS`), and the share of answers that lie towards the adapter's pole by a fifth of a
    standard deviation, in that soup and alone. Cross-talk is of each adapter alone, above 0 towards the first pole of the
    dimension. Of a measure of damage {"soup", "effect"}.
    """
    found = {}
    for method in dict.fromkeys(each.method for each in record.arms if each.weights):
        arms = [each for each in record.all_arms() if each.name in index.answered.arms and is_plain_soup(each, method)]
        adapters = {name: facts.dimension for name, facts in record.adapters.items()}
        effects = Effects.of(
            index.table(),
            {each.name: each.weights for each in arms},
            index.answered.record_prompts,
            index.answered.draws,
            adapters=adapters,
            measures={name: name for name in index.poles},
        )
        strengths = _strengths(effects)
        if strengths:
            across = tuple(cross_talk(effects))
            found[method] = {
                word: _of_strength(effects, index, soups, across, record.adapters) for word, soups in strengths.items()
            }
    return found


def _strengths(effects: Effects) -> dict[str, list[str]]:
    """Strength -> the soups of several dimensions, one adapter of each, that all have it."""
    found: dict[int, list[str]] = {}
    for soup, weights in effects.soups.items():
        parts, values = effects.dimensions(soup), set(weights.values())
        if len(parts) == len(weights) > 1 and len(values) == 1:
            found.setdefault(values.pop(), []).append(soup)
    return {decimal_text(micro): found[micro] for micro in sorted(found)}


def _of_strength(
    effects: Effects,
    index: Index,
    soups: Sequence[str],
    across: Sequence[CrossTalk],
    adapters: Mapping[str, AdapterFacts],
) -> dict[str, Any]:
    strengths = {micro for soup in soups for micro in effects.soups[soup].values()}
    return {
        "soups": len(soups),
        "dimensions": dict(_dimensions(effects, index, soups, adapters)),
        "cross_talk": [
            {"soup": each.soup, "dimension": each.dimension, "share": each.share}
            for each in across
            if len(effects.soups[each.soup]) == 1 and {*effects.soups[each.soup].values()} == strengths
        ],
        "damage": dict(_damage(index, soups)),
    }


def _dimensions(
    effects: Effects, index: Index, soups: Sequence[str], adapters: Mapping[str, AdapterFacts]
) -> Iterator[tuple[str, Any]]:
    for dimension in index.poles:
        shares: dict[str, Estimate | None] = {}
        whole, alone, singles, signs = [], [], {}, {}
        for soup in soups:
            part = effects.dimensions(soup).get(dimension)
            single = None if part is None else effects.named(part)
            if part is not None and single is not None:
                singles[soup], signs[soup] = single, index.toward(dimension, adapters[next(iter(part))].pole)
                shares[soup] = None
                if not effects.has_enough([soup, single], dimension):
                    continue
                in_soup, by_itself = effects.on_all([soup, single], dimension)
                shares[soup] = ratio(in_soup, by_itself)
                whole.append(in_soup * signs[soup])
                alone.append(by_itself * signs[soup])
        told = {soup: share for soup, share in shares.items() if share is not None}
        if not shares:
            continue
        worst = min(told, key=lambda soup: (told[soup].value, soup)) if told else None
        yield (
            dimension,
            {
                "worst": None if worst is None else {"soup": worst, "share": told[worst]},
                "kept": ratio(np.sum(whole, axis=0), np.sum(alone, axis=0)) if whole else None,
                "untold": len(shares) - len(told),
                "shares": shares,
                "any": None if worst is None else _any(index, worst, dimension, signs[worst]),
                "any_alone": None if worst is None else _any(index, singles[worst], dimension, signs[worst]),
            },
        )


def _any(index: Index, soup: str, dimension: str, sign: int) -> Estimate | None:
    """Share of answers that lie towards a pole."""
    cells = index.cells[soup][:, list(index.poles).index(dimension)] * sign
    return index.answered.draws.mean(np.where(np.isnan(cells), np.nan, cells > _ANY))


def _damage(index: Index, soups: Sequence[str]) -> Iterator[tuple[str, Any]]:
    answered = index.answered
    for name, better in DAMAGE.items():
        if name in answered.measures:
            place = answered.measures.index(name)
            rows: dict[str, Numbers] = {}
            for soup in soups:
                effects = answered.effects(soup)
                if effects is not None:
                    rows[soup] = effects[:, place]
            worst = min(rows, key=lambda soup: (better * rows[soup][0], soup))
            yield name, {"soup": worst, "effect": estimate(rows[worst])}
