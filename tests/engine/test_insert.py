"""How soup layers take the place of linear ones: which are taken, which are left, and when the originals go."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import AutoModelForCausalLM

import soupmix_kernels
from soupmix.base import Base
from soupmix.engine.layers import SoupLinear, insert
from soupmix.engine.rows import ActiveBatch, LoadedAdapters
from soupmix.errors import BaseModelError
from soupmix.store import Adapter, Factors, Store


@pytest.fixture
def model(tiny_base: Base) -> nn.Module:
    made: nn.Module = AutoModelForCausalLM.from_pretrained(tiny_base.folder).eval().requires_grad_(False)
    return made


@pytest.fixture
def adapters(pico_store: Store) -> list[Adapter]:
    return [pico_store.load(name) for name in pico_store.names]


def inserted(model: nn.Module, adapters: list[Adapter], *, fused: bool = True) -> list[tuple[str, ...]]:
    return list(insert(model, adapters, ActiveBatch(LoadedAdapters.of(adapters), torch.device("cpu")), fused=fused))


def test_the_weights_of_a_group_are_gone_before_the_next_is_packed(
    model: nn.Module, adapters: list[Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise loading takes twice the model at its peak."""
    held = {
        path: StorageWeakRef(module.weight.untyped_storage())
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and path != "lm_head"  # that one is the embedding's too
    }
    alive: list[int] = []

    def pack(weight: torch.Tensor) -> torch.Tensor:
        alive.append(sum(not each.expired() for each in held.values()))
        return weight.clone()

    monkeypatch.setattr(soupmix_kernels, "pack", pack)
    groups = inserted(model, adapters)
    sizes = [len(paths) for paths in groups if paths != ("lm_head",)]
    left = [sum(sizes[number:]) for number in range(len(sizes))]
    assert alive[: len(left)] == left
    assert all(each.expired() for each in held.values())


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.float8_e4m3fn, torch.float64])
@pytest.mark.parametrize("fused", [True, False])
def test_a_layer_that_kernels_do_not_multiply_is_refused_by_name(
    model: nn.Module, adapters: list[Adapter], dtype: torch.dtype, fused: bool
) -> None:
    path = "model.layers.1.mlp.up_proj"
    layer = model.get_submodule(path)
    layer.weight = nn.Parameter((layer.weight.data * 10).to(dtype), requires_grad=False)
    before = {name: type(module) for name, module in model.named_modules()}
    with pytest.raises(BaseModelError, match=rf"layer '{path}' of the base holds its weight in {dtype}") as found:
        inserted(model, adapters, fused=fused)
    assert found.value.reason == "quantised"
    assert {name: type(module) for name, module in model.named_modules()} == before  # nothing half done


class Packed(torch.Tensor):
    """As libraries of quantised weights make them: a tensor that says bf16 or fp32, and holds something else."""


def test_a_layer_that_does_more_than_multiply_is_refused_by_name(model: nn.Module, adapters: list[Adapter]) -> None:
    layer = model.get_submodule("model.layers.0.self_attn.q_proj")
    layer.weight = nn.Parameter(layer.weight.data.as_subclass(Packed), requires_grad=False)
    with pytest.raises(BaseModelError, match="q_proj' of the base holds its weight as Packed"):
        inserted(model, adapters)


def test_layers_that_no_adapter_changes_are_left_as_they_are_where_they_are_not_plain(
    model: nn.Module, tiny_base: Base, tmp_path: Path, tiny_adapter: Callable[..., Path]
) -> None:
    store = Store(tmp_path / "store", create=True)
    store.add(tiny_adapter(targets=("q_proj",)), name="a", dimension="a", pole="a", base=tiny_base)
    untouched = ("model.layers.0.self_attn.k_proj", "model.layers.1.mlp.down_proj")
    for path in untouched:
        layer = model.get_submodule(path)
        layer.weight = nn.Parameter(layer.weight.data.to(torch.float8_e4m3fn), requires_grad=False)
    groups = inserted(model, [store.load("a")])
    assert all(type(model.get_submodule(path)) is nn.Linear for path in untouched)
    assert ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj") in groups


def test_layers_of_two_dtypes_are_not_computed_together(model: nn.Module, adapters: list[Adapter]) -> None:
    model.get_submodule("model.layers.0.self_attn.k_proj").to(torch.bfloat16)
    groups = inserted(model, adapters)
    assert ("model.layers.0.self_attn.k_proj",) in groups
    assert tuple(f"model.layers.1.self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj")) in groups
    assert isinstance(model.get_submodule("model.layers.0.self_attn.k_proj"), SoupLinear)


def test_what_the_model_does_not_have_is_named(model: nn.Module) -> None:
    factors = Factors(torch.ones(1, 32), torch.ones(32, 1), 1.0)
    with pytest.raises(BaseModelError, match=r"has no linear layer 'model\.layers\.9\.mlp\.up_proj'") as caught:
        inserted(model, [Adapter("a", "sha256:0", "sha256:0", {"model.layers.9.mlp.up_proj": factors})])
    assert caught.value.reason == "wrong-base"


class Doubled(nn.Linear):
    """A layer of a model's own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def test_a_layer_of_the_model_s_own_computes_in_its_own_way(model: nn.Module, adapters: list[Adapter]) -> None:
    path = "model.layers.0.self_attn.q_proj"
    layer = Doubled(32, 32, bias=False)
    layer.load_state_dict(model.get_submodule(path).state_dict())
    model.get_submodule("model.layers.0.self_attn").q_proj = layer
    x = torch.randn(3, 32)
    with torch.inference_mode():
        expected = layer(x)
        assert (path,) in inserted(model, adapters)
        assert torch.equal(model.get_submodule(path)(x), expected)
