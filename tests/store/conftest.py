"""Adapter folders made by hand, byte by byte, for what PEFT would never write."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from soupmix.base import Base
from soupmix.store import Store

CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
PREFIX = "base_model.model."


def q_proj_factors(rank: int = 2, *, seed: int = 5) -> dict[str, torch.Tensor]:
    """Factors for both q_proj layers of the tiny base, under PEFT's names."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for layer in range(2):
        module = f"{PREFIX}model.layers.{layer}.self_attn.q_proj"
        factors[f"{module}.lora_A.weight"] = torch.randn(rank, 32, generator=generator)
        factors[f"{module}.lora_B.weight"] = torch.randn(32, rank, generator=generator)
    return factors


@pytest.fixture
def q_proj() -> Callable[..., dict[str, torch.Tensor]]:
    """`q_proj_factors`, for tests that cannot import a conftest."""
    return q_proj_factors


@pytest.fixture
def handmade(tmp_path: Path) -> Callable[..., Path]:
    """Write an adapter folder from a config (dict or bytes) and tensors (dict or bytes)."""

    def write(
        tensors: Mapping[str, torch.Tensor] | bytes | None = None, config: bytes | None = None, **fields: Any
    ) -> Path:
        folder = tmp_path / "handmade"
        folder.mkdir(exist_ok=True)
        data = tensors if isinstance(tensors, bytes) else save(dict(tensors or q_proj_factors()))
        (folder / "adapter_model.safetensors").write_bytes(data)
        (folder / "adapter_config.json").write_bytes(config or json.dumps(CONFIG | fields).encode())
        return folder

    return write


@pytest.fixture
def stored(handmade: Callable[..., Path], tiny_base: Base, tmp_path: Path) -> Store:
    """A store with one handmade adapter, "expert"."""
    store = Store(tmp_path / "store", create=True)
    store.add(handmade(), dimension="expertise", pole="expert", base=tiny_base)
    return store
