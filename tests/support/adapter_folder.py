"""A small sound adapter folder to spoil: 2 layers, rank 2, made byte by byte, without any library."""

import json
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["A0", "B0", "CONFIG", "MODULES", "SHAPES", "TENSORS", "Item", "adapter", "encode", "item", "raw", "sound"]

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
MODULES = tuple(f"model.layers.{layer}.self_attn.q_proj" for layer in range(2))
SHAPES = dict.fromkeys(MODULES, (32, 32))
A0, B0 = (f"base_model.model.{MODULES[0]}.lora_{side}.weight" for side in "AB")
SETTINGS: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}

Item = tuple[str, list[int], bytes]
"""dtype, shape, bytes of one tensor."""


def item(shape: list[int], value: float = 0.01) -> Item:
    """An F32 tensor of one value."""
    count = 1
    for side in shape:
        count *= side
    return "F32", shape, array("f", [value] * count).tobytes()


def sound() -> dict[str, Item]:
    """The tensors of the sound adapter."""
    found = {}
    for module in MODULES:
        found[f"base_model.model.{module}.lora_A.weight"] = item([2, 32])
        found[f"base_model.model.{module}.lora_B.weight"] = item([32, 2])
    return found


def encode(tensors: Mapping[str, Item]) -> bytes:
    """A safetensors file."""
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    return raw(json.dumps(header).encode(), data)


def raw(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header."""
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def adapter(where: Path, *, tensors: bytes | None = None, config: bytes | None = None, **fields: Any) -> Path:
    """Write the sound adapter folder, or one with other tensors, another config, or other fields in it."""
    where.mkdir(parents=True, exist_ok=True)
    (where / TENSORS).write_bytes(encode(sound()) if tensors is None else tensors)
    (where / CONFIG).write_bytes(json.dumps(SETTINGS | fields).encode() if config is None else config)
    return where
