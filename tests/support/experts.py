"""Adapters of experts as PEFT saves them, and what PEFT makes of a base with several of them, in float64."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from soupmix.base import Base
from tests.support.peft_case import PeftCase

__all__ = ["CONFIGS", "EXPERTS", "Case", "model_of", "of_one_expert", "one_expert", "save_by_peft"]

EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]
CONFIGS: dict[str, dict[str, Any]] = {
    "linear": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "o_proj"]},
    "experts": {"r": 3, "lora_alpha": 5, "target_modules": ["k_proj"], "target_parameters": EXPERTS},
    "down": {"r": 2, "lora_alpha": 8, "use_rslora": True, "target_modules": [], "target_parameters": EXPERTS[1:]},
}


class Case(PeftCase):
    """Adapters of experts, and what PEFT merges."""

    def oracle(self, soup: Mapping[str, float]) -> dict[str, Tensor]:
        """The parameters in float64, adapter after adapter merged by PEFT, its scaling times its weight."""
        model = model_of(self.base.folder, torch.float64)
        for name, weight in soup.items():
            adapted = PeftModel.from_pretrained(model, self.folders[name]).double()
            for module in adapted.modules():
                if isinstance(module, LoraLayer):
                    module.scaling["default"] *= weight
            model = adapted.merge_and_unload()
        return {path: parameter.data for path, parameter in model.named_parameters()}


def model_of(folder: Path, dtype: torch.dtype) -> Any:
    """The model of a folder, as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, experts_implementation="eager").eval()


def save_by_peft(base: Base, folder: Path, seed: int, **config: Any) -> Path:
    """An adapter with drawn factors, by the fields of `LoraConfig`."""
    adapted = get_peft_model(model_of(base.folder, torch.float32), LoraConfig(task_type="CAUSAL_LM", **config))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if ".lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    adapted.save_pretrained(folder)
    return folder


def one_expert(path: str) -> dict[str, Tensor]:
    """Factors of rank 3 of one expert of `down_proj` of a tiny mixtral, all ones, as a store names them."""
    name = f"base_model.model.{path}.lora_"
    return {f"{name}A.weight": torch.ones(3, 160), f"{name}B.weight": torch.ones(64, 3)}


def of_one_expert(folder: Path, path: str) -> Path:
    """A folder with these factors alone; PEFT has no name for what they are of."""
    folder.mkdir()
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 3, "lora_alpha": 3, "target_modules": ["down_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(one_expert(path), folder / "adapter_model.safetensors")
    return folder
