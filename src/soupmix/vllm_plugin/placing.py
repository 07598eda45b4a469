"""The adapters of a store in the layers of a model that vLLM has loaded.

vLLM computes some layers of a model as one (q, k and v; gate and up); its models say how in `hf_to_vllm_mapper`, by which they
read weights. A layer computes by its `quant_method`; `SoupMethod` stands before that and adds the soups of all tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from soupmix.errors import BaseModelError
from soupmix.store.adapter import Adapter
from soupmix.vllm_plugin.shards import Shard
from soupmix.vllm_plugin.step import StepRows, add_soup
from soupmix_kernels import Part, Pool

__all__ = ["SoupMethod", "place", "shard_of"]

_QKV = {"q": 0, "k": 1, "v": 2}


class SoupMethod:
    """Stands before a layer's `quant_method`: what that computes, and the soups of all tokens.

    Args:
        inner: the layer's own. layer: its number, see `StepRows.layer`.
    """

    def __init__(self, inner: Any, layer: int) -> None:
        self._inner, self._layer = inner, layer

    def __getattr__(self, name: str) -> Any:
        """What else is asked of a `quant_method`."""
        return getattr(self._inner, name)

    def apply(self, layer: nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """The output of a layer, before it is summed over ranks."""
        y: Tensor = self._inner.apply(layer, x, bias)
        add_soup(y, x, self._layer)
        return y


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a layer of the base lies: in which layer of vLLM's, and in which slice of it; None: it is the whole of it."""

    path: str
    slice: int | None


def place(
    model: nn.Module, adapters: Sequence[Adapter], rows: StepRows, dtype: torch.dtype, device: torch.device
) -> int:
    """Put adapters into a model; returns how many of its layers they change.

    Args:
        adapters: in the order of the weights. rows: whose weights every token has. dtype: what the model computes in.

    Raises:
        BaseModelError: an adapter changes a layer that the model does not have, that is no linear layer, or that is of another
            shape (reason "wrong-base"), or more than linear layers ("not-linear").
    """
    found: dict[str, dict[int | None, list[Part]]] = {}
    modules = dict(model.named_modules())
    for number, adapter in enumerate(adapters):
        if adapter.whole:
            raise BaseModelError(
                f"adapter '{adapter.name}' changes more than linear layers, which no row of a batch can have; leave it out of "
                "the store that vLLM serves",
                reason="not-linear",
            )
        for path, factors in adapter.modules.items():
            at = _place_of(model, path)
            _check_linear(modules, at.path, adapter.name, path)
            part = Part(number, factors.A, factors.B, factors.scaling)
            found.setdefault(at.path, {}).setdefault(at.slice, []).append(part)
    for path, parts in found.items():
        layer = modules[path]
        pool = _pool(layer, path, parts, dtype, device)
        layer.quant_method = SoupMethod(layer.quant_method, rows.layer(pool))
    return len(found)


def shard_of(layer: Any, slices: bool) -> Shard:
    """This rank's part of a linear layer of vLLM.

    Args:
        slices: whether the layer is several layers of the base side by side, each with its own slice.
    """
    kinds = {each.__name__ for each in type(layer).__mro__}
    rank, ranks = layer.tp_rank, layer.tp_size
    if "RowParallelLinear" in kinds:
        return Shard(layer.input_size_per_partition, (layer.output_size,), rank, ranks, "inputs")
    if "ColumnParallelLinear" in kinds:
        widths = tuple(layer.output_partition_sizes)
        replicas = (1, *[layer.num_kv_head_replicas] * 2) if "QKVParallelLinear" in kinds else (1,) * len(widths)
        if slices or len(widths) == 1:
            return Shard(layer.input_size, widths, rank, ranks, "outputs", replicas)
        if ranks == 1:
            return Shard(layer.input_size, (sum(widths),))
        raise BaseModelError(
            f"a {type(layer).__name__} that is one layer of the base cannot be split over {ranks} ranks with its adapters; "
            "start vLLM with --tensor-parallel-size 1",
            reason="not-linear",
        )
    return Shard(layer.input_size, (layer.output_size,))


def _place_of(model: Any, path: str) -> _Place:
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    found = (f"{path}.weight", None) if mapper is None else mapper._map_name_with_shard(f"{path}.weight")
    if found is None:
        raise _no_layer(path)
    name, shard = found
    if isinstance(shard, list):
        raise _no_layer(path)
    return _Place(name.removesuffix(".weight"), None if shard is None else _QKV.get(shard, shard))


def _check_linear(modules: Mapping[str, nn.Module], at: str, adapter: str, path: str) -> None:
    layer = modules.get(at)
    if layer is None:
        raise _no_layer(path)
    if not any(each.__name__ == "LinearBase" for each in type(layer).__mro__):
        raise BaseModelError(
            f"adapter '{adapter}' changes '{path}', which is a {type(layer).__name__} in vLLM and no linear layer",
            reason="not-linear",
        )


def _no_layer(path: str) -> BaseModelError:
    return BaseModelError(f"the model that vLLM loaded has no layer for '{path}'", reason="wrong-base")


def _pool(
    layer: Any, path: str, parts: Mapping[int | None, Sequence[Part]], dtype: torch.dtype, device: torch.device
) -> Pool:
    slices = None not in parts
    if not slices and len(parts) > 1:
        raise _no_layer(path)
    shard = shard_of(layer, slices)
    count = len(shard.widths)
    if count > 3:
        raise BaseModelError(f"'{path}' is {count} layers in one, and three are known", reason="not-linear")
    held = [
        [_on_rank(shard, number, each) for each in parts.get(number if slices else None, ())] for number in range(count)
    ]
    return Pool.stack(held, shard.widths, inputs=shard.inputs, dtype=dtype, device=device)


def _on_rank(shard: Shard, number: int, part: Part) -> Part:
    return Part(part.adapter, shard.down(part.A), shard.up(part.B, number), part.scaling)
