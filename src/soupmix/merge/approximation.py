"""The factors of a given rank that come nearest to a whole matrix."""

from contextlib import suppress
from typing import Final

import torch
from torch import Tensor

__all__ = ["apart", "nearest", "subspace"]

_EXACT: Final = 1024  # up to this smaller side the best factors are found, beyond it nearly the best
_SPARE, _POWERS = 8, 2
_MANY, _TRIES = 8, 20  # vectors of a side are few where they are an eighth; iterations a vector
_NEAR = 1e-6
_CANCELS = 1e-3  # below this share of the norm, what squares leave out is not told from their rounding


def nearest(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, float, float]:
    """Factors B [out, r] and A [r, in] in float64 with r = min(rank, out, in), the norm that they leave out, the norm of all.

    They are the best of their rank where a side has up to 1024 entries (Eckart and Young). Of a larger matrix they lie in a
    subspace that nearly holds its largest singular vectors; what is left out is measured either way.

    Args:
        matrix: [out, in] fp32, finite.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide, kept = wide.double(), min(rank, *matrix.shape)
    norm = torch.linalg.vector_norm(wide).item()
    left = _largest(wide, kept, norm) if len(wide) <= _EXACT else subspace(wide, min(kept + _SPARE, len(wide)))
    right = left.T @ wide
    inner, values, v = torch.linalg.svd(right, full_matrices=False)
    root = values[:kept].sqrt()
    B, A = (left @ inner[:, :kept]) * root, root[:, None] * v[:kept]
    lost = (max(norm**2 - values[:kept].square().sum().item(), 0.0)) ** 0.5
    if lost < _CANCELS * norm:
        lost = torch.linalg.vector_norm(torch.addmm(wide, B, A, alpha=-1)).item()
    return (
        (B, A, lost, norm)
        if wide.shape == matrix.shape and matrix.shape[0] <= matrix.shape[1]
        else (A.T, B.T, lost, norm)
    )


def apart(matrix: Tensor, B: Tensor, A: Tensor) -> tuple[float, float]:
    """(|B A - matrix|, |matrix|) of a matrix [out, in] and a pair of factors."""
    exact = matrix.double()
    norm = torch.linalg.vector_norm(exact).item()
    return torch.linalg.vector_norm(torch.addmm(exact, B.double(), A.double(), alpha=-1)).item(), norm


def subspace(matrix: Tensor, columns: int) -> Tensor:
    """[out, columns], orthonormal, that nearly spans the largest left singular vectors of a matrix [out, in].

    Halko, Martinsson and Tropp 2011, algorithm 4.4, with a fixed seed.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(matrix.shape[1], columns, generator=generator, dtype=matrix.dtype)
    basis = torch.linalg.qr(matrix @ drawn).Q
    for _ in range(_POWERS):
        basis = torch.linalg.qr(matrix.T @ basis).Q
        basis = torch.linalg.qr(matrix @ basis).Q
    found: Tensor = basis
    return found


def _largest(wide: Tensor, kept: int, norm: float) -> Tensor:
    """[out, kept]: the largest left singular vectors of a matrix of this norm.

    A few of many are found by Lanczos iteration (ARPACK), which reads the matrix some dozens of times: in fp32, as what is lost
    depends on the square of how far they are off. Where that does not converge, or there are not few, they are eigenvectors of
    the matrix times its transpose.
    """
    from scipy.sparse.linalg import ArpackError, svds

    if norm and _MANY * kept <= len(wide):
        start = torch.randn(len(wide), generator=torch.Generator().manual_seed(0))
        read = {"v0": start.numpy(), "return_singular_vectors": "u", "maxiter": _TRIES * kept, "tol": _NEAR}
        with suppress(ArpackError):
            few, _, _ = svds((wide / norm).float().numpy(), kept, **read)
            orthonormal: Tensor = torch.linalg.qr(torch.from_numpy(few.copy()).to(wide.dtype)).Q
            return orthonormal
    found: Tensor = torch.linalg.eigh(wide @ wide.T).eigenvectors[:, -kept:]
    return found
