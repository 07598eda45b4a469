"""The weighted sum of the adapters' deltas, exact: their factors are stacked side by side."""

import torch

from soupmix.merge.methods import Parts
from soupmix.merge.stack import Stack

__all__ = ["stack"]


def stack(path: str, parts: Parts) -> Stack:
    """sum_k w_k s_k B_k A_k; the rank is the sum of the ranks of the parts."""
    ranks = torch.tensor([f.rank for _, _, f in parts])
    weights, scale = torch.tensor([(w, f.scaling) for _, w, f in parts], dtype=torch.float64).T
    return Stack(
        A=torch.cat([f.A.float() for _, _, f in parts]),
        B=torch.cat([f.B.float() for _, _, f in parts], 1),
        weights=weights.repeat_interleave(ranks),
        scale=scale.repeat_interleave(ranks),
    )
