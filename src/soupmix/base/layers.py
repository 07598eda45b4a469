"""The layers of a base: what the model is, and where in its files the weight of each layer lies.

What it is, transformers says, which builds it from config.json alone (on the meta device, without memory). Names in files say
only where weights lie, and transformers' own conversion of checkpoints says which of them belongs to what: a prefix that is
missing, another name, several tensors that become one or one that becomes several.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from soupmix.base.conversion import Conversion, TensorGroup
from soupmix.base.loading import saying
from soupmix.errors import BaseModelError
from soupmix.public import public

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Kind",
    "Layer",
    "LayerTable",
    "Lies",
    "expert_path",
    "layers_of",
    "linear_kind",
    "plain_forwards",
    "weight_path",
]

Kind = Literal["linear", "conv1d", "embedding", "matrix", "experts", "vector"]
Lies = Literal["whole", "slice", "stacked", "converted", "nowhere"]


@public
@dataclass(frozen=True, slots=True)
class Layer:
    """One weight of a model that an adapter can change, and where it lies on disk.

    As a map it takes `inputs` features to `outputs`, whatever way round its weight lies: an adapter adds B A with A [rank,
    inputs] and B [outputs, rank].

    Attributes:
        path: its module's path in the model ("model.layers.0.self_attn.q_proj"); of a parameter that is not called `weight`, the
            path of the parameter.
        kind: "linear", "conv1d" (linear, with the weight the other way round), "embedding" (linear in one-hot tokens),
            "matrix" (another module with a two-dimensional weight, such as a router), "experts" (three dimensions) or "vector"
            (one: a bias, a norm's weights; as a map of one input).
        outputs: its out-features.
        inputs: its in-features.
        experts: how many such maps there are in one weight; 1 unless the kind is "experts".
        transposed: the parameter of the model is [inputs, outputs], or [experts, inputs, outputs].
        parameter: name of the parameter in the model.
        tied: path of the layer whose parameter this one is too, or None.
        tensors: names of the tensors on disk that hold it.
        lies: how they do: "whole", one tensor of the parameter's shape; "slice", a part of one tensor; "stacked", several
            tensors together; "converted", several of which each is a part of several parameters; "nowhere", not at all.
    """

    path: str
    kind: Kind
    outputs: int
    inputs: int
    experts: int
    transposed: bool
    parameter: str
    tied: str | None
    tensors: tuple[str, ...]
    lies: Lies

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        return self.outputs, self.inputs

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of the parameter in the model, and of its tensor where it lies whole."""
        if self.kind == "vector":
            return (self.outputs,)
        matrix = (self.inputs, self.outputs) if self.transposed else (self.outputs, self.inputs)
        return (self.experts, *matrix) if self.kind == "experts" else matrix

    def __repr__(self) -> str:
        place = f"{self.lies} in {self.tensors[0]}" if self.tensors else self.lies
        return f"<Layer {self.path}: {self.kind}, {self.inputs} -> {self.outputs}, {place}>"


@public
@dataclass(frozen=True, slots=True)
class LayerTable(Mapping[str, Layer]):
    """Path -> `Layer`, in the order of the model.

    Attributes:
        unused: names of tensors on disk that the model does not use, such as layers for predicting several tokens.
    """

    unused: tuple[str, ...]
    _layers: Mapping[str, Layer]
    _folder: Path
    _groups: Mapping[str, TensorGroup]
    _conversion: Callable[[], Conversion]

    def __getitem__(self, path: str) -> Layer:
        return self._layers[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def linear_shapes(self) -> Mapping[str, tuple[int, int]]:
        """Path -> (outputs, inputs) of every layer with a matrix of its own that multiplies what it reads."""
        return {
            path: layer.shape
            for path, layer in self.items()
            if layer.kind in ("linear", "conv1d", "matrix") and layer.tied is None
        }

    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """`linear_shapes`, and those of every expert by itself under `expert_path`."""
        experts = {
            expert_path(path, number): layer.shape
            for path, layer in self.items()
            if layer.kind == "experts"
            for number in range(layer.experts)
        }
        return {**self.linear_shapes(), **experts}

    def every_shape(self) -> Mapping[str, tuple[int, int]]:
        """`shapes`, and those of embeddings and vectors that are no other layer's too."""
        more = {
            path: layer.shape
            for path, layer in self.items()
            if layer.kind in ("embedding", "vector") and layer.tied is None
        }
        return {**self.shapes(), **more}

    def parameters(self, layer: Layer, tensors: Mapping[str, "Tensor"]) -> Mapping[str, "Tensor"]:
        """What becomes of the tensors of a layer when transformers loads them.

        Args:
            layer: of this table.
            tensors: name of a tensor on disk -> its values, or any others in its shape; all of `layer.tensors`.

        Returns:
            Name of a parameter -> its values in its shape: the layer's (or the one that it is tied to), and those of others
            that lie in the same tensors.

        Raises:
            BaseModelError: transformers cannot convert them ("cannot-load"), or the layer lies nowhere ("incomplete").
        """
        if not layer.tensors:
            raise BaseModelError(
                f"base model {self._folder} has no weights for {layer.path}, which its config.json asks for",
                reason="incomplete",
            )
        group = self._groups[layer.tensors[0]]
        if group.is_whole:
            return {group.targets[0]: tensors[group.names[0]]}
        with saying(self._folder):
            return self._conversion().run(group, tensors)

    def __repr__(self) -> str:
        return f"<LayerTable of {len(self)} layers, {len(self.unused)} tensors unused>"


def expert_path(path: str, number: int) -> str:
    """What one expert of a weight of experts is called, as "model.layers.0.mlp.experts.down_proj[3]"."""
    return f"{path}[{number}]"


def weight_path(module: str) -> str:
    """The path of the weight that a linear layer is, or an expert is a part of."""
    return module.partition("[")[0]


def layers_of(model: Any, groups: Mapping[str, TensorGroup]) -> Iterator[Layer]:
    """Every layer of a model without weights.

    Args:
        groups: name of a parameter -> the tensors that become it.
    """
    first: dict[int, str] = {}
    shared = {id(parameter): groups[name] for name, parameter in _parameters(model) if name in groups}
    for module_path, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            kind = _kind(module, own, parameter.dim())
            if kind is not None:
                name = f"{module_path}.{own}".lstrip(".")
                path = module_path if own == "weight" else name
                tied = first.setdefault(id(parameter), path)
                group = groups.get(name) or shared.get(id(parameter))
                yield _layer(path, kind, name, module, parameter.shape, None if tied == path else tied, group)


def _layer(
    path: str, kind: Kind, name: str, module: Any, shape: Any, tied: str | None, group: TensorGroup | None
) -> Layer:
    transposed = kind in ("conv1d", "embedding") or (
        kind == "experts" and bool(getattr(module, "is_transposed", False))
    )
    *experts, rows, columns = shape if len(shape) > 1 else (*shape, 1)
    outputs, inputs = (columns, rows) if transposed else (rows, columns)
    return Layer(
        path,
        kind,
        outputs,
        inputs,
        experts[0] if experts else 1,
        transposed,
        name,
        tied,
        group.names if group else (),
        _lies(group) if group else "nowhere",
    )


def _lies(group: TensorGroup) -> Lies:
    if group.is_whole:
        return "whole"
    several = len(group.targets) > 1
    if len(group.names) == 1:
        return "slice" if several else "converted"
    return "converted" if several else "stacked"


def _parameters(model: Any) -> list[tuple[str, Any]]:
    """Every name of every parameter; of several names for one the first comes last."""
    return list(model.named_parameters(remove_duplicate=False))[::-1]


def linear_kind(module: Any) -> "Literal['linear', 'conv1d'] | None":
    """Which kind of linear layer a module is: of torch, or of transformers, whose weight is the other way round; or None."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, nn.Linear):
        return "linear"
    return "conv1d" if isinstance(module, Conv1D) else None


def plain_forwards() -> tuple[Any, ...]:
    """The functions by which linear layers compute x W^T + bias and no more."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return nn.Linear.forward, Conv1D.forward


def _kind(module: Any, name: str, dimensions: int) -> Kind | None:
    """What a parameter of a module is, or None for what no adapter changes."""
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    if dimensions == 1:
        return "vector"
    if dimensions == 3 and not isinstance(module, _ConvNd):
        return "experts"
    if name != "weight" or dimensions != 2:
        return None
    return linear_kind(module) or ("embedding" if isinstance(module, nn.Embedding) else "matrix")
