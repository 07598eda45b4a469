"""Adapters of all experts in bases as they lie (half precision, shards), with patterns, and in files that were tampered with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from soupmix.base import Base, resolve
from soupmix.errors import AdapterError
from soupmix.merge import merge
from soupmix.policy import Policy
from soupmix.store import Store
from tests.support.experts import Case, model_of, save_by_peft
from tests.support.families import make_family

EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]
LAYER = "base_model.model.model.layers.0.mlp.experts"

pytestmark = [
    # PEFT looks for them among modules only, and finds them among parameters
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp("mixtral")
    return resolve(make_family("mixtral", folder / "base"), cache=folder / "cache")


@pytest.fixture(scope="module")
def saved(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of all experts, of rank 3."""
    folder = tmp_path_factory.mktemp("saved") / "experts"
    return save_by_peft(base, folder, 0, r=3, lora_alpha=5, target_modules=["k_proj"], target_parameters=EXPERTS)


def _held(base: Base, folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> Case:
    store = Store(folder / "store", create=True)
    for seed, (name, config) in enumerate(configs.items()):
        save_by_peft(base, folder / name, seed, **config)
        store.add(folder / name, name=name, dimension=name, pole=name, base=base)
    return Case(base, {name: folder / name for name in configs}, store, {})


def _merged(case: Case, soup: Mapping[str, float], out: Path, **how: Any) -> dict[str, Tensor]:
    merge(case.store, Policy.open(case.store).clamp(soup)).save_model(out, base=case.base, **how)
    return dict(model_of(out, torch.float32).named_parameters())


PATTERNED = {
    "patterned": {
        "r": 3, "lora_alpha": 5, "target_modules": ["k_proj"], "target_parameters": EXPERTS,
        "rank_pattern": {"down_proj": 2, r"layers\.0\.mlp\.experts\.gate_up_proj": 4},
        "alpha_pattern": {"gate_up_proj": 7, "k_proj": 2},
    },
    "rslora": {
        "r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": [], "target_parameters": EXPERTS,
        "rank_pattern": {"down_proj": 9},
    },
}  # fmt: skip


def test_patterns_of_parameters_mean_what_peft_means_by_them_and_two_such_adapters_add_up(
    base: Base, tmp_path: Path
) -> None:
    case = _held(base, tmp_path, PATTERNED)
    held = case.store.load("patterned").modules
    ranks = {path: factors.rank for path, factors in held.items()}
    assert ranks["model.layers.0.mlp.experts.gate_up_proj[3]"] == 4
    assert ranks["model.layers.1.mlp.experts.gate_up_proj[3]"] == 3
    assert {rank for path, rank in ranks.items() if "down_proj" in path} == {2}
    for number, soup in enumerate([{"patterned": 1.0}, {"patterned": 0.7, "rslora": 0.4}]):
        exact, ours = case.oracle(soup), _merged(case, soup, tmp_path / str(number))
        for path, tensor in exact.items():
            assert (ours[path].double() - tensor).norm() < 1e-6 * tensor.norm(), path


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_of_half_precision_in_shards_is_rounded_once(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = make_family("mixtral", tmp_path / "base", dtype=dtype, shard="150KB")
    files = sorted(folder.glob("*.safetensors"))
    places = {key: path for path in files for key in load_file(path)}
    experts = {places[key] for key in places if key.startswith("model.layers.0.block_sparse_moe.experts.")}
    assert len(experts) > 1, "the experts of one weight lie in several files"
    configs = {name: {**PATTERNED[name], "rank_pattern": {}, "alpha_pattern": {}} for name in PATTERNED}
    case = _held(resolve(folder, cache=tmp_path / "cache"), tmp_path, configs)
    soup = {"patterned": 0.7, "rslora": 0.4}
    exact, ours = case.oracle(soup), _merged(case, soup, tmp_path / "out", shard_size=200_000)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    for path, tensor in exact.items():
        best = (tensor.to(dtype).double() - tensor).norm()
        assert (ours[path].double() - tensor).norm() <= 1.001 * best + 1e-7 * tensor.norm(), path


def _refused(folder: Path, base: Base, where: Path) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        Store(where, create=True).add(folder, dimension="a", pole="a", base=base)
    return caught.value


def _changed(saved: Path, folder: Path, factors: Mapping[str, Tensor], **config: Any) -> Path:
    folder.mkdir()
    said = json.loads((saved / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(said | config))
    save_file(load_file(saved / "adapter_model.safetensors") | factors, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize("name", ["experts.nothing", "k_proj", "layers.7.mlp.experts.down_proj", "xperts.down_proj"])
def test_parameters_that_are_none_of_the_base_are_refused(base: Base, saved: Path, tmp_path: Path, name: str) -> None:
    folder = _changed(saved, tmp_path / "changed", {}, target_parameters=[name])
    refused = _refused(folder, base, tmp_path / "store")
    assert (refused.reason, name in str(refused)) == ("unsupported", True)


def _single(path: str, outputs: int = 64, inputs: int = 160) -> dict[str, Tensor]:
    name = f"base_model.model.{path}.lora_"
    return {f"{name}A.weight": torch.ones(3, inputs), f"{name}B.weight": torch.ones(outputs, 3)}


def test_factors_of_one_expert_beside_those_of_all_are_refused(base: Base, saved: Path, tmp_path: Path) -> None:
    path = "model.layers.0.mlp.experts.down_proj[1]"
    refused = _refused(_changed(saved, tmp_path / "changed", _single(path)), base, tmp_path / "store")
    assert (refused.reason, f"{path}.lora_A" in str(refused)) == ("bad-key", True)


def _of_one(folder: Path, path: str) -> Path:
    folder.mkdir()
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 3, "lora_alpha": 3, "target_modules": ["down_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(_single(path), folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("model.layers.0.mlp.experts.down_proj[4]", "wrong-base"),
        ("model.layers.0.mlp.experts.down_proj[01]", "wrong-base"),
        ("model.layers.0.mlp.experts.down_proj", "wrong-base"),
        ("model.layers.0.mlp.experts.down_proj[-1]", "bad-key"),
        ("model.layers.0.mlp.experts.down_proj[1][1]", "bad-key"),
        ("model.layers.0.mlp.experts.down_proj[1].x", "bad-key"),
        ("model.layers.0.mlp.experts.down_proj[\N{ARABIC-INDIC DIGIT ONE}]", "bad-key"),
        ("model.layers.0.self_attn.o_proj[0]", "wrong-base"),
        ("[0]", "bad-key"),
    ],
)
def test_a_name_of_an_expert_in_a_file_is_taken_for_no_other(
    base: Base, tmp_path: Path, path: str, reason: str
) -> None:
    refused = _refused(_of_one(tmp_path / "one", path), base, tmp_path / "store")
    assert refused.reason == reason, refused


def test_a_file_with_factors_of_one_expert_changes_that_expert(base: Base, tmp_path: Path) -> None:
    """It is the form that a store holds; PEFT has no name for it."""
    path, store = "model.layers.0.mlp.experts.down_proj", Store(tmp_path / "store", create=True)
    store.add(_of_one(tmp_path / "one", f"{path}[2]"), name="one", dimension="one", pole="one", base=base)
    ours = _merged(Case(base, {}, store, {}), {"one": 1.0}, tmp_path / "out")
    for name, tensor in model_of(base.folder, torch.float32).named_parameters():
        apart = ours[name] - tensor
        assert apart.any() == (name == path)
        if name == path:
            assert [bool(each.any()) for each in apart] == [False, False, True, False]
            torch.testing.assert_close(apart[2], torch.full((64, 160), 3.0))
