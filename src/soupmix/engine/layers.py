"""Soup layers: base projections that share an input, computed together, plus the soup of every row."""

import threading
from collections.abc import Sequence

import torch
from torch import Tensor, nn

import soupmix_kernels
from soupmix.engine.rows import Rows
from soupmix_kernels import Part, Pool

__all__ = ["Member", "Projection", "SoupGroup"]


class Projection:
    """`x W^T + bias` for the stacked weights of one or more linear layers, on the CPU in oneDNN's layout if `fused`."""

    def __init__(self, linears: Sequence[nn.Linear], *, fused: bool) -> None:
        weights = [each.weight.data for each in linears]
        self.widths = tuple(each.out_features for each in linears)
        self._weight: Tensor | None = weights[0] if len(weights) == 1 else torch.cat(weights)
        self._bias = _bias(linears)
        self._packed = soupmix_kernels.pack(self._weight) if fused else None
        self._weight = None if self._packed is not None else soupmix_kernels.wide_weight(self._weight)

    def __call__(self, x: Tensor) -> Tensor:
        """x [rows, in] -> [rows, sum of widths]."""
        if self._packed is not None:
            return soupmix_kernels.packed_linear(x, self._packed, self._bias)
        if self._weight is None:
            raise RuntimeError("a projection has lost its weight")
        return soupmix_kernels.wide_linear(x, self._weight, self._bias)


def _bias(linears: Sequence[nn.Linear]) -> Tensor | None:
    if all(each.bias is None for each in linears):
        return None
    return torch.cat([each.weight.new_zeros(each.out_features) if each.bias is None else each.bias for each in linears])


class _Memo(threading.local):
    """Outputs that the other members of a group have not taken yet, and what they were computed for."""

    def __init__(self) -> None:
        self.x: Tensor | None = None
        self.seating: object = None
        self.outputs: dict[int, Tensor] = {}


class SoupGroup:
    """One to three linear layers that read the same input, with the adapters of all of them in one pool."""

    def __init__(
        self, linears: Sequence[nn.Linear], parts: Sequence[Sequence[Part]], rows: Rows, *, fused: bool
    ) -> None:
        weight = linears[0].weight
        self._projection, self._rows = Projection(linears, fused=fused), rows
        self.pool = (
            Pool.stack(
                parts,
                self._projection.widths,
                inputs=linears[0].in_features,
                dtype=weight.dtype,
                device=weight.device,
            )
            if any(parts)
            else None
        )
        self._key = rows.key(self.pool) if self.pool else -1
        self._memo = _Memo()

    def output(self, member: int, x: Tensor) -> Tensor:
        """The output of one member for x [rows, ..., in]; all members are computed when the first of them is asked.

        The others take their share when they are given the very same tensor for the same people in the same thread, once
        each, so nothing stale and nothing of somebody else can be taken.
        """
        memo = self._memo
        if memo.x is not x or memo.seating is not self._rows.seating or member not in memo.outputs:
            memo.x, memo.seating, memo.outputs = x, self._rows.seating, dict(enumerate(self._project(x)))
        taken = memo.outputs.pop(member)
        if not memo.outputs:
            memo.x = None
        return taken

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        flat = x.reshape(-1, x.shape[-1])
        y = self._projection(flat)
        if self.pool is not None and self._rows.anybody:
            seats = self._rows.seats(self._key, self.pool, len(flat))
            factor = self._rows.method == "factor"
            add = soupmix_kernels.soup_linear_factor_ if factor else soupmix_kernels.soup_linear_
            add(y, flat, self.pool, seats)
        return tuple(y.view(*x.shape[:-1], y.shape[-1]).split_with_sizes(self._projection.widths, -1))


class Member(nn.Module):
    """Stands where a linear layer stood: x [rows, ..., in] -> [rows, ..., out], by the formula of `soupmix_kernels`."""

    def __init__(self, group: SoupGroup, number: int, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.group, self._number = group, number

    def forward(self, x: Tensor) -> Tensor:
        """Project x, then add every row's soup."""
        return self.group.output(self._number, x)
