"""The same soup at load time, recompressed, and at request time: the same greedy tokens, on the real model in fp32."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from soupmix import Engine, Policy, Store, merge
from soupmix.base import Base, resolve
from soupmix.evaluate import held_out_prompts
from soupmix.policy import Grant

TOKENS = 20
PEOPLE = (
    {"elementary": 0.8, "friendly": 0.5},
    {"expert": 0.7, "informative": 0.4, "unfriendly": 0.2},
    {"concise": 1.0},
    {"elementary": 0.3, "expert": 0.3, "concise": 0.3, "friendly": 0.3},
)


CASES = [(1, 5), *(pytest.param(person, 20, marks=pytest.mark.slow) for person in range(len(PEOPLE)))]  # one, on few


def prompts(count: int) -> list[str]:
    return [p.text for p in held_out_prompts()[::3]][:count]


@pytest.fixture(scope="module")
def grants() -> list[Grant]:
    policy = Policy.open(tuple(Store.shipped()))
    return [policy.clamp(weights) for weights in PEOPLE]


@pytest.fixture(scope="module")
def at_request_time(smollm2: Base, grants: list[Grant]) -> Callable[[int], list[list[str]]]:
    """Everybody in the same batches: from the number of prompts to person -> answers."""

    @cache
    def answered(count: int) -> list[list[str]]:
        engine = Engine.load(smollm2, Store.shipped(), dtype="fp32")
        asked = [(prompt, grant) for grant in grants for prompt in prompts(count)]
        answers = engine.generate([p for p, _ in asked], [g for _, g in asked], max_new_tokens=TOKENS)
        assert len(answers) == len(grants) * count
        assert len(set(answers)) > 3 * count  # people differ, or this file shows nothing
        return [answers[n * count : (n + 1) * count] for n in range(len(grants))]

    return answered


@pytest.mark.parametrize(("person", "count"), CASES)
def test_merged_into_a_model(
    person: int,
    count: int,
    smollm2: Base,
    grants: list[Grant],
    at_request_time: Callable[[int], list[list[str]]],
    tmp_path: Path,
) -> None:
    merge(Store.shipped(), grants[person]).save_model(tmp_path / "model", base=smollm2, dtype="fp32")
    engine = Engine.load(resolve(tmp_path / "model", cache=tmp_path / "cache"), None)
    nobody = [Policy.open(()).clamp({})] * count
    assert engine.generate(prompts(count), nobody, max_new_tokens=TOKENS) == at_request_time(count)[person]


@pytest.mark.parametrize(("person", "count"), CASES)
def test_recompressed_at_full_rank(
    person: int,
    count: int,
    smollm2: Base,
    grants: list[Grant],
    at_request_time: Callable[[int], list[list[str]]],
    tmp_path: Path,
) -> None:
    rank = 8 * len(grants[person].granted)
    saved = merge(Store.shipped(), grants[person]).save_adapter(tmp_path / "adapter", rank=rank)
    assert saved.errors["truncation"].total < 1e-6
    store = Store(tmp_path / "store", create=True)
    store.add(tmp_path / "adapter", dimension="person", pole="one", base=smollm2)
    engine = Engine.load(smollm2, store, dtype="fp32")
    grant = Policy.open(tuple(store)).clamp({"one": 1})
    assert engine.generate(prompts(count), [grant] * count, max_new_tokens=TOKENS) == at_request_time(count)[person]
