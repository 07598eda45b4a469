"""Weights saved beside factors that are the base's own: PEFT saves embeddings and head whenever a vocabulary was resized.

They change nothing, so they are left out. Rows for tokens that the base does not have count as nothing either: a soup runs with
the base's vocabulary. Whatever else differs, in one value, is a change; see `soupmix.store.whole`.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from soupmix.base import Base, TensorInfo
from soupmix.dtypes import TORCH, torch_dtype
from soupmix.errors import BaseModelError
from soupmix.sealed import Sealed
from soupmix.store.reader import PREFIX, load_tensors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["row_blocks", "unchanged"]

_BLOCK = 8 << 20
_WEIGHT = ".weight"


def unchanged(keys: Iterable[str], tensors: Sealed, base: Base, where: str) -> frozenset[str]:
    """Those of these tensors that are weights of the base, value by value in the dtype that they are saved in.

    Raises:
        AdapterError: as `load_tensors`.
    """
    places = {key: info for key in keys if (info := _place(key, base)) is not None}
    if not places:
        return frozenset()
    saved = load_tensors(tensors, where)
    return frozenset(key for key, info in places.items() if _same(saved[key], info))


def _place(key: str, base: Base) -> TensorInfo | None:
    """Where the base holds the weight that a tensor is called after."""
    if not key.endswith(_WEIGHT):
        return None
    path = key.removeprefix(PREFIX).removesuffix(_WEIGHT).removesuffix(".base_layer")
    layers = base.layers()
    layer = layers.get(path)
    if layer is not None and layer.tied is not None:
        layer = layers.get(layer.tied)
    if layer is None or layer.lies != "whole" or len(layer.tensors) != 1:
        return None
    info = base.tensors()[layer.tensors[0]]
    return info if info.dtype in TORCH and len(info.shape) == 2 else None


def _same(saved: "Tensor", info: TensorInfo) -> bool:
    rough = not saved.is_floating_point() or saved.element_size() == 1  # one byte makes many changes equal
    if rough or saved.dim() != 2 or saved.shape[1] != info.shape[1]:
        return False
    rows = min(saved.shape[0], info.shape[0])
    blocks = row_blocks(info, rows)
    return rows > 0 and all(block.to(saved.dtype).equal(saved[at : at + len(block)]) for at, block in blocks)


def row_blocks(info: TensorInfo, most: int) -> "Iterator[tuple[int, Tensor]]":
    """The first rows of a tensor of the base, block by block, with the number of the first row in each; a vector's are numbers.

    Raises:
        BaseModelError: the file was cut short ("truncated").
    """
    import torch

    size = (info.end - info.start) // info.shape[0]
    step = max(1, _BLOCK // max(1, size))
    with info.file.open("rb") as file:
        file.seek(info.start)
        for at in range(0, most, step):
            count = min(step, most - at)
            data = bytearray(file.read(count * size))
            if len(data) < count * size:
                raise BaseModelError(f"base model file {info.file} was cut short while it was read", reason="truncated")
            yield at, torch.frombuffer(data, dtype=torch_dtype(info.dtype)).view(count, -1)
