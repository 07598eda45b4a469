"""The merged update of one linear layer in factored form, its norm, and the thin route to a lower rank."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from soupmix.public import public
from soupmix.store.adapter import LayerForm

__all__ = ["Stack", "compress", "distance", "frobenius", "one_thread"]

_THREADS = threading.Lock()


@public
@dataclass(frozen=True, slots=True)
class Stack:
    """delta = (B * c) A with c = weights * scale, never formed; where an adapter is a DoRA, diag(gain) W besides.

    Attributes:
        A: [R, in] fp32.
        B: [out, R] fp32.
        weights: weight of every rank column's adapter [R] float64, in [0, 1].
        scale: scaling of every rank column's adapter [R] float64.
        gain: how much of itself every output of the base's weight W gains [out, 1] fp32, or None: nothing.
        kind: what the layer is, as `Factors.kind`.
        excess: the most that an adapter acts by here, over its own weight; 1 where none acts above it.
    """

    A: Tensor
    B: Tensor
    weights: Tensor
    scale: Tensor
    gain: Tensor | None = None
    kind: LayerForm = "linear"
    excess: float = 1.0

    @property
    def c(self) -> Tensor:
        """One coefficient per rank column, [R] float64."""
        return self.weights * self.scale

    @property
    def rank(self) -> int:
        """Number of rank columns R."""
        return self.A.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the layer."""
        return self.B.shape[0], self.A.shape[1]

    def scaled(self) -> Tensor:
        """B * c in float64 [out, R]."""
        return self.B.double() * self.c

    @property
    def norm(self) -> float:
        """Frobenius norm of what the factors give."""
        return frobenius(self.scaled(), self.A)

    def transposed(self) -> "Stack":
        """The update the other way round."""
        gain = None if self.gain is None else self.gain.T.contiguous()
        return replace(self, A=self.B.T.contiguous(), B=self.A.T.contiguous(), gain=gain)

    def rows(self, first: int, count: int) -> "Stack":
        """Some rows of the update."""
        return replace(self, B=self.B[first : first + count].contiguous())

    def scaled_by(self, factor: float) -> "Stack":
        """The update times a factor."""
        return replace(self, scale=self.scale * factor, gain=None if self.gain is None else self.gain * factor)

    def __repr__(self) -> str:
        return f"<Stack of rank {self.rank}, {self.shape[1]} -> {self.shape[0]}>"


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread for a while: LAPACK's last bits depend on how many, exported bytes must not.

    The setting belongs to the process, so exports that need it wait for one another.
    """
    with _THREADS:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def frobenius(left: Tensor, right: Tensor) -> float:
    """|left right| for left [out, R] and right [R, in] by an R x R product, in float64."""
    left, right = left.double(), right.double()
    squared = ((left.T @ left) * (right @ right.T)).sum().item()
    return math.sqrt(max(squared, 0.0))


def distance(stack: Stack, B: Tensor, A: Tensor) -> tuple[float, float]:
    """(|B A - delta|, |delta|) of a stack and a stored pair of factors B [out, r], A [r, in], without forming either.

    When the pair has the stack's own columns the difference is (B - B') A + B' (A - A'), which loses no digits to
    cancellation; otherwise 1e-8 of |delta| is the floor of what can be seen.
    """
    exact_B, exact_A = stack.scaled(), stack.A.double()
    norm = frobenius(exact_B, exact_A)
    B, A = B.double(), A.double()
    if torch.equal(A, exact_A):
        return frobenius(B - exact_B, A), norm
    if A.shape == exact_A.shape:
        return frobenius(torch.cat([B - exact_B, exact_B], 1), torch.cat([A, A - exact_A])), norm
    return frobenius(torch.cat([B, -exact_B], 1), torch.cat([A, exact_A])), norm


def compress(stack: Stack, rank: int) -> tuple[Tensor, Tensor, float, float]:
    """The best approximation of the delta of at most the given rank (Eckart-Young), without an [out, in] SVD.

    delta = (B c) A = Q_b (R_b R_a^T) Q_a^T with thin QR of B c and of A^T, and the SVD of the small core.
    The singular values are split evenly between the factors.

    Returns:
        B [out, r] and A [r, in] in float64 with r = min(rank, R, out, in); the norm that was cut off; the norm of all.
    """
    left, left_core = torch.linalg.qr(stack.scaled())
    right, right_core = torch.linalg.qr(stack.A.double().T)
    u, values, v = torch.linalg.svd(left_core @ right_core.T, full_matrices=False)
    kept = min(rank, values.numel())
    root = values[:kept].sqrt()
    lost = torch.linalg.vector_norm(values[kept:]).item()
    return left @ (u[:, :kept] * root), (root[:, None] * v[:kept]) @ right.T, lost, values.norm().item()
