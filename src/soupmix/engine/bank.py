"""The adapters of a store, stacked once for every layer; a person is then one row of weights over them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from soupmix.errors import AdapterError
from soupmix.store.adapter import Adapter, Factors

__all__ = ["Bank", "Stack"]


@dataclass(frozen=True, slots=True)
class Stack:
    """All factors of one linear layer, side by side.

    Attributes:
        A: [R, in] and B: [out, R] in the model's dtype, R the sum of the ranks of the adapters that have this layer.
        columns: adapter index of every rank column, [R] int64.
        scaling: scaling of every rank column, [R] fp32.
    """

    A: Tensor
    B: Tensor
    columns: Tensor
    scaling: Tensor

    @property
    def layout(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """What decides the coefficients: two layers of the same layout share them."""
        return tuple(self.columns.tolist()), tuple(self.scaling.tolist())


@dataclass(frozen=True, slots=True)
class Bank:
    """K adapters in the memory of one model.

    Attributes:
        names: adapter names in column order. digests: their identities, same order.
        stacks: module path -> its stacked factors.
    """

    names: tuple[str, ...]
    digests: tuple[str, ...]
    stacks: dict[str, Stack]

    @classmethod
    def of(cls, adapters: Sequence[Adapter], dtype: torch.dtype, device: torch.device) -> "Bank":
        """Stack the adapters layer by layer; an adapter without a layer takes no columns there."""
        paths = sorted({path for adapter in adapters for path in adapter.modules})
        stacks = {path: _stack([a.modules.get(path) for a in adapters], dtype, device) for path in paths}
        return cls(tuple(a.name for a in adapters), tuple(a.digest for a in adapters), stacks)

    def row(self, weights: dict[str, float], digests: dict[str, str]) -> list[float]:
        """Weights [K] of one person in column order.

        Raises:
            AdapterError: an adapter is not in this bank, or is not the one that the grant was given for.
        """
        held = dict(zip(self.names, self.digests, strict=True))
        for name in weights:
            if held.get(name) != digests[name]:
                state = "is not loaded" if name not in held else f"is loaded as {held[name]}"
                raise AdapterError(
                    f"the grant is for adapter '{name}' {digests[name]}, which {state}; "
                    f"load the engine with the store that the policy approved",
                    reason="digest-mismatch",
                )
        return [weights.get(name, 0.0) for name in self.names]


def _stack(factors: Iterable[Factors | None], dtype: torch.dtype, device: torch.device) -> Stack:
    present = [(k, f) for k, f in enumerate(factors) if f is not None]
    ranks = torch.tensor([f.rank for _, f in present])
    return Stack(
        A=torch.cat([f.A for _, f in present]).to(device, dtype).contiguous(),
        B=torch.cat([f.B for _, f in present], dim=1).to(device, dtype).contiguous(),
        columns=torch.tensor([k for k, _ in present]).repeat_interleave(ranks).to(device),
        scaling=torch.tensor([f.scaling for _, f in present]).repeat_interleave(ranks).to(device),
    )
