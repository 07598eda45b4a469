"""All deltas of a layer in one basis, merged there entry by entry (KnOTS, Stoica et al. 2024).

The basis is that of the deltas side by side, [d_1 ... d_K] = U S [V_1 ... V_K]. It comes from thin QR of the factors and the
SVD of a small core, and what is merged, S V_k, has as many rows as the ranks sum up to: nothing dense is made.
"""

from typing import Any

import torch
from torch import Tensor

from soupmix.merge.methods import Parts, only_factors, sparse
from soupmix.merge.stack import Stack

__all__ = ["stack"]

_NOTHING = 1e-12  # of the largest singular value


def stack(path: str, parts: Parts, *, inner: str, density: float, rescale: str, seed: int, **elected: Any) -> Stack:
    """U merged(w_k, S V_k), merged as the method `inner` does.

    Args:
        density, rescale, seed, elected: as of that method.

    Raises:
        AdapterError: an adapter changes the layer by more than factors ("whole").
    """
    only_factors("knots", path, parts)
    basis, blocks = _aligned(parts)
    merged = sparse.consensus(inner, path, parts, blocks, density=density, rescale=rescale, seed=seed, **elected)
    ones = torch.ones(len(merged), dtype=torch.float64)
    return Stack(merged, basis.float(), weights=ones, scale=ones)


def _aligned(parts: Parts) -> tuple[Tensor, list[Tensor]]:
    """U [out, R] float64, and S V_k [R, in] fp32 of every delta."""
    left, left_core = torch.linalg.qr(torch.cat([p.factors.B.double() * p.factors.scaling for p in parts], 1))
    rights = [torch.linalg.qr(part.factors.A.double().T) for part in parts]
    cores = left_core.split([part.factors.rank for part in parts], 1)
    core = torch.cat([mine @ right.R.T for mine, right in zip(cores, rights, strict=True)], 1)
    u, values, v = torch.linalg.svd(core, full_matrices=False)
    kept = max(int((values > _NOTHING * values[0]).sum()), 1)
    parts_of_v = (values[:kept, None] * v[:kept]).split([right.R.shape[0] for right in rights], 1)
    blocks = [(mine @ right.Q.T).float() for mine, right in zip(parts_of_v, rights, strict=True)]
    return left @ u[:, :kept], blocks
