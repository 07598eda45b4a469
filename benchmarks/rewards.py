"""How well adapters tell their own dimension as implicit rewards, beside the measures of texts that know it.

    python benchmarks/rewards.py [--prompts 12] [--store DIR]

Both poles of a dimension answer the same held-out prompts at weight .7 and temperature .7, 64 tokens at most. Told is the share of
prompts for which the answer of the first pole has more of it than that of the other, with a Wilson interval: by the reward, and
by the best of the measures of texts in the store's map, which was fitted on other answers. Prints a table in Markdown, and the
processor time of a measured text.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from soupmix.base import resolve
from soupmix.engine import Engine
from soupmix.errors import PreferenceError
from soupmix.evaluate import held_out_prompts
from soupmix.evaluate.measures import measure_text
from soupmix.evaluate.measures.here import measures_here
from soupmix.evaluate.promptset import Prompt
from soupmix.evaluate.rewarding import values_of
from soupmix.evaluate.statistics import wilson
from soupmix.policy import Grant, Policy
from soupmix.preference.reach import traits_of
from soupmix.preference.rewards import Reward, rewards
from soupmix.store import Store
from soupmix.store.manifest import shipped_root
from soupmix.surface import Surface
from soupmix.weights import Weights

STRENGTH = "0.7"
FIRST = 40  # of the held-out prompts: the map was fitted on those before


def answers(engine: Engine, allow: Callable[[Weights], Grant], reward: Reward, asked: list[str]) -> list[list[str]]:
    """Of both poles a text per prompt."""
    grants = [allow(Weights({name: STRENGTH})) for name in reward.adapters for _ in asked]
    texts = engine.generate(asked * 2, grants, max_new_tokens=64, temperature=0.7)
    return [texts[: len(asked)], texts[len(asked) :]]


def told(first: list[float], other: list[float]) -> str:
    """How often the first has more."""
    sure = wilson(sum(a > b for a, b in zip(first, other, strict=True)), len(first))
    return "" if sure is None else f"{sure.value:.2f} ({sure.low:.2f} to {sure.high:.2f})"


def by_text(key: str, sign: int, asked: list[str], texts: list[str]) -> list[float]:
    found = [
        measure_text(Prompt(p, "", ()), t, True, only={key}).get(key, 0.0) for p, t in zip(asked, texts, strict=True)
    ]
    return [sign * each for each in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=12, help="so many")
    parser.add_argument("--store", type=Path, help="folder of adapters; the shipped ones")
    given = parser.parse_args()
    store = Store(given.store) if given.store else Store.shipped()
    engine, allow = Engine.load(resolve(next(iter(store)).base), store, compiled=True), Policy.open(tuple(store)).clamp
    surface = Surface.beside(given.store or shipped_root(), store)
    try:
        known = {each.name: each.key for each in traits_of(surface, measures_here()).axes}
    except PreferenceError:
        known = {}
    asked = [each.text for each in held_out_prompts()][FIRST : FIRST + given.prompts]
    every = rewards(next(iter(store)).base_digest, {each.name: each for each in store})
    print("| dimension | poles | by the reward | by a measure of texts |\n|---|---|---|---|")
    seconds, count = 0.0, 0
    for reward in (each for each in every if each.against):
        texts = answers(engine, allow, reward, asked)
        start = time.process_time()
        pairs = [(p, t) for of in texts for p, t in zip(asked, of, strict=True)]
        values = [each.get(reward.name, 0.0) for each in values_of(engine, allow, pairs, [reward])]
        seconds, count = seconds + time.process_time() - start, count + len(pairs)
        measured = ""
        if (key := known.get(reward.dimension)) is not None:
            ends = [surface.expect(Weights({name: 1}))[key].value for name in reward.adapters]
            sign = 1 if ends[0] > ends[1] else -1
            measured = f"`{key}` {told(*(by_text(key, sign, asked, of) for of in texts))}"
        print(
            f"| {reward.dimension} | {' against '.join(reward.adapters)} | {told(values[: len(asked)], values[len(asked) :])} | {measured} |",
            flush=True,
        )
    print(f"\n{1000 * seconds / max(count, 1):.0f} CPU-milliseconds a text")


if __name__ == "__main__":
    main()
