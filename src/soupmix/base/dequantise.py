"""A quantised folder -> a clean Hugging Face folder of plain weights; run as `python -m soupmix.base.dequantise FOLDER OUT PIPE`.

What a quantised weight stands for, transformers and the package behind it say: their own `dequantize`, in the model's dtype.
PIPE is the number of a descriptor at whose end the conversion is not wanted any longer.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from soupmix.base.companions import CONFIG, companions, quantisation
from soupmix.base.layers import linear_kind
from soupmix.base.loading import empty_model, load_model
from soupmix.base.quantisation import FIELD
from soupmix.base.safetensors import INDEX, weight_files
from soupmix.children import end_with
from soupmix.files import strict_json

__all__ = ["dequantise"]


def dequantise(source: Path, folder: Path) -> None:
    """Fill an empty folder with the model of a quantised one, in plain weights."""
    model = _as_built(_plain(_loaded(source)), source)
    model.save_pretrained(folder)
    for each in companions(source):
        shutil.copyfile(each, folder / each.name)
    config = _without(strict_json((source / CONFIG).read_bytes()))
    config = _with_dtype(config, str(model.dtype).removeprefix("torch."))
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def _loaded(source: Path) -> Any:
    """The model, told to load plain weights where its method can be told."""
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    found = quantisation(source)
    if found is None:
        raise ValueError("it is not quantised")
    kind = AUTO_QUANTIZATION_CONFIG_MAPPING.get(found.method)
    if kind is None or "dequantize" not in signature(kind.__init__).parameters:
        return load_model(source, "auto")
    with tempfile.TemporaryDirectory(prefix="soupmix-") as made:
        told = Path(made) / source.name[:40]
        told.mkdir()
        index = [source / INDEX] if (source / INDEX).is_file() else []
        for file in {*companions(source), *weight_files(source), *index}:
            if file.name != CONFIG:
                (told / file.name).symlink_to(file.resolve())
        config = _told(strict_json((source / CONFIG).read_bytes()))
        (told / CONFIG).write_text(json.dumps(config))
        return load_model(told, "auto")


def _plain(model: Any) -> Any:
    if getattr(model, "is_quantized", False):
        try:
            model = model.dequantize(dtype=model.dtype)
        except NotImplementedError:
            model.hf_quantizer.remove_quantization_config(_opened(model))
    odd = [name for name, each in model.named_parameters() if not _is_plain(each)]
    if odd:
        raise ValueError(f"{odd[0]} cannot be made plain again by transformers")
    return model


def _as_built(model: Any, source: Path) -> Any:
    """The model with weights the way round that its config asks for.

    bitsandbytes puts a linear layer where transformers has a Conv1D, and it stays one when it is dequantised.
    """
    from torch import nn

    for path, built in empty_model(source).named_modules():
        found = model.get_submodule(path)
        if linear_kind(built) == "conv1d" and linear_kind(found) == "linear":
            found.weight = nn.Parameter(found.weight.data.T.contiguous(), requires_grad=False)
    return model


def _opened(model: Any) -> Any:
    """The model with packed weights taken out of their packing, as torchao's tensors do by themselves."""
    from torch import nn

    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if not _is_plain(weight) and hasattr(weight, "dequantize"):
                plain = weight.data.dequantize().to(model.dtype)
                setattr(module, name, nn.Parameter(plain, requires_grad=False))
    return model


def _is_plain(weight: Any) -> bool:
    import torch

    return type(weight.data) is torch.Tensor and weight.is_floating_point() and weight.element_size() > 1


def _without(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what it says of quantisation."""
    return {key: _without(value) if isinstance(value, dict) else value for key, value in config.items() if key != FIELD}


def _told(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config that asks for plain weights."""
    return {
        key: value | {"dequantize": True}
        if key == FIELD and isinstance(value, dict)
        else _told(value)
        if isinstance(value, dict)
        else value
        for key, value in config.items()
    }


def _with_dtype(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {
        key: _with_dtype(value, name) if isinstance(value, dict) else name if key in ("dtype", "torch_dtype") else value
        for key, value in config.items()
    } | ({"dtype": name} if "dtype" not in config and "torch_dtype" not in config and "model_type" in config else {})


if __name__ == "__main__":
    end_with(int(sys.argv[3]))
    dequantise(Path(sys.argv[1]), Path(sys.argv[2]))
