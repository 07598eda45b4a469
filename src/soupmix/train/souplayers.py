"""Soup layers that can be trained: per row and token y = W x + sum_i w_i s_i B_i A_i x, with gradients to chosen A_i, B_i.

The ops of `soupmix_kernels` serve and merge, and have no gradients; this is plain torch. Products are computed in the dtype of
the base; factors are kept in float32, or in float64 under a base of float64.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from soupmix.base.layers import linear_kind
from soupmix.errors import TrainingError
from soupmix.store import Adapter

__all__ = ["TrainedSoup"]


class _Active:
    """The weights of the batch in progress, [rows, tokens or 1, adapters], float; and the places [kept] whose logits are made."""

    weights: Tensor
    kept: Tensor

    def of(self, x: Tensor) -> Tensor:
        """The weights of what a layer gets, [rows, tokens or kept, in].

        Raises:
            TrainingError: it is something else ("cannot-train").
        """
        rows, tokens = self.weights.shape[:2]
        if x.dim() == 3 and len(x) == rows:
            if tokens in (1, x.shape[1]):
                return self.weights
            if x.shape[1] == len(self.kept):  # the output layer: fewer than all, as the first token is never foretold
                return self.weights[:, self.kept]
        raise TrainingError(
            "a layer of this model is given tokens without their rows, as experts are; train without mixtures",
            reason="cannot-train",
        )


class _SoupLinear(nn.Module):
    """A linear layer with factors on top; `columns` says whose each rank is, `scaling` how they are scaled."""

    def __init__(self, linear: nn.Module, active: _Active, owners: list[int], scalings: list[float]) -> None:
        super().__init__()
        self.linear, self.A, self.B = linear, nn.ParameterList(), nn.ParameterList()
        self._active, self._owners, self._scalings = active, owners, scalings

    def finish(self) -> None:
        """Once all factors are there."""
        ranks = [len(A) for A in self.A]
        self._columns = torch.tensor([n for n, rank in zip(self._owners, ranks, strict=True) for _ in range(rank)])
        self._scaling = torch.tensor([s for s, rank in zip(self._scalings, ranks, strict=True) for _ in range(rank)])

    def forward(self, x: Tensor) -> Tensor:
        """x [rows, tokens, in] -> [rows, tokens, out]."""
        weights = self._active.of(x)
        A, B = torch.cat(list(self.A)).to(x.dtype), torch.cat(list(self.B), 1).to(x.dtype)
        coefficients = (weights[..., self._columns] * self._scaling).to(x.dtype)
        y: Tensor = self.linear(x)
        return y + ((x @ A.T) * coefficients) @ B.T


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the factors of one adapter for one layer are."""

    adapter: str
    path: str
    layer: _SoupLinear
    number: int


class TrainedSoup:
    """A model whose linear layers hold adapters, some of which are trained.

    Args:
        model: that of transformers, which is changed: soup layers take the place of linear ones, and nothing else is trained.
        adapters: what is at work in the mixtures. trained: names of those that learn.

    Raises:
        TrainingError: an adapter changes more than linear layers by factors, or layers that this model has not ("cannot-train").
    """

    def __init__(self, model: Any, adapters: Mapping[str, Adapter], trained: Collection[str]) -> None:
        self.model, self.names = model, tuple(sorted(adapters))
        self._active = _Active()
        model.requires_grad_(False)
        self._places = list(self._inserted(adapters, frozenset(trained)))

    def _inserted(self, adapters: Mapping[str, Adapter], trained: Collection[str]) -> Iterator[_Place]:
        dtype = torch.float64 if self.model.dtype == torch.float64 else torch.float32
        modules = dict(self.model.named_modules())
        for path in sorted({path for adapter in adapters.values() for path in adapter.modules}):
            owners = [name for name in self.names if path in adapters[name].modules]
            held = [adapters[name].modules[path] for name in owners]
            linear = modules.get(path)
            if (
                linear is None
                or linear_kind(linear) is None
                or any(f.kind != "linear" or f.gain is not None for f in held)
            ):
                raise TrainingError(
                    f"adapter '{owners[0]}' changes '{path}' by more than the factors of a linear layer; soups of plain LoRA "
                    "adapters are trained",
                    reason="cannot-train",
                )
            layer = _SoupLinear(linear, self._active, [self.names.index(n) for n in owners], [f.scaling for f in held])
            for number, (name, factors) in enumerate(zip(owners, held, strict=True)):
                for into, factor in ((layer.A, factors.A), (layer.B, factors.B)):
                    into.append(nn.Parameter(factor.to(dtype, copy=True), requires_grad=name in trained))
                yield _Place(name, path, layer, number)
            layer.finish()
            parent, _, own = path.rpartition(".")
            setattr(self.model.get_submodule(parent), own, layer)

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained: "<adapter>|<path>|A" or "...|B" -> parameter, in a fixed order."""
        found = {
            f"{each.adapter}|{each.path}|{side}": factors[each.number]
            for each in self._places
            for side, factors in (("A", each.layer.A), ("B", each.layer.B))
        }
        return {name: found[name] for name in sorted(found) if found[name].requires_grad}

    def logits(self, ids: Tensor, mask: Tensor, weights: Tensor, keep: Tensor) -> Tensor:
        """Logits of some tokens.

        Args:
            ids: [rows, tokens], padded on the right. mask: [rows, tokens], 0 at padding.
            weights: [rows, tokens or 1, adapters], in the order of `names`.
            keep: [kept] places of tokens.

        Returns:
            [rows, kept, vocabulary] in the dtype of the model.
        """
        self._active.weights, self._active.kept = weights, keep
        found: Tensor = self.model(input_ids=ids, attention_mask=mask, logits_to_keep=keep, use_cache=False).logits
        return found
