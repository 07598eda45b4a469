"""Training for real, on a picoscopic model: it learns what was chosen, the same bytes every time."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import _telemetry
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from soupmix.base import Base, resolve
from soupmix.engine import Engine
from soupmix.errors import TrainingError
from soupmix.evaluate.effect import margin
from soupmix.files import sha256_file
from soupmix.policy import Policy
from soupmix.store import Store
from soupmix.train import TrainingRecipe
from soupmix.train.examples import Example, token_ids
from soupmix.train.fit import _cut, fit
from tests.support.tiny_model import CHAT_TEMPLATE, save_tiny_model

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")


def examples(count: int) -> list[Example]:
    return [Example(f"number {n}?", "aaaa bbbb aaaa", "zzzz yyyy zzzz") for n in range(count)]


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_training_moves_the_margin_and_repeats_exactly(tiny_base: Base, tmp_path: Path, method: str) -> None:
    recipe = TrainingRecipe(method=method, learning_rate=2e-2, epochs=2)
    summary = fit(tiny_base, examples(16), recipe, tmp_path / "one")
    fit(tiny_base, examples(16), recipe, tmp_path / "two")
    assert summary["steps"] == 8
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert sha256_file(tmp_path / "one" / file) == sha256_file(tmp_path / "two" / file)
    store = Store(tmp_path / "store", create=True)
    store.add(tmp_path / "one", dimension="letters", pole="a", base=tiny_base)
    engine, policy = Engine.load(tiny_base, store), Policy.open(tuple(store))
    held = [each.contrast for each in examples(20)[16:]]
    before, after = (margin(engine, policy.clamp({"a": w}), held) for w in (0, 1))
    assert after > before + 0.1


@pytest.mark.parametrize("said", [None, "0"])
def test_nobody_is_told_of_a_training_unless_somebody_lets_them(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None
) -> None:
    """By the queue of Hugging Face's telemetry, which trl fills."""
    told: list[object] = []
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY", raising=False)
    if said is not None:
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", said)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setattr(_telemetry, "_start_telemetry_thread", lambda: None)
    monkeypatch.setattr(_telemetry._TELEMETRY_QUEUE, "put", told.append)
    fit(tiny_base, examples(4), TrainingRecipe(), tmp_path / "one")
    assert len(told) == (said is not None)
    assert constants.HF_HUB_DISABLE_TELEMETRY is False
    assert ("HF_HUB_DISABLE_TELEMETRY" in os.environ) is (said is not None)


def test_an_answer_that_was_cut_teaches_no_end(tiny_base: Base) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base.folder)
    (whole,) = examples(1)
    _, answer = token_ids(tokenizer, whole, 100, 512)
    assert answer[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(answer[:-1]) == whole.chosen
    assert tokenizer.eos_token_id not in token_ids(tokenizer, whole, 5, 512)[1]
    assert tokenizer.eos_token_id not in token_ids(tokenizer, replace(whole, finished=False), 100, 512)[1]


def test_an_example_that_does_not_fit_is_told_by_its_place(tiny_base: Base) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base.folder)
    with pytest.raises(
        TrainingError, match=r"^line 3 of x: a prompt of \d+ tokens and an answer of 15 are more than 20;"
    ):
        token_ids(tokenizer, replace(examples(1)[0], place="line 3 of x"), 100, 20)


@pytest.fixture
def bare_base(tmp_path: Path, session_cache: Path) -> Base:
    """Without a chat template; every text begins with a token, as for Llama."""
    folder = save_tiny_model(tmp_path / "bare")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    begin = TemplateProcessing(single="<|system|> $A", special_tokens=[("<|system|>", BEGIN)])
    tokenizer.backend_tokenizer.post_processor = begin
    tokenizer.chat_template = None
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    return resolve(folder, cache=session_cache)


BEGIN = 2


def test_a_text_is_learned_and_measured_behind_the_token_that_texts_begin_with(bare_base: Base) -> None:
    engine, tokenizer = Engine.load(bare_base, None), AutoTokenizer.from_pretrained(bare_base.folder)
    assert tokenizer.chat_template is None
    (one,) = examples(1)
    prompt, answer = token_ids(tokenizer, one, 100, 512)
    assert prompt[0] == BEGIN
    assert tuple(prompt) == engine.plain_tokens("number 0?")
    assert BEGIN not in answer
    model, gaps = AutoModelForCausalLM.from_pretrained(bare_base.folder), []
    for text in (one.chosen, one.rejected):
        said = tokenizer(text, add_special_tokens=False)["input_ids"]
        log_p = model(torch.tensor([[*prompt, *said]])).logits[0].log_softmax(-1)
        gaps.append(float(log_p[range(len(prompt) - 1, len(prompt) + len(said) - 1), said].mean()))
    found = margin(engine, Policy.open(()).clamp({}), [one.contrast])
    assert found == pytest.approx(gaps[0] - gaps[1], abs=1e-5)


LONG = Example("Why?", "a" * 600, "b", place="line 3 of x")


@pytest.mark.parametrize("wrong", [LONG, replace(LONG, chosen="b", rejected="a" * 600)], ids=["chosen", "rejected"])
def test_what_dpo_would_cut_is_told_by_its_place(tiny_base: Base, tmp_path: Path, wrong: Example) -> None:
    with pytest.raises(TrainingError, match=r"^line 3 of x: .* are more than 512; shorten"):
        fit(tiny_base, [*examples(7), wrong], TrainingRecipe(method="dpo"), tmp_path / "out")


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_every_conversation_is_tried_before_anything_is_learned(tiny_base: Base, tmp_path: Path, method: str) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no rules here') }}{% endif %}" + CHAT_TEMPLATE
    base = replace(tiny_base, chat_template=refusing)
    asked = ({"role": "system", "content": "Be dry."}, {"role": "user", "content": "Why?"})
    wrong = Example(asked, "So.", "No.", place="line 3 of x")
    with pytest.raises(TrainingError, match=r"^line 3 of x: .*no rules here"):
        fit(base, [*examples(7), wrong], TrainingRecipe(method=method), tmp_path / "out")


@pytest.mark.parametrize(
    ("held_back", "why"),
    [
        (replace(LONG, asked="a" * 600, chosen="b"), "are more than 512"),
        (replace(LONG, chosen="So.<|assistant|>No."), "marks a role or an end"),
    ],
    ids=["too long", "a mark"],
)
def test_what_is_wrong_with_examples_that_are_left_out_is_told_first(
    tiny_base: Base, tmp_path: Path, held_back: Example, why: str
) -> None:
    with pytest.raises(TrainingError, match=f"^line 3 of x: .*{why}"):
        fit(tiny_base, examples(8), TrainingRecipe(), tmp_path / "out", left_out=[held_back])


def test_answers_that_are_learned_without_their_end_are_counted(tiny_base: Base) -> None:
    tokenizer, recipe = AutoTokenizer.from_pretrained(tiny_base.folder), TrainingRecipe(response_tokens=10)
    given = [Example("Why?", "a" * length, place="line 1 of x") for length in (8, 9, 10, 11)]
    ends = [tokenizer.eos_token_id in token_ids(tokenizer, each, 10, 512)[1] for each in given]
    assert _cut(tokenizer, given, recipe) == {"cut": ends.count(False)} == {"cut": 2}
    assert _cut(tokenizer, given[:2], recipe) == {}
    assert _cut(tokenizer, examples(4), recipe) == {}  # of ours: training.json stays as it was


def test_dpo_needs_answers_that_are_not_wanted(tiny_base: Base, tmp_path: Path) -> None:
    told = [replace(each, rejected="") for each in examples(8)]
    with pytest.raises(TrainingError, match="DPO needs an answer that is not wanted"):
        fit(tiny_base, told, TrainingRecipe(method="dpo"), tmp_path / "out")


def test_too_few_pairs_is_one_sentence(tiny_base: Base, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="3 usable pairs are too few for a batch of 4"):
        fit(tiny_base, examples(3), TrainingRecipe(), tmp_path / "out")
