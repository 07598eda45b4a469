"""Training for real, on a picoscopic model: it learns what was chosen, the same bytes every time."""

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.errors import TrainingError
from soupmix.evaluate.effect import margin
from soupmix.files import sha256_file
from soupmix.policy import Policy
from soupmix.store import Store
from soupmix.train import TrainingRecipe
from soupmix.train.examples import Example, token_ids
from soupmix.train.fit import fit

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


def test_dpo_needs_answers_that_are_not_wanted(tiny_base: Base, tmp_path: Path) -> None:
    told = [replace(each, rejected="") for each in examples(8)]
    with pytest.raises(TrainingError, match="DPO needs an answer that is not wanted"):
        fit(tiny_base, told, TrainingRecipe(method="dpo"), tmp_path / "out")


def test_too_few_pairs_is_one_sentence(tiny_base: Base, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="3 usable pairs are too few for a batch of 4"):
        fit(tiny_base, examples(3), TrainingRecipe(), tmp_path / "out")
