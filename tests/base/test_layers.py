"""The table of layers against the model that transformers loads: what is computed, and the values that were on disk."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from soupmix.base import Base, LayerTable, loading, resolve, table
from soupmix.errors import AdapterError, BaseModelError
from soupmix.store import Store
from tests.support.families import make_family
from tests.support.random_adapter import save_random_adapter

Loaded = tuple[LayerTable, Any, dict[str, Tensor]]

FAMILIES = (
    "llama3.2-tied",
    "gpt2-hub",
    "gpt2",
    "bloom-hub",
    "gpt-neox",
    "gemma3",
    "mixtral",
    "qwen3-moe",
    "deepseek-v3-hub",
    "qwen3-next-hub",
    "gpt-oss",
    "jetmoe",
    "granitemoe",
    "phi3",
    "falcon-40b",
    "opt",
    "mamba",
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Loaded]:
    """A family's table, the model that transformers loads from its folder, and its tensors on disk."""

    @cache
    def load(name: str) -> Loaded:
        folder = make_family(name, tmp_path_factory.mktemp("family") / name)
        base = resolve(folder, cache=tmp_path_factory.mktemp("cache"))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        return base.layers(), model, load_file(folder / "model.safetensors")

    return load


@pytest.mark.parametrize("name", FAMILIES)
def test_every_layer_is_one_of_the_model_and_lies_where_it_says(loaded: Callable[[str], Loaded], name: str) -> None:
    table, model, disk = loaded(name)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    assert {layer.parameter for layer in table.values()} >= {
        f"{path}.weight" for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)
    }
    for layer in table.values():
        parameter = parameters[layer.parameter]
        assert tuple(parameter.shape) == layer.stored_shape
        held = [disk[tensor] for tensor in layer.tensors]
        if layer.lies == "whole":
            assert torch.equal(held[0], parameter)
        else:
            assert layer.lies in ("stacked", "slice", "converted")
            values = torch.cat([each.flatten() for each in held]).sort().values
            assert torch.equal(values, parameter.detach().flatten().sort().values)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_layer_maps_inputs_to_outputs(loaded: Callable[[str], Loaded], name: str) -> None:
    table, model, _ = loaded(name)
    generator = torch.Generator().manual_seed(3)
    for layer in table.values():
        if layer.kind in ("linear", "conv1d", "embedding"):
            module = model.get_submodule(layer.path)
            bias = getattr(module, "bias", None)
            weight = module.weight.T if layer.transposed else module.weight
            if layer.kind == "embedding":
                tokens = torch.randint(layer.inputs, (3,), generator=generator)
                x, y = torch.nn.functional.one_hot(tokens, layer.inputs).float(), module.weight[tokens]
            else:
                x = torch.randn(3, layer.inputs, generator=generator)
                y = module(x) - (0 if bias is None else bias)
            assert y.shape == (3, layer.outputs)
            torch.testing.assert_close(x @ weight.T, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "unused"),
    [
        ("llama3.2-tied", set()),
        ("gpt2-hub", {"h.0.attn.bias", "h.1.attn.bias"}),
        ("deepseek-v3-hub", {"model.layers.2."}),
        ("qwen3-next-hub", {"mtp."}),
    ],
)
def test_what_the_model_does_not_use_is_said(loaded: Callable[[str], Loaded], name: str, unused: set[str]) -> None:
    table, _, disk = loaded(name)
    assert list(table.unused) == sorted(each for each in disk if each.startswith(tuple(unused)))
    assert all(any(each.startswith(start) for each in table.unused) for start in unused)


def test_kinds_and_places(loaded: Callable[[str], Loaded]) -> None:
    table, _, _ = loaded("gpt2-hub")
    square = table["transformer.h.0.attn.c_proj"]
    assert (square.kind, square.shape, square.transposed) == ("conv1d", (64, 64), True)
    assert (square.tensors, square.lies) == (("h.0.attn.c_proj.weight",), "whole")
    assert (table["lm_head"].tied, table["lm_head"].tensors) == ("transformer.wte", ("wte.weight",))
    assert "lm_head" not in table.linear_shapes()
    table, _, _ = loaded("mixtral")
    experts = table["model.layers.0.mlp.experts.gate_up_proj"]
    assert (experts.kind, experts.experts, experts.shape, experts.transposed) == ("experts", 4, (320, 64), False)
    assert (experts.lies, len(experts.tensors)) == ("stacked", 8)
    assert table["model.layers.0.mlp.gate"].kind == "matrix"
    table, _, _ = loaded("gpt-oss")
    assert table["model.layers.0.mlp.experts.gate_up_proj"].transposed
    table, _, _ = loaded("gpt-neox")
    assert table["embed_out" if "embed_out" in table else "lm_head"].tied is None


# what is no model


def _edited(base: Base, folder: Path, **fields: Any) -> Base:
    shutil.copytree(base.folder, folder)
    config = json.loads((folder / "config.json").read_bytes())
    kept = {key: value for key, value in (config | fields).items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(kept))
    return Base("edited", folder, base.digest, None, "test")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model_type": "no-such-model"}, "cannot-load"),
        ({"model_type": "vit"}, "cannot-load"),
        ({"model_type": ...}, "cannot-load"),
        ({"hidden_size": "wide"}, "cannot-load"),
        ({"hidden_size": 33}, "cannot-load"),
        ({"num_hidden_layers": 10**9}, "bad-config"),
        ({"_attn_implementation": "someone/kernel"}, "remote-code"),
    ],
)
def test_a_config_of_no_model_is_refused(tiny_base: Base, tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(BaseModelError) as caught:
        _edited(tiny_base, tmp_path / "edited", **fields).layers()
    assert caught.value.reason == reason
    assert str(tmp_path) in str(caught.value)


def test_a_model_with_far_more_parts_than_tensors_is_not_built(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_MOST_CALLS", 10)
    monkeypatch.setattr(loading, "_CALLS_A_TENSOR", 1)
    base = _edited(tiny_base, tmp_path / "edited")
    for make in (base.layers, lambda: loading.load_model(base.folder, "auto")):
        with pytest.raises(BaseModelError, match="far more parts than the 20 tensors") as caught:
            make()
        assert caught.value.reason == "bad-config"


def test_a_layer_that_lies_nowhere_is_named(tiny_base: Base, tmp_path: Path) -> None:
    base = _edited(tiny_base, tmp_path / "edited", num_hidden_layers=3)
    made, path = base.layers(), "model.layers.2.mlp.up_proj"
    assert made[path].lies == "nowhere"
    with pytest.raises(BaseModelError, match=r"no weights for model\.layers\.2\.mlp\.up_proj") as caught:
        made.parameters(made[path], {})
    assert caught.value.reason == "incomplete"
    folder = save_random_adapter(base, tmp_path / "one", layers=[path])
    with pytest.raises(AdapterError, match=r"hold no weight: complete the base") as refused:
        Store(tmp_path / "store", create=True).add(folder, dimension="a", pole="a", base=base)
    assert refused.value.reason == "wrong-base"


def test_a_base_that_has_lost_its_config_says_so(tiny_base: Base, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_base.folder, tmp_path / "base"))
    (folder / "config.json").unlink()
    with pytest.raises(BaseModelError, match="put it there") as caught:
        replace(tiny_base, folder=folder).layers()
    assert caught.value.reason == "no-config"


def test_a_table_is_made_once_and_anew_when_the_config_changes(tiny_base: Base, tmp_path: Path) -> None:
    base = _edited(tiny_base, tmp_path / "edited", num_hidden_layers=1)
    made = base.layers()
    assert base.layers() is made
    assert "model.layers.1.mlp.up_proj.weight" in made.unused
    (base.folder / "config.json").write_bytes((tiny_base.folder / "config.json").read_bytes())
    assert "model.layers.1.mlp.up_proj" in base.layers()
    for number in range(20):
        table.layer_table(base.folder, f"sha256:{number}", tmp_path)
    assert len(table._tables) <= 8


def test_a_second_tensor_for_one_parameter_is_not_used(tiny_base: Base, tmp_path: Path) -> None:
    """transformers takes the first by name."""
    base = _edited(tiny_base, tmp_path / "edited")
    tensors = load_file(base.folder / "model.safetensors")
    twice = tensors | {"layers.0.mlp.up_proj.weight": tensors["model.layers.0.mlp.up_proj.weight"] + 1}
    save_file(twice, base.folder / "model.safetensors", metadata={"format": "pt"})
    model = AutoModelForCausalLM.from_pretrained(base.folder)
    layer = base.layers()["model.layers.0.mlp.up_proj"]
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, twice[layer.tensors[0]])
    assert base.layers().unused == ("model.layers.0.mlp.up_proj.weight",)


def test_a_name_as_long_as_a_book_is_of_no_layer(tiny_base: Base, tmp_path: Path) -> None:
    base = _edited(tiny_base, tmp_path / "edited")
    tensors = load_file(base.folder / "model.safetensors")
    save_file(tensors | {"a." * 100_000: torch.zeros(1)}, base.folder / "model.safetensors")
    assert len(base.layers().unused) == 1
