"""The weighted sum of the adapters' deltas, exact: their factors are stacked side by side."""

import torch
from torch import Tensor

from soupmix.merge.methods import Parts
from soupmix.merge.stack import Stack

__all__ = ["stack"]


def stack(path: str, parts: Parts) -> Stack:
    """sum_k w_k (s_k B_k A_k + diag(g_k) W), gains g_k of DoRA; the rank is the sum of the ranks of the parts."""
    ranks = torch.tensor([part.factors.rank for part in parts])
    weights, scale = torch.tensor([(part.weight, part.factors.scaling) for part in parts], dtype=torch.float64).T
    return Stack(
        A=torch.cat([part.factors.A.float() for part in parts]),
        B=torch.cat([part.factors.B.float() for part in parts], 1),
        weights=weights.repeat_interleave(ranks),
        scale=scale.repeat_interleave(ranks),
        gain=_gain(parts),
        kind=parts[0].factors.kind,
    )


def _gain(parts: Parts) -> Tensor | None:
    gains = [part.weight * part.factors.gain.double() for part in parts if part.factors.gain is not None]
    return torch.stack(gains).sum(0)[:, None].float() if gains else None
