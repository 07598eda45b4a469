"""The entries that vary most between adapters, averaged by how large every delta is there (SCE of FuseChat, Wan et al. 2024)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from soupmix.merge.entries import Entries
from soupmix.merge.methods import Parts, dense, only_factors

__all__ = ["merged"]


def merged(path: str, parts: Parts, *, select: float) -> Entries:
    """sum_k q_k x_k m_k / sum_k q_k m_k over x_k = w_k d_k at the entries of greatest variance between the K of them.

    q_k is the sum of squares of x_k, and m_k says whether x_k has the sign of sum_k x_k. One adapter alone varies nowhere: all of
    it is kept. Deltas are made three times over, never held all at once.

    Args:
        select: share of the entries that is kept.

    Raises:
        AdapterError: an adapter changes the layer by more than factors ("whole").
    """
    only_factors("sce", path, parts)
    first = parts[0].factors
    shape = (first.B.shape[0], first.A.shape[1])
    return Entries(shape, sum(part.factors.rank for part in parts), lambda: _merged(parts, select))


def _merged(parts: Parts, select: float) -> Tensor:
    kept = _varied(parts, select)
    first, squares = parts[0].factors, []
    total = torch.zeros(first.B.shape[0], first.A.shape[1])
    for delta in _deltas(parts, kept):
        squares.append(delta.square().sum(dtype=torch.float64).item())
        total.add_(delta)
    is_above = total >= 0
    above, weights = torch.zeros_like(total), torch.zeros_like(total)
    for delta, square in zip(_deltas(parts, kept), squares, strict=True):
        share = square / sum(squares) if any(squares) else 0.0
        agrees = torch.where(is_above, delta > 0, delta < 0)
        above.add_(delta * agrees, alpha=share)
        weights.add_(agrees, alpha=share)
    return above.div_(weights.clamp_(min=torch.finfo(torch.float32).tiny))


def _deltas(parts: Parts, kept: Tensor | None) -> Iterator[Tensor]:
    for part in parts:
        delta = dense(part).mul_(part.weight)
        yield delta if kept is None else delta.mul_(kept)


def _varied(parts: Parts, select: float) -> Tensor | None:
    """Which entries vary most [out, in]; None for all."""
    if select == 1.0 or len(parts) == 1:
        return None
    mean = sum(_deltas(parts, None), start=torch.zeros(())).div_(len(parts))
    variance = torch.zeros_like(mean)
    for delta in _deltas(parts, None):
        variance.add_(delta.sub_(mean).square_())
    least = variance.flatten().kthvalue(variance.numel() - max(int(select * variance.numel()), 1) + 1).values
    return variance >= least
