"""Rows of models whose states padding would change, or whose code reads weights itself, are what they are alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from soupmix.base import Base, resolve
from soupmix.batching import Batcher
from soupmix.engine import Engine, Sampling
from soupmix.engine.direct import read_directly
from soupmix.engine.layers import insert
from soupmix.engine.rows import ActiveBatch, LoadedAdapters
from soupmix.errors import BaseModelError, RecipeError
from soupmix.policy import Grant, Policy
from soupmix.store import Store
from tests.support.families import make_family, make_tokenizer
from tests.support.random_adapter import save_random_adapter

PROMPTS = ["why?", "tell me of tides", "is it so", "hi", "and then what happened to the sea?"]


def nobody(count: int) -> list[Grant]:
    return [Policy.open(()).clamp({})] * count


@pytest.mark.parametrize(("name", "together"), [("mamba", "equal"), ("lfm2", "padded"), ("falcon-h1", "padded")])
def test_rows_that_end_at_other_times_are_what_they_are_alone(
    family_base: Callable[[str], Base], name: str, together: str
) -> None:
    engine = Engine.load(family_base(name), None)
    assert engine.together == together
    hot = {"temperature": 1.0, "top_k": 0}
    ends = engine.ends | {token for token in range(1024) if token % 5 == 0}  # so that answers end, one by one
    engine.__dict__["ends"] = frozenset(ends)
    found = engine.complete(PROMPTS, nobody(5), sampling=Sampling(max_new_tokens=12, seed=3, **hot))
    assert len({each.tokens for each in found}) > 2
    for number, prompt in enumerate(PROMPTS):
        how = Sampling(max_new_tokens=12, seed=3 + number, **hot)
        assert engine.complete([prompt], nobody(1), sampling=how) == [found[number]]


def _beside_a_plain_one(base: Base, folder: Path, path: str, plain: str) -> Store:
    """A store with the adapters "one" of the layer `path` and "plain" of another layer."""
    store = Store(folder / "store", create=True)
    for name, layer in (("one", path), ("plain", plain)):
        saved = save_random_adapter(base, folder / name, layers=[layer])
        store.add(saved, name=name, dimension=name, pole=name, base=base)
    return store


def _refused_by_name(engine: Engine, store: Store) -> RecipeError:
    """What is said to whoever asks for "one"; all others are served."""
    clamp = Policy.open(store).clamp
    assert engine.adapters.names == ("plain",)
    bare, soup = (engine.logits(torch.tensor([[5, 6, 7]]), [clamp({"plain": weight})]) for weight in (0, 1))
    assert not torch.equal(bare, soup)
    with pytest.raises(RecipeError, match=r"adapter 'one' changes .*soupmix merge --as model") as caught:
        engine.complete(["why?"], [clamp({"plain": 0.5, "one": 0.1})])
    return caught.value


def test_a_layer_whose_weight_is_read_stays_and_its_adapter_is_refused_by_name(
    family_base: Callable[[str], Base], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = family_base("mamba")
    read = read_directly(Engine.load(base, None, fused=False).model)
    path = "backbone.layers.0.mixer.dt_proj"
    assert path in read
    store = _beside_a_plain_one(base, tmp_path, path, "backbone.layers.0.mixer.in_proj")
    engine = Engine.load(base, store)
    refused = _refused_by_name(engine, store)
    assert (refused.reason, f"layer '{path}'" in str(refused)) == ("read-directly", True)
    assert caplog.messages.count(str(refused)) == 1


def test_no_layer_of_a_plain_model_is_read(tiny_base: Base) -> None:
    assert read_directly(Engine.load(tiny_base, None, fused=False).model) == set()


class Expert(nn.Module):
    """Its first layer is called, and of the second the weight is read."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(32, 8, bias=False), nn.Linear(8, 32, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.up(x), self.down.weight)


class Experts(nn.Module):
    """Every token goes to the first of them, until there are many."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Expert() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen: torch.Tensor = self.experts[0 if x.shape[1] < 9 else 2](x)
        return chosen


def test_a_weight_that_only_an_expert_reads_who_gets_no_token_stays_too(tiny_base: Base) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base.folder).eval()
    model.model.layers[1].mlp = Experts()
    ids = torch.arange(12)[None]
    batch = ActiveBatch(LoadedAdapters.of([]), torch.device("cpu"))
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
        left = read_directly(model)
        insert(model, [], batch, fused=True, left=left)
        torch.testing.assert_close(model(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-5)
    assert left == {f"model.layers.1.mlp.experts.{number}.down" for number in range(3)}


SMALL = {
    "vocab_size": 1024, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 512,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("rwkv", {"vocab_size": 1024, "context_length": 512, "hidden_size": 64, "num_hidden_layers": 2}),  # other cache
        ("openai-gpt", {"vocab_size": 1024, "n_embd": 64, "n_layer": 2, "n_head": 4}),  # no cache
        ("cpmant", {"vocab_size": 1024, "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}),  # raises
    ],
)
def test_a_model_that_makes_no_answers_token_by_token_is_refused(
    kind: str, settings: dict[str, Any], tmp_path: Path, session_cache: Path
) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    engine = Engine.load(resolve(str(tmp_path), cache=session_cache), None)
    with pytest.raises(BaseModelError, match="token by token") as caught:
        engine.complete(["why?"], nobody(1), sampling=Sampling(max_new_tokens=2))
    assert caught.value.reason == "cannot-generate"
    with pytest.raises(BaseModelError, match="token by token"):
        Batcher(engine)


@pytest.mark.parametrize("most", [5, 9, 13])
def test_a_model_of_few_positions_is_tried_within_them(tmp_path: Path, most: int) -> None:
    folder = make_family("gpt2", tmp_path / "base", n_positions=most)
    engine = Engine.load(resolve(folder, cache=tmp_path / "cache"), None)
    assert engine.together == "padded"
    with Batcher(engine) as batcher:
        assert batcher.loop.name == "running"


def test_a_model_of_hardly_any_positions_is_refused(tmp_path: Path) -> None:
    folder = make_family("gpt2", tmp_path / "base", n_positions=4)
    with pytest.raises(BaseModelError, match="it has 4 positions") as caught:
        Batcher(Engine.load(resolve(folder, cache=tmp_path / "cache"), None))
    assert caught.value.reason == "cannot-generate"


def test_a_config_that_says_nothing_of_tokens_is_none_to_be_asked(tiny_base: Base) -> None:
    engine = Engine.load(tiny_base, None)
    del engine.model.config.vocab_size
    with Batcher(engine) as batcher:
        assert batcher.loop.name == "running"


def test_a_model_that_differs_from_itself_at_once_is_held_to_transformers_generate(
    family_base: Callable[[str], Base],
) -> None:
    engine = Engine.load(family_base("doge"), None)
    assert engine.noise > 0.1, "how far apart right ways may be is measured as of any other model"


def test_a_router_is_no_linear_layer_and_stays_as_it_is(family_base: Callable[[str], Base], tmp_path: Path) -> None:
    base = family_base("llama4-text")
    with Batcher(Engine.load(base, None)) as batcher:
        assert batcher.loop.name == "running"
    path = "model.layers.1.feed_forward.router"
    store = _beside_a_plain_one(base, tmp_path, path, "model.layers.0.self_attn.q_proj")
    refused = _refused_by_name(Engine.load(base, store), store)
    assert (refused.reason, f"'{path}', a Llama4Router" in str(refused)) == ("not-linear", True)


def test_an_adapter_of_a_router_that_is_no_linear_layer_stops_nobody_else(
    family_base: Callable[[str], Base], tmp_path: Path
) -> None:
    base, path = family_base("mixtral"), "model.layers.0.mlp.gate"
    store = _beside_a_plain_one(base, tmp_path, path, "model.layers.0.self_attn.q_proj")
    refused = _refused_by_name(Engine.load(base, store), store)
    assert (refused.reason, f"'{path}', which is a MixtralTopKRouter" in str(refused)) == ("not-linear", True)
