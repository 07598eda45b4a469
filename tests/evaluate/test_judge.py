"""What the model says of answers, against transformers in float64, one text at a time."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.evaluate.measures import TEXT_MEASURES, TrainedPhrases, judge, steered_by
from soupmix.evaluate.measures.judge import GivenAnswer, Judge, judge_answers, judges, question_log_p
from soupmix.evaluate.measures.opening import opening_chances, opening_tokens
from soupmix.policy import Grant
from soupmix.store import Store

ANSWERS = [
    GivenAnswer("Why does iron rust?", "It meets water and air."),
    GivenAnswer("Why does iron rust?", "No idea, look it up."),
    GivenAnswer("Who are you?", "A model of language"),
    GivenAnswer("Who are you?", ""),
]
CALM = Judge("judge_mood", "mood", "calm", "Be calm.", "Be loud and shout.")
PLAIN = Judge("judge_style_dry", "style", "dry", "Be dry.", "")
FRAMES = TrainedPhrases.of(
    {"calm": {"openers": ["Well, well.", "The end."]}, "loud": {"openers": ["The loud end!", "Hey you!"]}}
)


@pytest.fixture(scope="module")
def exact(tiny_base: Base) -> Any:
    """The base in float64, by transformers alone."""
    return AutoModelForCausalLM.from_pretrained(tiny_base.folder).double().eval()


def mean_log_p(exact: Any, engine: Engine, prompt: Any, answer: str) -> float:
    before, after = engine.chat_tokens(prompt), engine.prompts.tokens(answer)
    with torch.no_grad():
        log_p = exact(torch.tensor([[*before, *after]])).logits[0].log_softmax(-1)
    return sum(float(log_p[len(before) - 1 + n, token]) for n, token in enumerate(after)) / len(after)


def test_a_judgement_is_a_difference_of_two_passes_in_float64(
    plain: Engine, exact: Any, grant: Callable[..., Grant]
) -> None:
    found = judge_answers(plain, grant(), ANSWERS, [CALM, PLAIN])
    for each, values in zip(ANSWERS[:3], found, strict=False):
        asked = {"role": "user", "content": each.question}
        under = {
            system: mean_log_p(
                exact, plain, [{"role": "system", "content": system}, asked] if system else [asked], each.text
            )
            for system in (CALM.toward, CALM.against, PLAIN.toward, "")
        }
        assert values["judge_mood"] == pytest.approx(under[CALM.toward] - under[CALM.against], abs=1e-4)
        assert values["judge_style_dry"] == pytest.approx(under[PLAIN.toward] - under[""], abs=1e-4)
    assert found[3] == {}


def test_to_swap_the_ends_turns_a_judgement_around(plain: Engine, grant: Callable[..., Grant]) -> None:
    swapped = Judge(CALM.name, "mood", "loud", CALM.against, CALM.toward)
    one, other = (judge_answers(plain, grant(), ANSWERS[:3], [each]) for each in (CALM, swapped))
    assert [row["judge_mood"] for row in one] == pytest.approx([-row["judge_mood"] for row in other], abs=1e-5)
    assert judge_answers(plain, grant(), ANSWERS, []) == [{}] * 4
    assert judge_answers(plain, grant(), [], [CALM]) == []


def test_answers_do_not_see_one_another(plain: Engine, grant: Callable[..., Grant]) -> None:
    together = judge_answers(plain, grant(), ANSWERS[:3], [CALM])
    alone = [judge_answers(plain, grant(), [each], [CALM])[0] for each in ANSWERS[:3]]
    assert [row["judge_mood"] for row in together] == pytest.approx([row["judge_mood"] for row in alone], abs=1e-4)
    (short,) = judge_answers(plain, grant(), ANSWERS[:1], [CALM], most=2)
    assert short["judge_mood"] != pytest.approx(alone[0]["judge_mood"], abs=1e-6)


def test_what_an_answer_tells_of_its_question(plain: Engine, exact: Any, grant: Callable[..., Grant]) -> None:
    found = question_log_p(plain, grant(), ANSWERS)
    for each, value in zip(ANSWERS, found, strict=True):
        known = mean_log_p(exact, plain, judge._guess(each.text), each.question)
        assert value == pytest.approx(known - mean_log_p(exact, plain, "Write a question.", each.question), abs=1e-4)


def test_answers_longer_than_the_model_can_read_are_judged_by_their_beginning(
    plain: Engine, grant: Callable[..., Grant]
) -> None:
    begun = "水" * 700  # in tokens of this model three times as many
    assert len(plain.prompts.tokens(begun)) > 1000
    longer = begun + "火" * 700
    pairs = [GivenAnswer("Why does iron rust?", text) for text in (begun, longer)]
    one, other = question_log_p(plain, grant(), pairs)
    assert one == pytest.approx(other, abs=1e-4)
    first, second = judge_answers(plain, grant(), pairs, [CALM])
    assert first["judge_mood"] == pytest.approx(second["judge_mood"], abs=1e-4)


def test_the_chance_of_an_opening(plain: Engine, exact: Any, grant: Callable[..., Grant]) -> None:
    tokens = opening_tokens(plain, FRAMES)
    well, the, hey = (plain.prompts.tokens(text)[0] for text in ("Well", "The", "Hey"))
    assert tokens == {"calm": frozenset({well}) - {the}, "loud": frozenset({hey}) - {the}}
    prompts = ["Why does iron rust?", "Who?"]
    found = opening_chances(plain, prompts, [grant()] * 2, FRAMES)
    for prompt, chances in zip(prompts, found, strict=True):
        with torch.no_grad():
            p = exact(torch.tensor([plain.chat_tokens(prompt)])).logits[0, -1].softmax(-1)
        for pole, ids in tokens.items():
            assert chances[pole] == pytest.approx(float(p[sorted(ids)].sum()), abs=1e-6)
    assert opening_chances(plain, prompts, [grant(calm=1)] * 2, FRAMES) != found


def test_which_judges_a_store_needs() -> None:
    asks = {entry.pole: f"Be {entry.pole}." for entry in Store.shipped()}
    found = judges(Store.shipped(), asks)
    assert [(each.name, each.pole, each.against) for each in found] == [
        ("judge_expertise", "elementary", "Be expert."),
        ("judge_length", "concise", "Be informative."),
        ("judge_style", "friendly", "Be unfriendly."),
    ]
    assert [each.measure.dimension for each in found] == ["expertise", "length", "style"]
    asks.pop("unfriendly")
    assert ("judge_style_friendly", "friendly", "") in [
        (each.name, each.pole, each.against) for each in judges(Store.shipped(), asks)
    ]
    assert judges(Store.shipped(), {}) == ()


def test_a_measure_is_of_a_dimension_only_where_the_store_has_it(
    tmp_path: Path, tiny_base: Base, tiny_adapter: Callable[..., Path]
) -> None:
    assert steered_by(Store.shipped(), TEXT_MEASURES) == TEXT_MEASURES
    store = Store(tmp_path / "store", create=True)
    store.add(tiny_adapter(seed=11), name="a", dimension="style", pole="casual", base=tiny_base)
    store.add(tiny_adapter(seed=12), name="b", dimension="length", pole="informative", base=tiny_base)
    found = steered_by(store, TEXT_MEASURES)
    assert {each.dimension for each in found.values()} == {"", "length"}
    assert found["vader"] == replace(TEXT_MEASURES["vader"], dimension="", pole="")
    assert found["repetition"] == TEXT_MEASURES["repetition"]
