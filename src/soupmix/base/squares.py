"""How large the weights of a base are: the sum of squares of every tensor, found in the pass that finds the digest."""

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from soupmix.base.safetensors import TensorInfo, read_tensors, tensors_digest
from soupmix.dtypes import TORCH, torch_dtype
from soupmix.errors import BaseModelError

if TYPE_CHECKING:
    from torch import Tensor

    from soupmix.base.layers import Layer, LayerTable

__all__ = ["Measured", "layer_square", "measured", "with_norm"]

_AT_ONCE = 1 << 17  # numbers; as float64 they stay in a core's cache


@dataclass(frozen=True, slots=True)
class Measured:
    """A base read once.

    Attributes:
        digest: see `tensors_digest`.
        squares: tensor name -> the sum of its squares (float64); a dtype without a norm has none.
    """

    digest: str
    squares: Mapping[str, float]


def measured(folder: Path) -> Measured:
    """Read every tensor of a Hugging Face folder once: hashed in this thread, squared in another.

    Raises:
        BaseModelError: as `tensors_digest` does.
    """
    import torch

    parts: dict[str, list[float]] = {}
    numbers = torch.empty(_AT_ONCE, dtype=torch.float64)

    def square(name: str, info: TensorInfo, block: memoryview) -> None:
        if info.dtype in TORCH:
            values = torch.frombuffer(block, dtype=torch_dtype(info.dtype))
            parts.setdefault(name, []).extend(_square(each, numbers) for each in values.split(_AT_ONCE))

    with ThreadPoolExecutor(1) as beside:
        digest = tensors_digest(folder, lambda name, info, block: beside.submit(square, name, info, block).result)
    return Measured(digest, {name: math.fsum(parts.get(name, ())) for name in sorted(with_norm(folder))})


def layer_square(layers: "LayerTable", layer: "Layer", tensors: Mapping[str, TensorInfo]) -> float:
    """The sum of squares of a layer's own weight (float64), where it is a part of the tensors that it lies in.

    Args:
        layers: of the base, with `layer` in it. tensors: of the base; those of the layer are of a dtype with a norm.

    Raises:
        BaseModelError: a file was cut short ("truncated"), or as `LayerTable.parameters`.
    """
    import torch

    values = layers.parameters(layer, {name: _values(tensors[name]) for name in layer.tensors})[layer.parameter]
    numbers = torch.empty(_AT_ONCE, dtype=torch.float64)
    return math.fsum(_square(each, numbers) for each in values.reshape(-1).split(_AT_ONCE))


def _values(info: TensorInfo) -> "Tensor":
    import torch

    with info.file.open("rb") as file:
        file.seek(info.start)
        data = bytearray(file.read(info.end - info.start))
    if len(data) < info.end - info.start:
        raise BaseModelError(f"base model file {info.file} was cut short while it was read", reason="truncated")
    return torch.frombuffer(data, dtype=torch_dtype(info.dtype)).view(info.shape)


def with_norm(folder: Path) -> set[str]:
    """Names of the tensors whose dtype has a norm."""
    return {name for name, info in read_tensors(folder).items() if info.dtype in TORCH}


def _square(values: "Tensor", numbers: "Tensor") -> float:
    held = numbers[: len(values)].copy_(values)
    return held.dot(held).item()
