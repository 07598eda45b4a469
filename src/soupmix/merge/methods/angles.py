"""Lengths of deltas and angles between them, by products of factors alone."""

import torch
from torch import Tensor

from soupmix.merge.methods import Parts
from soupmix.store.gram import inner_product

__all__ = ["lengths_and_cosines"]


def lengths_and_cosines(parts: Parts) -> tuple[Tensor, Tensor]:
    """Frobenius norms [K] of the deltas of a layer and the cosines between them [K, K], float64; a delta of 0 has cosine 0 to the
    others."""
    gram = torch.tensor([[inner_product(a.factors, b.factors) for b in parts] for a in parts], dtype=torch.float64)
    lengths = gram.diagonal().clamp(min=0.0).sqrt()
    units = torch.where(lengths > 0.0, 1.0 / lengths, 0.0)
    return lengths, (gram * units[:, None] * units).clamp(-1.0, 1.0).fill_diagonal_(1.0)
