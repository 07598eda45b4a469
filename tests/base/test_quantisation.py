"""What config.json says of quantisation: its name, what is missing for it, and what a hostile file may not say."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from soupmix.base import load_model
from soupmix.base.companions import check_config, quantisation
from soupmix.base.quantisation import check_packages
from soupmix.base.safetensors import read_tensors
from soupmix.errors import BaseModelError
from tests.support.quantised import quantised_folder

TILES = {"_type": "TensorCoreTiledLayout", "_data": {}}


def said(folder: Path, settings: object, **fields: object) -> Path:
    (folder / "config.json").write_text(json.dumps({"quantization_config": settings, **fields}))
    return folder


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "FP8"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "AWQ, 4 bits"),
        ({"quant_method": "gptq", "bits": 8, "desc_act": True}, "GPTQ, 8 bits"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes nf4"),
        ({"load_in_8bit": True}, "bitsandbytes int8"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors pack-quantized"),
        (
            {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}},
            "torchao Int4WeightOnlyConfig",
        ),
        ({"quant_method": "hqq"}, "HQQ"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "\x1b[2J"}, "bitsandbytes ??2J"),
    ],
)
def test_it_is_named(settings: Mapping[str, Any], name: str, tmp_path: Path) -> None:
    found = quantisation(said(tmp_path, settings))
    assert found is not None
    assert found.name == name


def test_null_is_plain_and_a_config_inside_counts(tmp_path: Path) -> None:
    assert quantisation(said(tmp_path, None)) is None
    inside = quantisation(said(tmp_path, None, text_config={"quantization_config": {"quant_method": "fp8"}}))
    assert inside is not None
    assert inside.name == "FP8"


@pytest.mark.parametrize(
    ("settings", "inside"),
    [
        ({"quant_method": "gptq", "load_in_4bit": 1}, None),
        ({"quant_method": "gptq", "load_in_8bit": "yes"}, None),
        ({"quant_method": "gptq"}, {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    ],
)
def test_a_method_that_transformers_could_read_as_another_is_refused(
    settings: Mapping[str, Any], inside: Mapping[str, Any] | None, tmp_path: Path
) -> None:
    """The tensors would be checked for the one, and read by the compiled code of the other."""
    with pytest.raises(BaseModelError) as found:
        quantisation(said(tmp_path, settings, text_config={"quantization_config": inside}))
    assert found.value.reason == "bad-config"


def test_a_config_without_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BaseModelError) as found:
        quantisation(tmp_path)
    assert found.value.reason == "too-large"


@pytest.mark.parametrize(
    "settings", [{}, {"bits": 4}, {"quant_method": None}, {"quant_method": "mine"}, {"quant_method": ["gptq"]}]
)
def test_a_method_that_is_not_known_is_refused(settings: Mapping[str, Any], tmp_path: Path) -> None:
    """transformers would skip it with a warning, and load packed numbers as weights."""
    with pytest.raises(BaseModelError, match="which soupmix does not know; it knows aqlm, ") as found:
        quantisation(said(tmp_path, settings))
    assert found.value.reason == "unknown-quantisation"


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ("gptq", "pip install gptqmodel optimum"),
        ("awq", "pip install gptqmodel"),
        ("quanto", "pip install optimum-quanto"),
        ("bitsandbytes", "pip install bitsandbytes"),
        ("compressed-tensors", "pip install compressed-tensors"),
    ],
)
def test_a_package_that_is_missing_is_named(
    method: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = quantisation(said(tmp_path, {"quant_method": method}))
    assert found is not None
    with pytest.raises(BaseModelError, match=wanted) as refused:
        check_packages(found, "them")
    assert refused.value.reason == "quantiser-missing"


@pytest.mark.parametrize(
    "settings",
    [
        {"modules_to_not_convert": ["(a+)+$"]},
        {"modules_to_not_convert": ["a*a*a*a*b"]},
        {"llm_int8_skip_modules": ["x*"] * 1000},
        {"ignore": ["re:" + "x" * 1000]},
        {"config_groups": {"group_0": {"targets": ["re:(.*a){20}"]}}},
        {"quant_type": {"default": {"_type": "quantize_", "_data": {}}}},
        {"quant_type": {"default": {"_type": "Int4WeightOnlyConfig", "_data": {"x": {"_type": "os", "_data": {}}}}}},
        {"quant_type": {"re:(.*a)*": {"_type": "Int4WeightOnlyConfig", "_data": {}}}},
    ],
)
def test_hostile_settings_are_refused(settings: Mapping[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="quantization_config") as found:
        check_config(said(tmp_path, {"quant_method": "torchao"} | settings), {})
    assert found.value.reason == "bad-config"


def test_usual_settings_are_not(tmp_path: Path) -> None:
    usual = {
        "modules_to_not_convert": ["lm_head", "model.layers.0.mlp.gate", "model.layers.1.self_attn"],
        "ignore": ["lm_head", "re:.*mlp.gate$", "re:visual.*"],
        "quant_type": {
            "default": {
                "_type": "Int4WeightOnlyConfig",
                "_data": {"group_size": 32, "layout": TILES},
            }
        },
    }
    check_config(said(tmp_path, {"quant_method": "torchao"} | usual), {})


@pytest.fixture(scope="module")
def four_bits(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    pytest.importorskip("bitsandbytes")
    made = {kind: quantised_folder(tmp_path_factory.mktemp(kind) / "base", kind) for kind in ("nf4", "nf4-nested")}
    return lambda kind: made[kind]


def _state(folder: Path, change: Mapping[str, Any]) -> None:
    """Write another quant_state over every one that is there; spaces fill it up."""
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    for name, info in read_tensors(folder).items():
        if ".quant_state." in name:
            state = json.loads(bytes(data[info.start : info.end])) | change
            data[info.start : info.end] = json.dumps(state, separators=(",", ":")).encode().ljust(info.end - info.start)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [4096, 64]},
        {"shape": [64]},
        {"shape": [-64, -64]},
        {"shape": [64, True]},
        {"blocksize": 1},
        {"blocksize": 0},
        {"blocksize": None},
        {"nested_blocksize": 1},
    ],
)
@pytest.mark.parametrize("kind", ["nf4", "nf4-nested"])
def test_four_bit_weights_that_are_not_as_large_as_they_say_are_refused(
    change: Mapping[str, Any], kind: str, tmp_path: Path, four_bits: Callable[[str], Path]
) -> None:
    """Compiled code takes sizes from there, and would read beyond the end of what is in memory."""
    folder = shutil.copytree(four_bits(kind), tmp_path / "base")
    check_config(folder, read_tensors(folder))
    if "nested_blocksize" in change and kind == "nf4":
        return
    _state(folder, change)
    with pytest.raises(BaseModelError, match="damaged or hostile") as found:
        load_model(folder, "auto")
    assert found.value.reason == "bad-quantisation"


@pytest.mark.parametrize("what", ["backends.local", "evaluate", "extract.settings", "train.fit"])
def test_what_transformers_imports_unasked_says_nothing(what: str) -> None:
    pytest.importorskip("torchao")
    code = f"import soupmix.{what}\nfrom transformers import PrinterCallback\nimport logging"
    code += "\nlogging.getLogger('torchao').warning('this is asked')"
    # what bitsandbytes says on processors with products of bf16
    code += "\nlogging.getLogger('bitsandbytes.backends.cpu.ops').warning('Failed to load CPU gemm_4bit_forward from %s', 'X')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "this is asked\n"
