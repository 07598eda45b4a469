"""What a soup does, against transformers' own arithmetic on the merged weights; means with intervals."""

import math
import random
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.evaluate import Arm, Contrast, Prompt, arms, effect, interval, measure_arms
from soupmix.evaluate.arms import open_grant
from soupmix.evaluate.effect import answer_prompts, margin, perplexity
from soupmix.evaluate.promptset import conversation, neutral_paragraphs
from soupmix.store import Store
from soupmix.weights import Weights

CONTRASTS = [
    Contrast("Why does iron rust?", "It meets water.", "Look it up."),
    Contrast(conversation("How do I boil an egg?", "Be brief."), "Ten minutes in hot water, then cold water.", "No."),
]
PROMPTS = [Prompt("Why does iron rust?", "question", ("rust",)), Prompt("Name a tree.", "list", ("tree",))]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, tiny_adapter: Callable[..., Path]) -> Store:
    made = Store(tmp_path_factory.mktemp("measured") / "store", create=True)
    made.add(tiny_adapter(seed=11), name="calm", dimension="mood", pole="calm", base=tiny_base)
    return made


@pytest.fixture(scope="module")
def engine(store: Store, tiny_base: Base) -> Engine:
    return Engine.load(tiny_base, store)


def log_p(base: Base, context: str, answer: str, tokenizer: Callable[..., object]) -> torch.Tensor:
    """Log-probability of every token of the answer under the bare base, one token at a time."""
    model = AutoModelForCausalLM.from_pretrained(base.folder)
    before = tokenizer(context, add_special_tokens=False)["input_ids"]  # type: ignore[index]
    ids = tokenizer(context + answer, add_special_tokens=False)["input_ids"]  # type: ignore[index]
    found = []
    with torch.no_grad():
        for end in range(len(before), len(ids)):
            logits = model(torch.tensor([ids[:end]])).logits[0, -1]
            found.append(logits.log_softmax(-1)[ids[end]])
    return torch.stack(found)


def test_a_margin_is_what_transformers_says_token_by_token(engine: Engine, store: Store, tiny_base: Base) -> None:
    grant = open_grant(store, Weights({}))
    gaps = []
    for each in CONTRASTS:
        talk = conversation(each.asked) if isinstance(each.asked, str) else each.asked
        context = engine.tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        chosen, rejected = (
            log_p(tiny_base, context, text, engine.tokenizer)[:20].mean() for text in (each.chosen, each.rejected)
        )
        gaps.append(float(chosen - rejected))
    assert margin(engine, grant, CONTRASTS, most=20) == pytest.approx(sum(gaps) / len(gaps), abs=1e-4)


def test_to_swap_what_is_wanted_turns_the_margin_around(engine: Engine, store: Store) -> None:
    grant = open_grant(store, Weights({"calm": "0.5"}))
    swapped = [Contrast(each.asked, each.rejected, each.chosen) for each in CONTRASTS]
    assert margin(engine, grant, swapped) == pytest.approx(-margin(engine, grant, CONTRASTS), abs=1e-5)
    assert margin(engine, grant, CONTRASTS) != pytest.approx(margin(engine, open_grant(store, Weights({})), CONTRASTS))


def test_perplexity_is_that_of_transformers(engine: Engine, store: Store, tiny_base: Base) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base.folder)
    total, count = 0.0, 0
    for paragraph in neutral_paragraphs():
        ids = engine.tokenizer(paragraph, return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            total += float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    found = perplexity(engine, open_grant(store, Weights({})))
    assert found == pytest.approx(math.exp(total / count), rel=1e-4)
    assert perplexity(engine, open_grant(store, Weights({"calm": 1}))) != pytest.approx(found, rel=1e-4)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of a few tokens."""
    monkeypatch.setattr(effect, "_MOST_NEW_TOKENS", 8)


@pytest.mark.usefixtures("short")
def test_soups_are_compared_under_the_same_luck(engine: Engine, store: Store) -> None:
    nothing, calm = (open_grant(store, Weights(w)) for w in ({}, {"calm": 1}))
    plain = answer_prompts(engine, nothing, PROMPTS)
    assert answer_prompts(engine, nothing, PROMPTS) == plain
    assert answer_prompts(engine, nothing, PROMPTS, seed=1) != plain
    assert [(each.prompt, each.kind) for each in plain] == [(each.text, each.kind) for each in PROMPTS]
    assert answer_prompts(engine, calm, PROMPTS) != plain


class InThisProcess(Executor):
    """A pool that does its work at once."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> "Future[Any]":
        done: Future[Any] = Future()
        done.set_result(work(*arguments, **named))
        return done


@pytest.mark.usefixtures("short")
def test_a_finished_arm_is_not_measured_again(
    store: Store, tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arms, "workers", lambda jobs: InThisProcess())
    seen: list[tuple[str, int, int]] = []
    both_arms = [Arm("base", Weights({})), Arm("calm", Weights({"calm": 1}))]

    def measured(which: list[Arm]) -> dict[str, object]:
        seen.clear()
        return dict(
            measure_arms(tiny_base, store.folder, which, PROMPTS, tmp_path, progress=lambda *step: seen.append(step))
        )

    first = measured(both_arms[:1])
    assert seen == [("measuring", 0, 1), ("measuring", 1, 1)]
    both = measured(both_arms)
    assert seen == [("measuring", 1, 2), ("measuring", 2, 2)]
    assert both["base"] == first["base"]
    assert both["calm"] != both["base"]
    assert measured(both_arms) == both
    assert seen == [("measuring", 2, 2)]


def test_intervals_cover_the_mean_of_their_population() -> None:
    draw = random.Random(1)
    hits = 0
    for seed in range(100):
        found = interval([draw.gauss(3.0, 1.0) for _ in range(40)], resamples=400, seed=seed)
        hits += found.low <= 3.0 <= found.high
    assert 85 <= hits <= 100
