"""What is extracted of an adapter is what PEFT computes with it, unmerged, method by method."""

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from soupmix.base import Base
from soupmix.errors import AdapterError
from soupmix.extract import Extraction, extract_adapter, settings
from tests.support.tuned import METHODS, RARE, Tuned, tuned, tuned_deltas


def factors(folder: Path) -> dict[str, Tensor]:
    """Path -> B A in float64, of a folder of scaling 1."""
    tensors = load_file(folder / "adapter_model.safetensors")
    prefix, end = "base_model.model.", ".lora_A.weight"
    paths = [name[len(prefix) : -len(end)] for name in tensors if name.endswith(end)]
    return {p: tensors[f"{prefix}{p}.lora_B.weight"].double() @ tensors[f"{prefix}{p}{end}"].double() for p in paths}


def relative(made: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> float:
    assert made.keys() == exact.keys()
    apart = math.hypot(*(float((made[p] - exact[p]).norm()) for p in exact))
    return apart / math.hypot(*(float(delta.norm()) for delta in exact.values()))


@pytest.fixture(scope="session")
def extraction_of(adapter_of: Callable[[str], Tuned], tiny_base: Base) -> Callable[[str], Extraction]:
    made: dict[str, Extraction] = {}

    def make(method: str) -> Extraction:
        if method not in made:
            made[method] = extract_adapter(adapter_of(method).folder, base=tiny_base)
        return made[method]

    return make


@pytest.mark.parametrize(
    "method", [pytest.param(each, marks=pytest.mark.slow) if each in RARE else each for each in METHODS]
)
def test_what_peft_computes_unmerged_and_what_a_rank_misses_of_it(
    method: str, adapter_of: Callable[[str], Tuned], extraction_of: Callable[[str], Extraction], tiny_base: Base,
    tmp_path: Path,
) -> None:  # fmt: skip
    exact = tuned_deltas(adapter_of(method), tiny_base.folder)
    near = 1e-4 if "pissa" in method or "olora" in method else 2e-6  # their starting point is computed in fp32
    whole = extraction_of(method).save(tmp_path / "whole", error=1e-6)
    assert relative(factors(tmp_path / "whole"), exact) < near
    assert whole.errors.total < 1e-6
    saved = extraction_of(method).save(tmp_path / "out", rank=2, error=1.0)
    made = factors(tmp_path / "out")
    assert relative(made, exact) == pytest.approx(saved.errors.total, rel=1e-3, abs=near)
    for path, delta in exact.items():
        best = torch.linalg.svdvals(delta)
        missed = relative({path: made[path]}, {path: delta})
        assert missed == pytest.approx(saved.errors.modules[path], rel=1e-3, abs=near)
        assert missed == pytest.approx(float(best[2:].norm() / best.norm()), rel=1e-3, abs=near)


@pytest.mark.parametrize("names", [[".base_layer.weight"], [".weight", ".modules_to_save.weight"]])
def test_a_layer_that_is_changed_twice_is_refused_by_name(
    names: list[str], adapter_of: Callable[[str], Tuned], tiny_base: Base, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(adapter_of("lora").folder, tmp_path / "twice"))
    path = "model.layers.0.self_attn.q_proj"
    whole = load_file(tiny_base.folder / "model.safetensors")[f"{path}.weight"]
    held = load_file(folder / "adapter_model.safetensors")
    if len(names) > 1:
        held = {key: value for key, value in held.items() if path not in key}
    held |= {f"base_model.model.{path}{name}": whole + 1 + place for place, name in enumerate(names)}
    save_file(held, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=rf"says twice what becomes of {path}") as caught:
        extract_adapter(folder, base=tiny_base)
    assert caught.value.reason == "bad-key"


def test_every_method_that_is_read_is_tried() -> None:
    methods = {each.partition(",")[0].partition(" ")[0].upper() for each in METHODS}
    assert methods - {"RSLORA", "DORA", "PISSA", "OLORA"} == set(settings.METHODS)


@pytest.mark.parametrize(
    ("method", "rank"),
    [
        ("lora", 3),
        ("rslora", 4),
        ("pissa", 6),
        ("olora", 6),
        ("adalora", 4),
        ("vera", 5),
        ("vera, not saved", 5),
        ("loha", 9),
    ],
)
def test_methods_of_low_rank_need_it(method: str, rank: int, extraction_of: Callable[[str], Extraction]) -> None:
    """LoHa of rank r has r squared; PiSSA and OLoRA take r columns away and put r others there."""
    extraction = extraction_of(method)
    assert extraction.needed(1e-5) == rank
    assert all(layer.needed(1e-5) == rank for layer in extraction.layers.values())


@pytest.mark.parametrize("method", ["dora", "ia3", "oft"])
def test_methods_of_full_rank_say_what_they_need(method: str, extraction_of: Callable[[str], Extraction]) -> None:
    extraction = extraction_of(method)
    needed = [extraction.needed(error) for error in (0.1, 0.01, 1e-5)]
    assert needed == sorted(needed)
    assert needed[-1] > 16


def test_merged_by_peft_in_float64_gives_the_same(
    adapter_of: Callable[[str], Tuned], tiny_base: Base, tmp_path: Path
) -> None:
    """The other way of PEFT: `merge_and_unload`."""
    made = adapter_of("loha")
    plain = AutoModelForCausalLM.from_pretrained(tiny_base.folder, dtype=torch.float64)
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    merged = PeftModel.from_pretrained(plain, made.folder, autocast_adapter_dtype=False).merge_and_unload().state_dict()
    exact = {
        name.removesuffix(".weight"): merged[name] - before[name]
        for name in before
        if (merged[name] != before[name]).any()
    }
    extract_adapter(made.folder, base=tiny_base).save(tmp_path / "out", error=1e-6)
    assert relative(factors(tmp_path / "out"), exact) < 2e-6


def test_adalora_whose_ranks_were_cut(tiny_base: Base, tmp_path: Path) -> None:
    """Its config says for every layer which columns are left, and its file has those alone."""
    made = tuned("adalora", tiny_base.folder, tmp_path / "first")
    keep = {"q_proj": [True, False, True, False], "v_proj": [False, False, False, True], "down_proj": [True] * 4}
    pattern = {}
    for path, layer in made.model.base_model.model.named_modules():
        if hasattr(layer, "lora_E"):
            kept = keep[path.rpartition(".")[2]]
            layer.lora_E["default"].data[[not each for each in kept]] = 0.0
            pattern[f"{path}.lora_E.default"] = kept
    made.model.peft_config["default"].rank_pattern = pattern
    made.model.save_pretrained(tmp_path / "cut")
    extraction = extract_adapter(tmp_path / "cut", base=tiny_base)
    extraction.save(tmp_path / "out", error=1e-6)
    assert relative(factors(tmp_path / "out"), tuned_deltas(made, tiny_base.folder)) < 2e-6
    assert {layer.needed(1e-5) for layer in extraction.layers.values()} == {1, 2, 4}
