"""Does a soup give the text that a person with its weights prefers more probability? On texts that an evaluation holds.

    python benchmarks/preferred.py OUT [--store DIR]    OUT holds answers of `soupmix evaluate OUT` by these adapters

Of the first prompts that many arms have answered at temperature 0.7, pairs of answers by any arms are drawn for a simulated person
with the weights of a soup (`soupmix.evaluate.preferred`, after arXiv 2512.23067). Single adapters at weight 1, and soups of two and
of three at the strength that is nearest to .7; about 20 CPU-seconds a soup. Prints a table in Markdown, all soups of as many
adapters together behind them.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from soupmix.base import resolve
from soupmix.engine import Engine
from soupmix.evaluate.answered import is_plain_soup
from soupmix.evaluate.measuring import measure_samples
from soupmix.evaluate.preferred import policy_accuracy, preferred_pairs
from soupmix.evaluate.record import EvaluationRecord, held_record
from soupmix.evaluate.samples import read_samples
from soupmix.evaluate.soups import Arm
from soupmix.evaluate.statistics import wilson
from soupmix.methods import DEFAULT
from soupmix.policy import Policy
from soupmix.store import Store
from soupmix.weights import MILLION

TEMPERATURE = 0.7
MANY = 0.25  # of the arms: a run may have begun with fewer
NEAREST = 700_000
SHARES = ("base", "soup", "shift")


def soups_of(record: EvaluationRecord, most: int) -> Iterator[list[Arm]]:
    """Single adapters at weight 1, soups of two, of three, ... at the strength nearest to .7; of each at most so many, spread evenly."""
    by_size: dict[int, list[Arm]] = {}
    for arm in record.all_arms():
        if arm.weights and is_plain_soup(arm, DEFAULT) and len(set(arm.weights.values())) == 1:
            by_size.setdefault(len(arm.weights), []).append(arm)
    for size in sorted(by_size):
        goal = MILLION if size == 1 else NEAREST
        strength = min({next(iter(arm.weights.values())) for arm in by_size[size]}, key=lambda each: abs(each - goal))
        own = [arm for arm in by_size[size] if strength in arm.weights.values()]
        yield [own[place * len(own) // min(most, len(own))] for place in range(min(most, len(own)))]


def told(share: Mapping[str, float] | None) -> str:
    return "" if share is None else f"{share['value']:.2f} [{share['low']:.2f}, {share['high']:.2f}]"


def row(name: str, pairs: int, shares: Sequence[Mapping[str, float] | None]) -> None:
    print(f"| {name} | {pairs} | {' | '.join(map(told, shares))} |", flush=True)


def pooled(found: Sequence[Mapping[str, Any]], share: str) -> dict[str, float] | None:
    """Over all pairs of all soups."""
    hits = sum(round(each[share]["value"] * each["pairs"]) for each in found if each["pairs"])
    of_all = wilson(hits, sum(each["pairs"] for each in found))
    return None if of_all is None else asdict(of_all)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--prompts", type=int, default=8, help="so many prompts")
    parser.add_argument("--pairs", type=int, default=1, help="so many pairs a prompt")
    parser.add_argument("--most", type=int, default=8, help="so many soups of as many adapters")
    parser.add_argument("--store", type=Path, help="folder of adapters; the shipped ones")
    given = parser.parse_args()
    record = held_record(given.out)
    if record is None:
        parser.error(f"{given.out} holds no evaluation")
    samples = [each for each in read_samples(given.out, record) if each.temperature == TEMPERATURE]
    counts = Counter(each.prompt for each in samples)
    prompts = [each.prompt for each in record.prompts if counts[each.prompt] >= MANY * len(record.arms)][
        : given.prompts
    ]
    texts = [each for each in samples if each.prompt in prompts]
    measured = measure_samples(record, texts)
    store = Store(given.store) if given.store else Store.shipped()
    engine, policy = Engine.load(resolve(record.base.name), store, compiled=True), Policy.open(tuple(store))
    print(f"{len(prompts)} prompts, {len(texts)} answers of {len(record.arms)} arms")
    print("\n| soup | pairs | base prefers it | soup prefers it | soup adds to it |\n|---|---|---|---|---|")
    table = measured.tables[TEMPERATURE]
    for arms in soups_of(record, given.most):
        found = []
        for arm in arms:
            pairs = preferred_pairs(arm, texts, table, measured.measures, record.adapters, count=given.pairs)
            found.append(policy_accuracy(engine, arm, (policy.clamp({}), policy.clamp(arm.weights)), pairs))
            row(arm.name, found[-1]["pairs"], [found[-1][each] for each in SHARES])
        together = f"all {len(arms)} of {len(arms[0].weights)}"
        row(together, sum(each["pairs"] for each in found), [pooled(found, each) for each in SHARES])


if __name__ == "__main__":
    main()
