"""Adapters of all experts of a layer at once, whose weights are of three dimensions, held to what PEFT merges."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from soupmix.base import Base
from soupmix.base.layers import weight_path
from soupmix.base.pieces import pieces_of
from soupmix.engine import Engine
from soupmix.errors import RecipeError
from soupmix.merge import merge
from soupmix.policy import Policy
from soupmix.store import Store
from tests.support.experts import CONFIGS, Case, model_of, save_by_peft

NAMES = ["mixtral", *(pytest.param(name, marks=pytest.mark.slow) for name in ("qwen3-moe", "olmoe", "deepseek-v3-hub"))]
WHOLE = ["gpt-oss", pytest.param("llama4-text", marks=pytest.mark.slow)]  # [experts, inputs, outputs] on disk
IDS = torch.tensor([[3, 14, 15, 92, 65, 35, 89, 79]])

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning"),
    # PEFT looks for them among modules only, and finds them among parameters
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning"),
]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, family_base: Callable[[str], Base]) -> Callable[[str], Case]:
    @cache
    def make(name: str) -> Case:
        configs = dict(CONFIGS)
        if name not in ("gpt-oss", "llama4-text", "deepseek-v3-hub"):
            configs["all"] = {"r": 4, "lora_alpha": 4, "target_modules": "all-linear"}
        if name == "deepseek-v3-hub":
            configs["linear"] = configs["linear"] | {"target_modules": ["q_a_proj", "o_proj"]}
            configs["experts"] = configs["experts"] | {"target_modules": ["kv_b_proj"]}
        return Case.made(family_base(name), tmp_path_factory.mktemp(name), configs, save_by_peft)

    return make


def _granted(store: Store, soup: Mapping[str, float]) -> Any:
    return merge(store, Policy.open(store).clamp(soup))


@pytest.mark.parametrize("name", [*NAMES, *WHOLE])
def test_a_model_is_what_peft_merges(case: Callable[[str], Case], name: str, tmp_path: Path) -> None:
    made = case(name)
    weights = dict(zip(made.folders, (0.5, 0.7, 0.3, 0.9), strict=False))
    for number, soup in enumerate([{"down": 1.0}, {"experts": 1.0}, weights]):
        out = tmp_path / str(number)
        _granted(made.store, soup).save_model(out, base=made.base)
        exact, ours = made.oracle(soup), dict(model_of(out, torch.float32).named_parameters())
        for path, tensor in exact.items():
            apart = (ours[path].double() - tensor).norm() / tensor.norm()
            assert apart < 1e-6, (path, float(apart))
        before, after = load_file(made.base.folder / "model.safetensors"), load_file(out / "model.safetensors")
        assert {key: value.shape for key, value in after.items()} == {key: each.shape for key, each in before.items()}


@pytest.mark.parametrize("name", [*NAMES, *WHOLE])
def test_norms_and_inner_products_are_those_of_peft(case: Callable[[str], Case], name: str) -> None:
    made = case(name)
    plain, changed = made.oracle({}), set[str]()
    deltas = {}
    for each in made.folders:
        merged = made.oracle({each: 1.0})
        deltas[each] = {path: merged[path] - tensor for path, tensor in plain.items()}
        changed |= {path for path, delta in deltas[each].items() if delta.any()}
    for one in made.folders:
        for other in made.folders:
            exact = sum(float((deltas[one][path] * deltas[other][path]).sum()) for path in plain)
            size = sum(float(deltas[one][path].square().sum()) for path in plain)
            assert abs(made.store.inner_product(one, other) - exact) < 1e-6 * size
    norm = sum(float(plain[path].square().sum()) for path in changed) ** 0.5
    assert made.store.base_norm == pytest.approx(norm, rel=1e-6)
    assert {weight_path(path) for path in made.store.manifest.gram.modules} == set(made.store.manifest.gram.modules)
    path = next(path for path in made.store.manifest.gram.modules if path.endswith("down_proj"))
    exact = float((deltas["experts"][path] * deltas["down"][path]).sum())
    index = made.store.names.index
    assert made.store.gram_of(path)[index("experts"), index("down")] == pytest.approx(exact, rel=1e-5, abs=1e-6)


def test_it_is_refused_by_name_where_it_cannot_be(case: Callable[[str], Case], tmp_path: Path) -> None:
    made = case("mixtral")
    with pytest.raises(RecipeError, match=r"experts\.down_proj\[0\] and \d+ more.*--as model") as refused:
        _granted(made.store, {"experts": 1}).save_adapter(tmp_path / "out")
    assert refused.value.reason == "experts"
    assert not (tmp_path / "out").exists()


def test_a_row_without_it_is_served_and_one_with_it_refused(case: Callable[[str], Case]) -> None:
    made = case("mixtral")
    engine, clamp = Engine.load(made.base, made.store, dtype="fp32"), Policy.open(made.store).clamp
    assert engine.adapters.names == ("linear",)
    with pytest.raises(RecipeError, match=r"'experts' changes experts.*soupmix merge --as model") as refused:
        engine.logits(IDS, [clamp({"linear": 0.5, "experts": 0.1})])
    assert refused.value.reason == "experts"
    model = model_of(made.base.folder, torch.float32)
    model.load_state_dict({path: tensor.float() for path, tensor in made.oracle({"linear": 0.5}).items()})
    with torch.inference_mode():
        exact = model(IDS).logits
    rows = engine.logits(IDS, [clamp({"linear": 0.5, "experts": 0})])
    torch.testing.assert_close(rows, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*NAMES, *WHOLE])
def test_pieces_are_the_rows_that_transformers_takes(case: Callable[[str], Case], name: str) -> None:
    base = case(name).base
    layers, tensors = base.layers(), base.tensors()
    held, model = (
        load_file(base.folder / "model.safetensors"),
        dict(model_of(base.folder, torch.float32).named_parameters()),
    )
    for layer in (each for each in layers.values() if each.kind == "experts"):
        rebuilt = torch.zeros(layer.stored_shape)
        for piece in pieces_of(layers, layer, tensors):
            rows = held[piece.tensor].reshape(-1, layer.stored_shape[2])[piece.at : piece.at + piece.count]
            rebuilt[piece.expert, piece.first : piece.first + piece.count] = rows
        assert torch.equal(rebuilt, model[layer.parameter])
