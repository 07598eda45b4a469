"""How far two ways to compute the same logits are apart, and how far they may be, where a model is tried before it serves.

Rounding alone lies between two right ways. How much depends on the model, so it is measured: transformers computes the same
tokens at once and one by one over its own cache, both right. A third way may be four times as far away as these two, or eight
units of the dtype's precision where they agree better than that. Differences are of a whole vector of logits, relative to its
spread: of several tokens the largest, and in half precision the largest but one, as a router may send a token to another expert.
"""

import torch
from torch import Tensor

__all__ = ["allowed", "apart", "is_rounding"]

_TIMES, _UNITS, _LEAST, _MOST = 4, 8, 1e-4, 0.25
_MOST_FULL = 1e-3  # in fp32, in which models are below 1e-5


def apart(one: Tensor, other: Tensor) -> float:
    """The distance of logits [tokens, vocabulary] from others of the same tokens; NaN if either is not finite."""
    a, b = one.double(), other.double()
    found = (a - b).norm(dim=-1) / (b - b.mean(-1, keepdim=True)).norm(dim=-1)
    full = one.dtype == torch.float32 or len(found) == 1
    return float(found.max() if full or found.isnan().any() else found.sort().values[-2])


def allowed(noise: float, dtype: torch.dtype) -> float:
    """How far a way may be from the others, where two right ways are `noise` apart."""
    return min(max(_TIMES * noise, _UNITS * torch.finfo(dtype).eps, _LEAST), _MOST)


def is_rounding(noise: float, dtype: torch.dtype) -> bool:
    """Whether two ways so far apart may both be right."""
    return noise <= (_MOST_FULL if dtype == torch.float32 else _MOST)
