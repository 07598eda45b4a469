"""Adapters of experts as PEFT saves them, and what PEFT makes of a base with several of them, in float64."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import AutoModelForCausalLM

from soupmix.base import Base
from soupmix.findings import Finding
from soupmix.store import Store

__all__ = ["Case", "model_of", "save_by_peft"]


@dataclass(frozen=True)
class Case:
    """A base, adapters by PEFT's own saving, and the store that they are in, with what was said of each."""

    base: Base
    folders: Mapping[str, Path]
    store: Store
    notes: Mapping[str, list[Finding]]

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
