"""Adapters of every PEFT method on a small base, saved by PEFT itself, with parameters that were moved from where they began."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["METHODS", "RARE", "Tuned", "tuned", "tuned_deltas"]

TARGETS = ["q_proj", "v_proj", "down_proj"]


def _configs() -> dict[str, Callable[[], Any]]:
    import peft

    lora = peft.LoraConfig
    return {
        "lora": lambda: lora(r=3, lora_alpha=5, target_modules=TARGETS),
        "lora with patterns": lambda: lora(
            r=3, target_modules=TARGETS, rank_pattern={"q_proj": 2}, alpha_pattern={"layers.1.*v_proj": 3}
        ),
        "rslora": lambda: lora(r=4, lora_alpha=5, target_modules=TARGETS, use_rslora=True),
        "dora": lambda: lora(r=3, target_modules=TARGETS, use_dora=True),
        "pissa": lambda: lora(r=3, lora_alpha=6, target_modules=TARGETS, init_lora_weights="pissa"),
        "pissa, rslora": lambda: lora(r=4, target_modules=TARGETS, init_lora_weights="pissa", use_rslora=True),
        "olora": lambda: lora(r=3, target_modules=TARGETS, init_lora_weights="olora"),
        "loha": lambda: peft.LoHaConfig(r=3, alpha=5, target_modules=TARGETS),
        "lokr": lambda: peft.LoKrConfig(r=3, alpha=5, target_modules=TARGETS),
        "lokr, both": lambda: peft.LoKrConfig(r=2, target_modules=TARGETS, decompose_both=True, decompose_factor=4),
        "adalora": lambda: peft.AdaLoraConfig(
            init_r=4, target_r=2, total_step=10, lora_alpha=5, target_modules=TARGETS
        ),
        "vera": lambda: peft.VeraConfig(r=5, target_modules=TARGETS),
        "vera, not saved": lambda: peft.VeraConfig(
            r=5, target_modules=TARGETS, save_projection=False, projection_prng_key=7
        ),
        "ia3": lambda: peft.IA3Config(target_modules=TARGETS, feedforward_modules=["down_proj"]),
        "oft": lambda: peft.OFTConfig(r=0, oft_block_size=8, target_modules=TARGETS),
        "c3a": lambda: peft.C3AConfig(block_size=16, target_modules=TARGETS),
        "deft": lambda: peft.DeftConfig(r=3, target_modules=TARGETS),
        "delora": lambda: peft.DeloraConfig(r=3, target_modules=TARGETS),
        "fourierft": lambda: peft.FourierFTConfig(n_frequency=50, target_modules=TARGETS),
        "glora": lambda: peft.GloraConfig(r=3, target_modules=TARGETS),
        "gralora": lambda: peft.GraloraConfig(r=4, target_modules=TARGETS),
        "hira": lambda: peft.HiraConfig(r=3, target_modules=TARGETS),
        "hra": lambda: peft.HRAConfig(r=4, target_modules=TARGETS),
        "miss": lambda: peft.MissConfig(r=4, target_modules=TARGETS),
        "peanut": lambda: peft.PeanutConfig(target_modules=TARGETS),
        "pvera": lambda: peft.PveraConfig(r=5, target_modules=TARGETS),
        "randlora": lambda: peft.RandLoraConfig(r=4, target_modules=TARGETS),
        "road": lambda: peft.RoadConfig(group_size=16, target_modules=TARGETS),
        "waveft": lambda: peft.WaveFTConfig(n_frequency=50, target_modules=TARGETS),
        "oft, exact": lambda: peft.OFTConfig(r=4, oft_block_size=0, target_modules=TARGETS, use_cayley_neumann=False),
    }


METHODS = tuple(_configs())
RARE = (
    "lora with patterns", "rslora", "pissa, rslora", "lokr, both", "vera, not saved", "oft, exact", "c3a", "deft", "delora",
    "fourierft", "glora", "gralora", "hira", "hra", "miss", "peanut", "pvera", "randlora", "road", "waveft",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tuned:
    """A saved adapter, and the model that it was saved from."""

    folder: Path
    model: Any


def tuned(method: str, base: Path, folder: Path, *, seed: int = 0, scale: float = 0.05, **fields: Any) -> Tuned:
    """Put an adapter on a base, move its parameters at random, and save it."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, of choices that are made here on purpose
        config = _configs()[method]()
        for name, value in fields.items():
            setattr(config, name, value)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return Tuned(folder, model.eval())


def tuned_deltas(made: Tuned, base: Path) -> dict[str, Tensor]:
    """Path of a linear layer -> what it computes with the adapter minus what it does in the base, in float64, as [out, in].

    The unmerged layer is asked, by giving it the unit vectors: nothing is merged here.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers import AutoModelForCausalLM

    plain = dict(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64).named_modules())
    found = {}
    with torch.no_grad():
        for path, layer in made.model.base_model.model.double().named_modules():
            if isinstance(layer, BaseTunerLayer):
                units = torch.eye(layer.in_features, dtype=torch.float64)
                zero = torch.zeros(1, layer.in_features, dtype=torch.float64)
                computed, before = layer(units) - layer(zero), plain[path](units) - plain[path](zero)
                found[path] = (computed - before).T
    return found
