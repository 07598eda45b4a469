"""The best approximation, of a given rank, of the weighted sum of deltas; by thin QR of the stacked factors, never dense."""

import torch

from soupmix.merge.methods import Parts, combined, only_factors
from soupmix.merge.stack import Stack, compress

__all__ = ["stack"]


def stack(path: str, parts: Parts, *, svd_rank: int | None) -> Stack:
    """U_r S_r V_r^T of sum_k w_k s_k B_k A_k (Eckart and Young 1936).

    Args:
        svd_rank: most columns; None: as many as the largest adapter has here.

    Raises:
        AdapterError: an adapter changes the layer by more than factors ("whole").
    """
    only_factors("svd", path, parts)
    rank = svd_rank or max(part.factors.rank for part in parts)
    B, A, *_ = compress(combined(parts, [part.weight for part in parts]), rank)
    ones = torch.ones(len(A), dtype=torch.float64)
    return Stack(A.float(), B.float(), weights=ones, scale=ones)
