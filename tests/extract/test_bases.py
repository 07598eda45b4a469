"""Bases whose layers have biases or lie the other way round, and adapters that replace whole tensors."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoHaConfig, LoraConfig, VeraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from soupmix.base import Base, resolve
from soupmix.errors import AdapterError
from soupmix.extract import extract_adapter
from tests.support.families import make_family
from tests.support.tuned import Tuned, tuned_deltas


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Callable[..., Base]:
    made: dict[str, Base] = {}

    def make(name: str, dtype: torch.dtype = torch.float32) -> Base:
        if f"{name} {dtype}" not in made:
            folder = make_family(name, tmp_path_factory.mktemp("family") / name, dtype=dtype)
            made[f"{name} {dtype}"] = resolve(folder, cache=session_cache)
        return made[f"{name} {dtype}"]

    return make


def adapted(base: Base, folder: Path, config: object) -> Tuned:
    """An adapter on that base, in fp32 whatever the base is in."""
    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return Tuned(folder, model.eval())


CASES = {
    "loha on bf16": ("llama-bias", torch.bfloat16, lambda: LoHaConfig(r=2, target_modules=["q_proj", "down_proj"])),
    "dora on bf16": ("llama-bias", torch.bfloat16, lambda: LoraConfig(r=2, target_modules=["q_proj"], use_dora=True)),
    "dora, other way round": (
        "gpt2",
        torch.float32,
        lambda: LoraConfig(r=2, target_modules=["c_attn", "c_proj"], use_dora=True, fan_in_fan_out=True),
    ),
    "vera, other way round": (
        "gpt2",
        torch.float32,
        lambda: VeraConfig(r=3, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True),
    ),
    "pissa, other way round": (
        "gpt2",
        torch.float32,
        lambda: LoraConfig(r=2, target_modules=["c_attn", "c_proj"], init_lora_weights="pissa", fan_in_fan_out=True),
    ),
    "fused": ("phi3", torch.float32, lambda: LoHaConfig(r=2, target_modules=["qkv_proj", "gate_up_proj"])),
}


@pytest.mark.parametrize("case", CASES)
def test_whatever_way_round_a_weight_lies(case: str, family: Callable[..., Base], tmp_path: Path) -> None:
    name, dtype, config = CASES[case]
    base = family(name, dtype)
    made = adapted(base, tmp_path / "adapter", config())
    exact = tuned_deltas(made, base.folder)
    extraction = extract_adapter(made.folder, base=base)
    assert set(extraction.layers) == set(exact)
    for path, layer in extraction.layers.items():
        found = (layer.left.double() * layer.values[: layer.left.shape[1]]) @ layer.right.double()
        assert float((found - exact[path]).norm() / exact[path].norm()) < (1e-4 if "pissa" in case else 2e-6)


def test_a_scaled_bias_is_left_out_by_name(family: Callable[..., Base], tmp_path: Path) -> None:
    """IA3 scales what a layer gives, bias and all."""
    base = family("llama-bias")
    made = adapted(base, tmp_path / "adapter", IA3Config(target_modules=["q_proj"], feedforward_modules=[]))
    scales = load_file(made.folder / "adapter_model.safetensors")
    tensors = load_file(base.folder / "model.safetensors")
    extraction = extract_adapter(made.folder, base=base)
    path = "model.layers.0.self_attn.q_proj"
    scale = scales[f"base_model.model.{path}.ia3_l"].double().flatten() - 1
    assert extraction.left_out[f"{path}.bias"] == pytest.approx(
        float((tensors[f"{path}.bias"].double() * scale).norm()), rel=1e-6
    )


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_trained_biases_are_left_out_by_name(bias: str, family: Callable[..., Base], tmp_path: Path) -> None:
    base = family("llama-bias")
    made = adapted(
        base, tmp_path / "adapter", LoraConfig(r=2, target_modules=["q_proj"], bias=bias, task_type="CAUSAL_LM")
    )
    extraction = extract_adapter(made.folder, base=base)
    left = {name for name in extraction.left_out if name.endswith(".bias")}
    assert len(left) == (14 if bias == "all" else 2)
    before, after = load_file(base.folder / "model.safetensors"), dict(made.model.base_model.model.named_parameters())
    name = "model.layers.1.self_attn.q_proj"
    change = after[f"{name}.base_layer.bias"].detach().double() - before[f"{name}.bias"].double()
    assert extraction.left_out[f"{name}.bias"] == pytest.approx(float(change.norm()), rel=1e-5)


@pytest.mark.filterwarnings("ignore:Adapter .default.. 2 LoRA tensor")  # PEFT takes biases for broken factors
def test_a_bias_of_the_factors_is_left_out_by_name(family: Callable[..., Base], tmp_path: Path) -> None:
    base = family("llama-bias")
    made = adapted(base, tmp_path / "adapter", LoraConfig(r=2, target_modules=["q_proj"], lora_bias=True))
    extraction = extract_adapter(made.folder, base=base)
    assert set(extraction.left_out) == {f"model.layers.{layer}.self_attn.q_proj.bias" for layer in range(2)}


def test_replaced_modules_are_changes_of_theirs(family: Callable[..., Base], tmp_path: Path) -> None:
    """A linear layer comes in by its singular values, a norm is left out by name."""
    base = family("llama-bias")
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["o_proj", "norm"], task_type="CAUSAL_LM")
    made = adapted(base, tmp_path / "adapter", config)
    extraction = extract_adapter(made.folder, base=base)
    before = load_file(base.folder / "model.safetensors")
    saved = load_file(made.folder / "adapter_model.safetensors")
    path = "model.layers.0.self_attn.o_proj"
    change = saved[f"base_model.model.{path}.weight"].double() - before[f"{path}.weight"].double()
    assert torch.allclose(extraction.layers[path].values, torch.linalg.svdvals(change), rtol=1e-9)
    assert extraction.left_out["model.norm.weight"] > 0
    assert extraction.norm > math.hypot(*(layer.norm for layer in extraction.layers.values()))


def test_an_adapter_of_another_base_is_refused(adapter_of: Callable[[str], Tuned], family: Callable[..., Base]) -> None:
    with pytest.raises(AdapterError) as refused:
        extract_adapter(adapter_of("loha").folder, base=family("llama-bias"))
    assert refused.value.reason == "not-of-method"


def test_a_tensor_too_many_is_refused(adapter_of: Callable[[str], Tuned], tiny_base: Base, tmp_path: Path) -> None:
    source = adapter_of("loha").folder
    tensors = load_file(source / "adapter_model.safetensors")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    save_file(tensors | {"base_model.model.extra": torch.zeros(2)}, tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="extra") as refused:
        extract_adapter(tmp_path / "adapter", base=tiny_base)
    assert refused.value.reason == "not-of-method"
