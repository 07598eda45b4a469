"""Exported adapters against PEFT, against float64, and against the exported model."""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from soupmix.base import Base
from soupmix.errors import OutputError, RecipeError
from soupmix.merge import Soup, merge
from soupmix.policy import Grant
from soupmix.store.store import Store

WEIGHTS = {"friendly": 0.5, "concise": 0.9, "expert": 0.25}


def exported(folder: Path) -> dict[str, Tensor]:
    """Module -> B A in float64, of a folder that must have scaling 1."""
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"]
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    assert not config["use_rslora"]
    tensors = load_file(folder / "adapter_model.safetensors")
    prefix, end = "base_model.model.", ".lora_A.weight"
    paths = [name[len(prefix) : -len(end)] for name in tensors if name.endswith(end)]
    assert sorted(paths) == config["target_modules"]
    return {p: tensors[f"{prefix}{p}.lora_B.weight"].double() @ tensors[f"{prefix}{p}{end}"].double() for p in paths}


def from_folders(folders: Mapping[str, Path], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """sum_k w_k s_k B_k A_k in float64, read from PEFT's files with nothing of soupmix; PEFT's rule for patterns."""
    total: dict[str, Tensor] = {}
    for name, folder in folders.items():
        config = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
        for key in (key for key in tensors if key.endswith(".lora_A.weight")):
            path = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            hits = [a for p, a in config["alpha_pattern"].items() if re.match(rf"(.*\.)?({p})$", path)]
            alpha, rank = (hits or [config["lora_alpha"]])[0], tensors[key].shape[0]
            scaling = alpha / (math.sqrt(rank) if config["use_rslora"] else rank)
            B = tensors[key.replace("lora_A", "lora_B")].double()
            delta = weights[name] * scaling * (B @ tensors[key].double())
            total[path] = total[path] + delta if path in total else delta
    return total


def relative(made: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> float:
    assert made.keys() == exact.keys()
    apart = math.hypot(*(float((made[p] - exact[p]).norm()) for p in exact))
    return apart / math.hypot(*(float(delta.norm()) for delta in exact.values()))


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return model(torch.arange(2, 42).view(2, 20)).logits


@pytest.mark.parametrize("combination", ["cat", "svd"])
def test_delta_is_what_peft_merges_exactly(
    combination: str, soup: Soup, folders: Mapping[str, Path], tiny_base: Base, tmp_path: Path
) -> None:
    soup.save_adapter(tmp_path / "out")
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_base.folder), folders["friendly"], adapter_name="friendly"
    )
    for name in ("concise", "expert"):
        model.load_adapter(folders[name], adapter_name=name)
    more = {"svd_rank": 12} if combination == "svd" else {}
    model.add_weighted_adapter(list(WEIGHTS), list(WEIGHTS.values()), "merged", combination_type=combination, **more)
    theirs = {
        path.removeprefix("base_model.model."): layer.get_delta_weight("merged").double()
        for path, layer in model.named_modules()
        if hasattr(layer, "get_delta_weight") and "merged" in layer.lora_A
    }
    assert relative(exported(tmp_path / "out"), theirs) <= 1e-5


def test_rslora_and_patterns_are_exact_against_float64(
    make_store: Callable[..., Store],
    grant: Callable[..., Grant],
    folders: Mapping[str, Path],
    patterned: Mapping[str, Path],
    tmp_path: Path,
) -> None:
    for number, made in enumerate((folders, patterned)):
        store = make_store(made, where=f"store{number}")
        merge(store, grant(store, **WEIGHTS)).save_adapter(tmp_path / f"out{number}")
        assert relative(exported(tmp_path / f"out{number}"), from_folders(made, WEIGHTS)) <= 1e-6


@pytest.mark.parametrize("kind", ["folders", "patterned"])
def test_adapter_in_peft_and_model_in_transformers_give_the_same_logits(
    kind: str,
    request: pytest.FixtureRequest,
    make_store: Callable[..., Store],
    grant: Callable[..., Grant],
    tiny_base: Base,
    tmp_path: Path,
) -> None:
    store = make_store(request.getfixturevalue(kind))
    soup = merge(store, grant(store, **WEIGHTS))
    soup.save_adapter(tmp_path / "adapter")
    soup.save_model(tmp_path / "model", base=tiny_base)
    base = AutoModelForCausalLM.from_pretrained(tiny_base.folder)
    plain = logits(base)
    adapted = logits(PeftModel.from_pretrained(base, tmp_path / "adapter"))
    folded = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "model"))
    assert (adapted - plain).abs().max() > 0.1
    torch.testing.assert_close(folded, adapted, rtol=1e-5, atol=1e-5)


def test_one_adapter_at_weight_one_acts_as_its_own_folder_in_peft(
    three: Store, grant: Callable[..., Grant], folders: Mapping[str, Path], tiny_base: Base, tmp_path: Path
) -> None:
    merge(three, grant(three, concise=1.0)).save_adapter(tmp_path / "out")
    ours, theirs = (
        logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base.folder), folder))
        for folder in (tmp_path / "out", folders["concise"])
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_exact_rank_is_the_sum_of_ranks_and_the_reported_error_is_fp32_rounding(soup: Soup, tmp_path: Path) -> None:
    saved = soup.save_adapter(tmp_path / "out")
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["r"] == 4 + 6 + 2  # down_proj, which all three adapt
    assert saved.errors["truncation"].total == 0.0
    assert 0 < saved.errors["total"].total < 1e-7


def test_recompression_is_the_dense_truncated_svd_and_says_what_it_lost(
    soup: Soup, folders: Mapping[str, Path], tmp_path: Path
) -> None:
    exact = from_folders(folders, WEIGHTS)
    for rank in (1, 3, 12):
        saved = soup.save_adapter(tmp_path / f"r{rank}", rank=rank)
        made = exported(tmp_path / f"r{rank}")
        lost = {path: torch.linalg.svdvals(delta)[rank:] for path, delta in exact.items()}
        total = math.hypot(*(float(v.norm()) for v in lost.values()), 0.0)
        total /= math.hypot(*(float(delta.norm()) for delta in exact.values()))
        assert saved.errors["truncation"].total == pytest.approx(total, abs=1e-6)
        assert saved.errors["total"].total == pytest.approx(relative(made, exact), rel=1e-4, abs=1e-7)
        for path, delta in exact.items():
            module = float((made[path] - delta).norm() / delta.norm())
            assert saved.errors["total"].modules[path] == pytest.approx(module, rel=1e-4, abs=1e-7)
            assert torch.linalg.matrix_rank(made[path]) <= rank


@pytest.mark.parametrize(("dtype", "low", "high"), [("fp32", 1e-9, 1e-7), ("fp16", 1e-5, 1e-3), ("bf16", 1e-4, 1e-2)])
def test_the_rounding_of_stored_factors_is_reported(
    dtype: str, low: float, high: float, soup: Soup, folders: Mapping[str, Path], tmp_path: Path
) -> None:
    saved = soup.save_adapter(tmp_path / "out", dtype=dtype)
    apart = relative(exported(tmp_path / "out"), from_folders(folders, WEIGHTS))
    assert low < apart < high
    assert saved.errors["total"].total == pytest.approx(apart, rel=0.05)


def test_a_store_accepts_the_exported_adapter_as_one_of_its_own(
    soup: Soup, make_store: Callable[..., Store], grant: Callable[..., Grant], tmp_path: Path
) -> None:
    soup.save_adapter(tmp_path / "out")
    store = make_store({"alice": tmp_path / "out"}, where="second")
    merge(store, grant(store, alice=1)).save_adapter(tmp_path / "again")
    assert relative(exported(tmp_path / "again"), exported(tmp_path / "out")) == 0.0


def test_what_cannot_be_an_adapter_is_refused(three: Store, grant: Callable[..., Grant], tmp_path: Path) -> None:
    soup = merge(three, grant(three, friendly=1))
    for options, reason in (({"rank": 0}, "bad-rank"), ({"dtype": "int8"}, "unknown-dtype")):
        with pytest.raises(RecipeError) as caught:
            soup.save_adapter(tmp_path / "out", **options)
        assert caught.value.reason == reason
    with pytest.raises(RecipeError, match="no adapter was granted") as caught:
        merge(three, grant(three)).save_adapter(tmp_path / "out")
    assert caught.value.reason == "empty-soup"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_factors_beyond_fp16_are_refused(
    make_store: Callable[..., Store], grant: Callable[..., Grant], tiny_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    store = make_store({"loud": tiny_adapter(seed=1, scale=300.0, alpha=2000)})
    with pytest.raises(OutputError, match=r"lora_B.* do not fit F16") as caught:
        merge(store, grant(store, loud=1)).save_adapter(tmp_path / "out", dtype="fp16")
    assert caught.value.reason == "overflow"
