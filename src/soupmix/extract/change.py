"""What a source changes, one weight at a time, and the weights of a base that it changes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from soupmix.base import Base, Layer, TensorInfo
from soupmix.base.conversion import Conversion, TensorGroup
from soupmix.base.loading import empty_model, saying
from soupmix.errors import AdapterError
from soupmix.merge.tensors import DTYPES, TensorReader

__all__ = ["BaseWeights", "Change", "change", "frobenius_norm", "no_numbers"]

_BLOCK: Final = 1 << 22  # numbers that are subtracted at once, where only their norm is wanted


@dataclass(frozen=True, slots=True)
class Change:
    """Tuned minus base, of one weight.

    Attributes:
        name: path of a linear layer, or name of any other tensor.
        norm: Frobenius norm. delta: [out, in] float64 of a linear layer; None of what no LoRA can carry.
    """

    name: str
    norm: float
    delta: Tensor | None = None


class BaseWeights:
    """The parameters of a base, one at a time, as transformers makes them of the tensors on disk.

    Attributes:
        conversion: transformers', for this model. groups: name of a parameter -> the tensors that become it.
        unused: names of tensors that become none.
    """

    def __init__(self, base: Base, reader: TensorReader) -> None:
        self.base, self.layers, self.tensors = base, base.layers(), base.tensors()
        self._reader = reader
        with saying(base.folder):
            model = empty_model(base.folder)
            self._head = model.get_output_embeddings()
            self._modules = dict(model.named_modules())
            self.conversion = Conversion(model)
            groups, unused = self.conversion.groups(self.tensors)
        self.groups = {target: group for group in groups for target in group.targets}
        self.unused = frozenset(unused)
        self._twins = _twins(model)
        self._last: tuple[TensorGroup, Mapping[str, Tensor]] | None = None

    def linear(self, path: str) -> Layer | None:
        """The layer of that path, if a plain LoRA in a store can change it: a linear one, and not the output head."""
        layer = self.layers.get(path)
        linear = layer is not None and layer.kind in ("linear", "conv1d") and layer.tied is None
        return layer if linear and self._modules[path] is not self._head else None

    def names(self, parameter: str) -> list[str]:
        """All names of a parameter; tied weights have several."""
        return self._twins.get(parameter, [parameter])

    def value(self, parameter: str) -> Tensor | None:
        """A parameter in its own shape and dtype; None if no tensor becomes it.

        Raises:
            AdapterError: it lies on disk in a dtype without arithmetic ("dtype").
        """
        name = next((each for each in [parameter, *self.names(parameter)] if each in self.groups), None)
        if name is None:
            return None
        group = self.groups[name]
        if self._last is None or self._last[0] is not group:
            tensors = {each: self.tensor(each) for each in group.names}
            with saying(self.base.folder):
                self._last = group, self.conversion.run(group, tensors)
        return self._last[1][name]

    def tensor(self, name: str) -> Tensor:
        """A tensor on disk; raises as `value` does."""
        if self.tensors[name].dtype not in DTYPES:
            raise no_numbers(name, self.tensors[name])
        return self._reader.read(self.tensors[name])


def _twins(model: Any) -> Mapping[str, list[str]]:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name: several for several in names.values() for name in several}


def no_numbers(name: str, info: TensorInfo) -> AdapterError:
    """The refusal of a tensor that cannot be subtracted."""
    return AdapterError(
        f"{name} is stored as {info.dtype}, which cannot be compared; give the model in F32, F16 or BF16",
        reason="dtype",
    )


def change(label: str, tuned: Tensor, base: Tensor | None, layer: Layer | None) -> Change | None:
    """Tuned minus base; None where they are equal.

    Args:
        base: None: it has nothing like it. layer: the linear layer whose weight this is, if it is one.

    Raises:
        AdapterError: the shapes differ, by more than a vocabulary that grew or shrank ("wrong-base"), or a value is NaN or
            infinite ("not-finite").
    """
    if base is None:
        return Change(label, frobenius_norm(tuned, label))
    if tuned.shape != base.shape:
        return Change(label, _resized(label, tuned, base))
    if torch.equal(tuned, base):
        return None
    if layer is None:
        return Change(label, _distance(label, tuned, base))
    delta = tuned.double().sub_(base.double())
    return Change(layer.path, frobenius_norm(delta, label), delta.T if layer.transposed else delta)


def frobenius_norm(tensor: Tensor, what: str) -> float:
    """The norm of a tensor in float64.

    Raises:
        AdapterError: it is not finite ("not-finite").
    """
    norm = float(torch.linalg.vector_norm(tensor.double()))
    if not math.isfinite(norm):
        raise AdapterError(f"{what} holds NaN, infinity, or numbers too large to add up", reason="not-finite")
    return norm


def _resized(label: str, tuned: Tensor, base: Tensor) -> float:
    """Of tables of different length: what differs in the rows of both, and the rows of one alone."""
    if tuned.dim() != 2 or base.dim() != 2 or tuned.shape[1] != base.shape[1]:
        raise AdapterError(
            f"{label} has shape {list(tuned.shape)}, in the base {list(base.shape)}: it was tuned from another base",
            reason="wrong-base",
        )
    rows, longer = min(len(tuned), len(base)), max(tuned, base, key=len)
    return math.hypot(_distance(label, tuned[:rows], base[:rows]), frobenius_norm(longer[rows:], label))


def _distance(label: str, one: Tensor, other: Tensor) -> float:
    blocks = zip(one.reshape(-1).split(_BLOCK), other.reshape(-1).split(_BLOCK), strict=True)
    return math.hypot(*(frobenius_norm(a.double() - b.double(), label) for a, b in blocks))
