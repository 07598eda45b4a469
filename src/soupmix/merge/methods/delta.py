"""The weighted sum of the adapters' deltas, exact: their factors are stacked side by side."""

import torch
from torch import Tensor

from soupmix.merge.methods import Parts
from soupmix.merge.stack import Stack

__all__ = ["stack"]


def stack(path: str, parts: Parts) -> Stack:
    """sum_k w_k (s_k B_k A_k + diag(g_k) W), gains g_k of DoRA; the rank is the sum of the ranks of the parts."""
    ranks = torch.tensor([f.rank for _, _, f in parts])
    weights, scale = torch.tensor([(w, f.scaling) for _, w, f in parts], dtype=torch.float64).T
    return Stack(
        A=torch.cat([f.A.float() for _, _, f in parts]),
        B=torch.cat([f.B.float() for _, _, f in parts], 1),
        weights=weights.repeat_interleave(ranks),
        scale=scale.repeat_interleave(ranks),
        gain=_gain(parts),
        kind=parts[0][2].kind,
    )


def _gain(parts: Parts) -> Tensor | None:
    gains = [w * f.gain.double() for _, w, f in parts if f.gain is not None]
    return torch.stack(gains).sum(0)[:, None].float() if gains else None
