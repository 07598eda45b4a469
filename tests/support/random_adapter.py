"""A random adapter for any model, made from the model's config alone."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from soupmix.base import Base

__all__ = ["save_random_adapter"]

_NOT_CALLED = {"lm_head", "embed_out", "dt_proj"}


def save_random_adapter(base: Base, folder: Path, *, seed: int = 0, layers: Sequence[str] = ()) -> Path:
    """A PEFT folder of rank 4 for these layers, by path; by default all plain linear ones but those that end the model.

    Without `dt_proj`, whose weight the code of state-space models reads itself.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base.folder))
    linears = {path: each for path, each in model.named_modules() if isinstance(each, torch.nn.Linear | Conv1D)}
    plain = (path for path, each in linears.items() if type(each) in (torch.nn.Linear, Conv1D))
    paths = list(layers) or [path for path in plain if path.rpartition(".")[2] not in _NOT_CALLED]
    draw, tensors = torch.Generator().manual_seed(seed), {}
    for path in paths:
        layer = model.get_submodule(path)
        outputs, inputs = layer.weight.shape
        if type(layer) is Conv1D:
            outputs, inputs = inputs, outputs
        for name, shape in (("A", (4, inputs)), ("B", (outputs, 4))):
            tensors[f"base_model.model.{path}.lora_{name}.weight"] = torch.randn(shape, generator=draw) * 0.1
    folder.mkdir()
    turned = any(type(model.get_submodule(path)) is Conv1D for path in paths)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": paths}
    config |= {"fan_in_fan_out": True} if turned else {}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder
