"""Training for real, on a picoscopic model: it learns what was chosen, the same bytes every time."""

from pathlib import Path

import pytest

from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.errors import TrainingError
from soupmix.evaluate import Prompt
from soupmix.evaluate.effect import margin
from soupmix.files import sha256_file
from soupmix.policy import Policy
from soupmix.store import Store
from soupmix.train import TrainingRecipe
from soupmix.train.fit import fit
from soupmix.train.pairs import Pair
from soupmix.train.sample import Sample

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")


def pairs(count: int) -> list[Pair]:
    return [
        Pair(
            Prompt(f"number {n}?", "question", ("a",)),
            Sample(n, 0, "aaaa bbbb aaaa", True),
            Sample(n, 0, "zzzz yyyy zzzz", True),
            1.0,
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_training_moves_the_margin_and_repeats_exactly(tiny_base: Base, tmp_path: Path, method: str) -> None:
    recipe = TrainingRecipe(method=method, learning_rate=2e-2, epochs=2)
    summary = fit(tiny_base, pairs(16), recipe, tmp_path / "one")
    fit(tiny_base, pairs(16), recipe, tmp_path / "two")
    assert summary["steps"] == 8
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert sha256_file(tmp_path / "one" / file) == sha256_file(tmp_path / "two" / file)
    store = Store(tmp_path / "store", create=True)
    store.add(tmp_path / "one", dimension="letters", pole="a", base=tiny_base)
    engine, policy = Engine.load(tiny_base, store), Policy.open(tuple(store))
    held = [pair.contrast for pair in pairs(20)[16:]]
    before, after = (margin(engine, policy.clamp({"a": w}), held) for w in (0, 1))
    assert after > before + 0.1


def test_an_answer_that_was_cut_teaches_no_end(tiny_base: Base) -> None:
    from transformers import AutoTokenizer

    from soupmix.train.fit import _sft_row

    tokenizer = AutoTokenizer.from_pretrained(tiny_base.folder)
    (pair,) = pairs(1)
    whole = _sft_row(tokenizer, pair, 100)
    assert whole["labels"][-1] == tokenizer.eos_token_id
    assert _sft_row(tokenizer, pair, 5)["labels"][-1] != tokenizer.eos_token_id
    learned = [token for token in whole["labels"] if token != -100]
    assert tokenizer.decode(learned[:-1]) == pair.chosen.text


def test_too_few_pairs_is_one_sentence(tiny_base: Base, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="3 usable pairs are too few for a batch of 4"):
        fit(tiny_base, pairs(3), TrainingRecipe(), tmp_path / "out")
