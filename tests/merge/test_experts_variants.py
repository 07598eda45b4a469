"""Adapters of all experts in bases as they lie (half precision, shards), with patterns, and of one expert alone."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from soupmix.base import Base, resolve
from soupmix.merge import merge
from soupmix.policy import Policy
from soupmix.store import Store
from tests.support.experts import EXPERTS, Case, model_of, of_one_expert, save_by_peft
from tests.support.families import make_family

pytestmark = [
    # PEFT looks for them among modules only, and finds them among parameters
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning"),
]


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
    family_base: Callable[[str], Base], tmp_path: Path
) -> None:
    case = Case.made(family_base("mixtral"), tmp_path, PATTERNED, save_by_peft)
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
    case = Case.made(resolve(folder, cache=tmp_path / "cache"), tmp_path, configs, save_by_peft)
    soup = {"patterned": 0.7, "rslora": 0.4}
    exact, ours = case.oracle(soup), _merged(case, soup, tmp_path / "out", shard_size=200_000)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    for path, tensor in exact.items():
        best = (tensor.to(dtype).double() - tensor).norm()
        assert (ours[path].double() - tensor).norm() <= 1.001 * best + 1e-7 * tensor.norm(), path


def test_a_file_with_factors_of_one_expert_changes_that_expert(
    family_base: Callable[[str], Base], tmp_path: Path
) -> None:
    """It is the form that a store holds; PEFT has no name for it."""
    base, path = family_base("mixtral"), "model.layers.0.mlp.experts.down_proj"
    store = Store(tmp_path / "store", create=True)
    store.add(of_one_expert(tmp_path / "one", f"{path}[2]"), name="one", dimension="one", pole="one", base=base)
    ours = _merged(Case(base, {}, store, {}), {"one": 1.0}, tmp_path / "out")
    for name, tensor in model_of(base.folder, torch.float32).named_parameters():
        apart = ours[name] - tensor
        assert apart.any() == (name == path)
        if name == path:
            assert [bool(each.any()) for each in apart] == [False, False, True, False]
            torch.testing.assert_close(apart[2], torch.full((64, 160), 3.0))
