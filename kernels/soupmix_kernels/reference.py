"""The truth in plain torch: every kernel is judged against these functions, and they run where no kernel does.

A coefficient of zero excludes its rank column (0 * inf would be NaN), so an adapter that was not granted cannot leak.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear

__all__ = ["merge", "soup_linear", "soup_linear_factor"]


def merge(W: Tensor, A: Tensor, B: Tensor, c: Tensor, out: Tensor | None = None) -> Tensor:
    """`W + (B * c) A` with fp32 accumulation and one rounding to the dtype of `out`.

    Args:
        W: base weight [out, in], any float dtype. Left untouched unless it is also `out`.
        A: stacked factors [R, in]. B: stacked factors [out, R].
        c: coefficients [R], fp32.
        out: where to write [out, in]; a new tensor of W's dtype when None.

    Returns:
        The merged weight.
    """
    live = c != 0
    delta_b = B[:, live].float() * c[live]
    if out is not None and out.dtype == torch.float32:
        return torch.addmm(W.float(), delta_b, A[live].float(), out=out)
    merged = torch.addmm(W.float(), delta_b, A[live].float())
    return merged.to(W.dtype) if out is None else out.copy_(merged)


def soup_linear(x: Tensor, y: Tensor, A: Tensor, B: Tensor, c: Tensor) -> Tensor:
    """`y + ((x A^T) * c) B^T`: the deltas of every row's own soup on top of the base projection.

    Args:
        x: input [rows, ..., in]. y: base projection of x [rows, ..., out]; it is not modified.
        A: stacked factors [R, in]. B: stacked factors [out, R], both in the dtype of x.
        c: coefficients [rows, R], fp32.

    Returns:
        [rows, ..., out] in the dtype of y. Rows whose coefficients are all zero equal y bit for bit.
    """
    c = c.view(c.shape[0], *[1] * (x.ndim - 2), c.shape[1])
    h = linear(x, A)
    h = torch.where(c != 0, h * c.to(h.dtype), 0)
    delta = linear(h, B)
    return torch.where((c != 0).any(-1, keepdim=True), y + delta, y)


def soup_linear_factor(x: Tensor, y: Tensor, A: Tensor, B: Tensor, c: Tensor, adapters: int) -> Tensor:
    """`y + (x A_bar^T) B_bar^T` with A_bar = sum_k c_k A_k and B_bar = sum_k c_k B_k, per row.

    Args:
        x, y, A, B: as in `soup_linear`; all `adapters` blocks have the same rank r, so R = adapters * r.
        c: coefficients [rows, adapters], fp32: weight times the square root of the scaling.

    Returns:
        [rows, ..., out] in the dtype of y.
    """
    c = c.view(c.shape[0], *[1] * (x.ndim - 2), adapters, 1)
    h = linear(x, A)
    h = h.view(*h.shape[:-1], adapters, -1)
    live = c != 0
    scaled = c.to(h.dtype)
    shared = torch.where(live, h * scaled, 0).sum(-2, keepdim=True)
    spread = torch.where(live, shared * scaled, 0).flatten(-2)
    return torch.where(live.any(-2), y + linear(spread, B), y)
