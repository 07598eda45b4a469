"""Picoscopic bases with quantised weights, as transformers and the packages behind it save them."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.support.tiny_model import save_tiny_model

__all__ = ["PACKAGES", "quantised_folder"]

HIDDEN = 64  # blocks of 64 values

PACKAGES: Mapping[str, str | None] = {
    "nf4": "bitsandbytes",
    "nf4-nested": "bitsandbytes",
    "fp4": "bitsandbytes",
    "int8": "bitsandbytes",
    "torchao-int8": "torchao",
    "torchao-dynamic": "torchao",
    "torchao-float8": "torchao",
    "fp8": None,
}
"""Every kind of quantised base that tests make -> the package that it takes; None: torch alone."""


def quantised_folder(folder: Path, kind: str, dtype: torch.dtype = torch.bfloat16) -> Path:
    """A tiny Llama of hidden size 64 whose linear layers are quantised; its head is not. `kind` is one of `PACKAGES`.

    The folder `plain` beside it is what was quantised, in `dtype`.
    """
    plain = folder.with_name("plain")
    if not plain.exists():
        save_tiny_model(plain, hidden=HIDDEN, inner=2 * HIDDEN, tied=False)
        AutoModelForCausalLM.from_pretrained(plain, dtype=dtype).save_pretrained(plain)
    if kind == "fp8":
        _save_fp8(plain, folder)
    else:
        how = {"quantization_config": _CONFIGS[kind](dtype), "device_map": {"": "cpu"}}
        AutoModelForCausalLM.from_pretrained(plain, dtype=dtype, **how).save_pretrained(folder)
    for each in plain.iterdir():
        if each.suffix != ".safetensors" and not (folder / each.name).exists():
            shutil.copy(each, folder / each.name)
    return folder


def _four_bits(kind: str, dtype: torch.dtype, *, nested: bool = False) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=nested,
        bnb_4bit_compute_dtype=dtype,
    )


def _eight_bits() -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_8bit=True)


def _torchao(name: str) -> Any:
    import torchao.quantization
    from transformers import TorchAoConfig

    return TorchAoConfig(getattr(torchao.quantization, name)())


_CONFIGS: Mapping[str, Callable[[torch.dtype], Any]] = {
    "nf4": lambda dtype: _four_bits("nf4", dtype),
    "nf4-nested": lambda dtype: _four_bits("nf4", dtype, nested=True),
    "fp4": lambda dtype: _four_bits("fp4", dtype),
    "int8": lambda dtype: _eight_bits(),
    "torchao-int8": lambda dtype: _torchao("Int8WeightOnlyConfig"),
    "torchao-dynamic": lambda dtype: _torchao("Int8DynamicActivationInt8WeightConfig"),
    "torchao-float8": lambda dtype: _torchao("Float8WeightOnlyConfig"),
}


def _save_fp8(plain: Path, folder: Path) -> None:
    """As checkpoints of DeepSeek have it: e4m3 weights, and the inverse scale of every block of 16 x 16 in fp32."""
    folder.mkdir()
    tensors = {}
    for name, tensor in load_file(plain / "model.safetensors").items():
        if name.endswith("_proj.weight"):
            blocks = tensor.float().unflatten(0, (-1, 16)).unflatten(2, (-1, 16))
            inverse = blocks.abs().amax((1, 3)) / 448
            tensors[f"{name}_scale_inv"] = inverse
            tensors[name] = (blocks / inverse[:, None, :, None]).flatten(2).flatten(0, 1).to(torch.float8_e4m3fn)
        else:
            tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    how = {"quant_method": "fp8", "weight_block_size": [16, 16], "activation_scheme": "dynamic"}
    config = json.loads((plain / "config.json").read_text()) | {"quantization_config": how}
    (folder / "config.json").write_text(json.dumps(config))
