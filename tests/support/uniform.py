"""Numbers from 0 to 1 out of the words of a bit generator."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def uniform(draws: np.random.SFC64, shape: Sequence[int]) -> Tensor:
    """[shape] float64, of 32 bits each: the lower half of a word of 64, then its upper half, and so on."""
    words = [int(word) for word in draws.random_raw(int(np.prod(shape)))]
    halves = [half for word in words for half in (word % 2**32, word // 2**32)]
    return torch.tensor(halves[: int(np.prod(shape))], dtype=torch.float64).reshape(tuple(shape)) / 2**32
