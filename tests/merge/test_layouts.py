"""Bases of many families, as transformers saves them and as hubs hold them: an adapter is added, merged into the weights as they
lie on disk, and added per row; PEFT in float64, with the adapter beside the weights and merged into them, is the oracle."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.errors import AdapterError, BaseModelError
from soupmix.merge import Stack, merge
from soupmix.merge.fold import Work
from soupmix.merge.model import write_model
from soupmix.merge.sink import Sink
from soupmix.policy import Policy
from soupmix.store import Store

IDS = torch.tensor([[5, 9, 300, 7, 41, 600, 2, 77]])

# Names of layers by which an adapter adapts a family. A name may be of layers of several kinds and shapes.
TARGETS = {
    "llama3.2-tied": ("q_proj", "down_proj"),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "gpt2-hub": ("c_attn", "c_proj", "c_fc"),
    "gpt-bigcode": ("c_attn", "c_proj", "c_fc"),
    "gptj": ("q_proj", "fc_in"),
    "bloom-hub": ("query_key_value", "dense_4h_to_h"),
    "gpt-neox": ("query_key_value", "dense"),
    "gemma3": ("q_proj", "down_proj"),
    "mixtral": ("q_proj", "o_proj"),
    "deepseek-v3-hub": ("q_a_proj", "kv_b_proj", "o_proj"),
    "qwen3-next-hub": ("q_proj", "in_proj_qkvz"),
    "phi3": ("qkv_proj", "gate_up_proj"),
    "opt": ("q_proj", "fc1"),
    "falcon-rw": ("query_key_value", "dense"),
    "llama-bias": ("k_proj", "lm_head"),
}
SAYS = {"gpt2": True, "gpt2-hub": False, "gpt-bigcode": False}
"""What the file says of `fan_in_fan_out`; PEFT corrects it on load."""


@dataclass(frozen=True)
class Case:
    """A base with an adapter of PEFT's in a store, and what PEFT computes."""

    base: Base
    adapter: Path
    store: Store
    beside: Tensor
    merged: Tensor
    plain: Tensor

    @property
    def policy(self) -> Policy:
        return Policy.open(self.store)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, family_base: Callable[[str], Base]) -> Callable[[str], Case]:
    @cache
    def make(name: str) -> Case:
        folder = tmp_path_factory.mktemp(name)
        base = family_base(name)
        _save_adapter(base, folder / "adapter", TARGETS[name])
        config = json.loads((folder / "adapter/adapter_config.json").read_bytes())
        config["fan_in_fan_out"] = SAYS.get(name, config["fan_in_fan_out"])
        (folder / "adapter/adapter_config.json").write_text(json.dumps(config))
        store = Store(folder / "store", create=True)
        store.add(folder / "adapter", name="a", dimension="a", pole="a", base=base)
        return Case(base, folder / "adapter", store, *_oracle(base, folder / "adapter"))

    return make


def _save_adapter(base: Base, folder: Path, targets: tuple[str, ...]) -> None:
    model = AutoModelForCausalLM.from_pretrained(base.folder)
    peft = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=list(targets), task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in peft.named_parameters():
        if ".lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    peft.save_pretrained(folder)


def _float64(folder: Path) -> Any:
    """A model in float64; its experts one by one, since products of groups know no float64."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, experts_implementation="eager").eval()


def _oracle(base: Base, adapter: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Logits in float64: with the adapter beside the weights, merged into them, and of the base alone."""
    with torch.inference_mode():
        model = _float64(base.folder)
        plain = model(IDS).logits
        peft = PeftModel.from_pretrained(model, adapter).eval()
        beside = peft(IDS).logits
        return beside, peft.merge_and_unload()(IDS).logits, plain


pytestmark = [
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning"),
]


@pytest.mark.parametrize("name", TARGETS)
def test_a_model_is_what_peft_computes(case: Callable[[str], Case], name: str, tmp_path: Path) -> None:
    made = case(name)
    merge(made.store, made.policy.clamp({"a": 1})).save_model(tmp_path / "out", base=made.base)
    before, after = (load_file(folder / "model.safetensors") for folder in (made.base.folder, tmp_path / "out"))
    assert {key: value.shape for key, value in after.items()} == {key: value.shape for key, value in before.items()}
    assert all(torch.equal(before[key], after[key]) for key in made.base.layers().unused)
    with torch.inference_mode():
        ours = _float64(tmp_path / "out")(IDS).logits
    for theirs in (made.beside, made.merged):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert (made.beside - made.plain).abs().max() > 1e-2


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("name", TARGETS)
def test_a_row_is_what_peft_computes(case: Callable[[str], Case], name: str, fused: bool) -> None:
    made = case(name)
    engine = Engine.load(made.base, made.store, fused=fused)
    clamp = made.policy.clamp
    rows = engine.logits(IDS.expand(2, -1), [clamp({"a": 1}), clamp({})])
    torch.testing.assert_close(rows[:1].double(), made.beside, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(rows[1:].double(), made.plain, rtol=1e-3, atol=1e-4)
    if not fused:
        with torch.inference_mode():
            model = AutoModelForCausalLM.from_pretrained(made.base.folder).eval()
            assert torch.equal(engine.logits(IDS, [clamp({})]), model(IDS).logits)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_a_head_that_is_the_embeddings_too_is_not_adapted(family_base: Callable[[str], Base], tmp_path: Path) -> None:
    base = family_base("llama3.2-tied")
    _save_adapter(base, tmp_path / "adapter", ("q_proj", "lm_head"))
    store = Store(tmp_path / "store", create=True)
    with pytest.raises(
        AdapterError, match=r"lm_head, and in this base its weight is that of model\.embed_tokens too"
    ) as caught:
        store.add(tmp_path / "adapter", name="a", dimension="a", pole="a", base=base)
    assert caught.value.reason == "embedding"


def test_factors_of_one_expert_are_refused(family_base: Callable[[str], Base], tmp_path: Path) -> None:
    """As they were trained when every expert was a linear layer of its own."""
    base = family_base("mixtral")
    path = "model.layers.0.block_sparse_moe.experts.1.w1"
    assert f"{path}.weight" in base.tensors()
    _save_adapter(base, tmp_path / "adapter", ("q_proj",))
    file = tmp_path / "adapter/adapter_model.safetensors"
    factors = load_file(file)
    factors |= {f"base_model.model.{path}.lora_A.weight": torch.ones(4, 64)}
    save_file(factors | {f"base_model.model.{path}.lora_B.weight": torch.ones(160, 4)}, file)
    store = Store(tmp_path / "store", create=True)
    with pytest.raises(
        AdapterError, match=r"in one weight with the other experts \(model\.layers\.0\.mlp\.experts\.g"
    ) as caught:
        store.add(tmp_path / "adapter", name="a", dimension="a", pole="a", base=base)
    assert caught.value.reason == "experts"


@pytest.mark.parametrize("name", ["mixtral", "gpt-oss"])
def test_nothing_is_folded_into_all_experts_at_once(
    family_base: Callable[[str], Base], name: str, tmp_path: Path
) -> None:
    base = family_base(name)
    path = "model.layers.0.mlp.experts.gate_up_proj"
    outputs, inputs = base.layers()[path].shape
    one = torch.ones(1, dtype=torch.float64)
    stack = Stack(torch.ones(1, inputs), torch.ones(outputs, 1), one, one)
    (tmp_path / "out").mkdir()
    with pytest.raises(BaseModelError, match="several matrices in") as caught:
        write_model(Sink(tmp_path / "out"), base, {path: stack}, dtype=None, shard_size=1 << 30, work=Work())
    assert caught.value.reason == "in-pieces"
