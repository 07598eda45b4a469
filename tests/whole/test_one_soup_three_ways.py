"""The same soup at load time, recompressed, and at request time: the same greedy tokens, on the real model in fp32."""

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


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    return [p.text for p in held_out_prompts()[::3]][:20]


@pytest.fixture(scope="module")
def grants() -> list[Grant]:
    policy = Policy.open(tuple(Store.shipped()))
    return [policy.clamp(weights) for weights in PEOPLE]


@pytest.fixture(scope="module")
def at_request_time(smollm2: Base, prompts: list[str], grants: list[Grant]) -> list[list[str]]:
    """Everybody in the same batches: person -> answers."""
    engine = Engine.load(smollm2, Store.shipped(), dtype="fp32")
    asked = [(prompt, grant) for grant in grants for prompt in prompts]
    answers = engine.generate([p for p, _ in asked], [g for _, g in asked], max_new_tokens=TOKENS)
    assert len(prompts) == 20
    assert len(set(answers)) > 60  # people differ, or this file shows nothing
    return [answers[n * 20 : (n + 1) * 20] for n in range(len(grants))]


@pytest.mark.parametrize("person", range(len(PEOPLE)))
def test_merged_into_a_model(
    person: int,
    smollm2: Base,
    prompts: list[str],
    grants: list[Grant],
    at_request_time: list[list[str]],
    tmp_path: Path,
) -> None:
    merge(Store.shipped(), grants[person]).save_model(tmp_path / "model", base=smollm2, dtype="fp32")
    engine = Engine.load(resolve(tmp_path / "model", cache=tmp_path / "cache"), None)
    nobody = [Policy.open(()).clamp({})] * 20
    assert engine.generate(prompts, nobody, max_new_tokens=TOKENS) == at_request_time[person]


@pytest.mark.parametrize("person", range(len(PEOPLE)))
def test_recompressed_at_full_rank(
    person: int,
    smollm2: Base,
    prompts: list[str],
    grants: list[Grant],
    at_request_time: list[list[str]],
    tmp_path: Path,
) -> None:
    rank = 8 * len(grants[person].granted)
    saved = merge(Store.shipped(), grants[person]).save_adapter(tmp_path / "adapter", rank=rank)
    assert saved.errors["truncation"].total < 1e-6
    store = Store(tmp_path / "store", create=True)
    store.add(tmp_path / "adapter", dimension="person", pole="one", base=smollm2)
    engine = Engine.load(smollm2, store, dtype="fp32")
    grant = Policy.open(tuple(store)).clamp({"one": 1})
    assert engine.generate(prompts, [grant] * 20, max_new_tokens=TOKENS) == at_request_time[person]
