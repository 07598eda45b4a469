"""What a store says of bases that are no plain model with a head of its own: experts, embeddings, quantised weights."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from soupmix.base import Base, resolve
from soupmix.errors import AdapterError
from soupmix.findings import Finding
from soupmix.store import Store
from tests.support.quantised import HIDDEN, quantised_folder

Handmade = Callable[..., Path]


def _factors(module: str, inputs: int, outputs: int) -> Mapping[str, torch.Tensor]:
    name = f"base_model.model.{module}"
    return {f"{name}.lora_A.weight": torch.ones(2, inputs), f"{name}.lora_B.weight": torch.ones(outputs, 2)}


def _added(store: Path, folder: Path, base: Base) -> tuple[Store, list[Finding]]:
    made, notes = Store(store, create=True), list[Finding]()
    made.add(folder, dimension="d", pole="p", base=base, tell=notes.append)
    return made, notes


@pytest.mark.parametrize("module", ["model.embed_tokens", "lm_head"])
def test_what_is_an_embedding_is_refused(handmade: Handmade, tiny_base: Base, tmp_path: Path, module: str) -> None:
    tokens = tiny_base.layers()["model.embed_tokens"].inputs
    folder = handmade(_factors(module, tokens, 32) if module != "lm_head" else _factors(module, 32, tokens))
    with pytest.raises(AdapterError, match="adapters extract") as caught:
        _added(tmp_path / "store", folder, tiny_base)
    assert caught.value.reason == "embedding"


def test_the_norm_of_a_quantised_base_is_not_measured(handmade: Handmade, tmp_path: Path) -> None:
    base = resolve(quantised_folder(tmp_path / "base", "fp8"), cache=tmp_path / "cache")
    folder = handmade(_factors("model.layers.0.self_attn.q_proj", HIDDEN, HIDDEN))
    store, notes = _added(tmp_path / "store", folder, base)
    assert store.base_norm is None
    assert notes[0].kind == "quantised"


def test_one_of_several_experts_in_one_weight_is_refused(
    handmade: Handmade, family_base: Callable[[str], Base], tmp_path: Path
) -> None:
    base = family_base("mixtral")
    folder = handmade(_factors("model.layers.0.block_sparse_moe.experts.1.w1", 64, 160))
    with pytest.raises(AdapterError, match="with the other experts") as caught:
        _added(tmp_path / "store", folder, base)
    assert caught.value.reason == "experts"


def test_the_norm_of_a_layer_that_is_a_part_of_a_tensor_is_its_own(handmade: Handmade, tmp_path: Path) -> None:
    """That of the whole tensor would allow more than a rule says."""
    config = AutoConfig.for_model(
        "hrm_text",
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=128,
        H_cycles=1,
        L_cycles=1,
        L_bp_cycles=[1],
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    base = resolve(tmp_path / "base", cache=tmp_path / "cache")
    path = next(path for path, layer in base.layers().items() if layer.lies == "slice" and path.endswith("q_proj"))
    layer = base.layers()[path]
    store, _ = _added(tmp_path / "store", handmade(_factors(path, layer.inputs, layer.outputs)), base)
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float64)
    assert store.base_norm == pytest.approx(float(model.get_submodule(path).weight.detach().norm()), rel=1e-9)
