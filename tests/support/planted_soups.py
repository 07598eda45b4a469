"""Soups whose effects somebody wrote down: tables, and the map that is fitted on them."""

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np

from soupmix.evaluate.record import AdapterFacts
from soupmix.evaluate.surface import Mapped, MeasuredSoups, fit_surface
from soupmix.store.manifest import ManifestEntry
from soupmix.surface import SurfaceDocument
from soupmix.weights import Weights

BASE = "sha256:" + "b" * 64
REPORT = "sha256:" + "e" * 64
DIMENSIONS = {"easy": "level", "hard": "level", "short": "length", "long": "length", "warm": "tone"}
MEASURES = {
    "grade": Mapped("Reading grade", "grade", "level"),
    "words": Mapped("Words", "words", "length", log=True),
    "warmth": Mapped("Warmth", "", "tone"),
}
Rule = Callable[[Mapping[str, float]], Mapping[str, float]]


def entry(name: str, dimension: str = "", *, base: str = BASE) -> ManifestEntry:
    """An entry of a manifest; its digest follows from its name."""
    hexed = name.encode().hex().ljust(64, "0")[:64]
    return ManifestEntry(
        name=name,
        dimension=dimension or DIMENSIONS[name],
        pole=name,
        rank=4,
        alpha=4.0,
        scaling="lora",
        target_modules=("q_proj",),
        config_sha256=hexed,
        tensors_sha256=hexed,
        base="base",
        base_digest=base,
        licence="apache-2.0",
        delta_norm=1.0,
    )


ENTRIES = [entry(name) for name in DIMENSIONS]


def facts(entries: Iterable[ManifestEntry]) -> dict[str, AdapterFacts]:
    """Adapters as an evaluation knows them."""
    return {each.name: AdapterFacts(digest=each.digest, dimension=each.dimension, pole=each.pole) for each in entries}


def rule(w: Mapping[str, float]) -> dict[str, float]:
    """Grade 10, 90 words, no warmth, and what adapters do to that; `warm` half as much beside a full `short`."""
    short, warm = w.get("short", 0.0), w.get("warm", 0.0)
    return {
        "grade": 10.0 - 4.0 * w.get("easy", 0.0) + 5.0 * w.get("hard", 0.0) - 1.0 * warm,
        "words": 90.0 * np.exp(-1.5 * short + 0.5 * w.get("long", 0.0)),
        "warmth": 6.0 * warm * (1.0 - 0.5 * short),
    }


def soups() -> dict[str, Weights]:
    """The base, five adapters alone at four weights, pairs of two dimensions at .5 and 1, triples at .5."""
    found: list[dict[str, float]] = [{}, *({name: step} for name in DIMENSIONS for step in (0.25, 0.5, 0.75, 1.0))]
    for count, steps in ((2, (0.5, 1.0)), (3, (0.5,))):
        for names in itertools.combinations(DIMENSIONS, count):
            if len({DIMENSIONS[name] for name in names}) == count:
                found += [dict.fromkeys(names, step) for step in steps]
    return {str(w) or "base": w for w in map(Weights, found)}


def measured(by: Rule = rule, *, noise: float = 0.0, prompts: int = 20, seed: int = 0) -> MeasuredSoups:
    """Answers that follow a rule; prompts differ (by 2 grades, a factor e^.2, 1 of warmth), and answers by `noise` times that."""
    luck = np.random.RandomState(seed)
    names = [f"question {number}" for number in range(prompts)]
    level = dict(zip(names, luck.standard_normal((prompts, 3)), strict=True))
    table = {}
    for arm, weights in soups().items():
        for prompt in names:
            off = level[prompt] + noise * luck.standard_normal(3)
            found = by(weights.floats())
            table[arm, prompt] = {
                "grade": found["grade"] + 2.0 * off[0],
                "words": found["words"] * np.exp(0.2 * off[1]),
                "warmth": found["warmth"] + off[2],
            }
    return MeasuredSoups(table, soups(), names, BASE, REPORT, "delta", 0.7, 128)


def document(by: Rule = rule, *, noise: float = 0.5, seed: int = 0) -> SurfaceDocument:
    """The map that is fitted on these answers."""
    return fit_surface(measured(by, noise=noise, seed=seed), facts(ENTRIES), MEASURES)


def late(w: Mapping[str, float]) -> dict[str, float]:
    """As `rule`, but half of what `easy` does comes at weight .71, a quarter at .5."""
    easy = w.get("easy", 0.0)
    return {**rule(w), "grade": rule({**w, "easy": easy**2})["grade"]}


def document_over(entries: Collection[ManifestEntry], names: Mapping[str, str], by: Rule = rule) -> SurfaceDocument:
    """The map of a rule over adapters of a store: of those planted ones that have a name there."""
    planted, by_name = measured(by, noise=0.2), {each.name: each for each in entries}
    chosen = {
        arm: Weights({names[name]: value for name, value in weights.floats().items()})
        for arm, weights in planted.soups.items()
        if set(weights) <= set(names)
    }
    home = {DIMENSIONS[name]: by_name[other].dimension for name, other in names.items()}
    measures = {
        name: replace(each, dimension=home[each.dimension]) for name, each in MEASURES.items() if each.dimension in home
    }
    base = next(iter(by_name.values())).base_digest
    return fit_surface(replace(planted, soups=chosen, base_digest=base), facts(entries), measures)
