"""Methods that keep some entries of every delta and add what is kept, or what of it agrees on a sign.

Every delta is made in its turn and what it adds is added at once, to the entries above zero and to those below: a layer takes the
memory of a few matrices, however many adapters there are.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from soupmix.errors import RecipeError
from soupmix.merge.entries import Entries
from soupmix.merge.methods import Parts, dense, generator, only_factors

__all__ = [
    "breadcrumbs",
    "breadcrumbs_ties",
    "consensus",
    "dare_linear",
    "dare_ties",
    "della",
    "della_linear",
    "magnitude_prune",
    "ties",
]

_COLUMN = 32  # bits; a row has fewer than 2 ** 32 entries

Thin = Callable[[Tensor, np.random.SFC64], Tensor]
"""A delta, which may be changed, and what is drawn for it -> what is kept of it."""


def largest(delta: Tensor, _: np.random.SFC64, *, density: float) -> Tensor:
    """The density * n entries of greatest size, and all that are as large as the least of them."""
    least = _size_at(delta, max(int(density * delta.numel()), 1))
    return hardshrink(delta, torch.nextafter(least, -torch.ones(())).item())  # one pass, which leaves what is larger


def middle(delta: Tensor, _: np.random.SFC64, *, density: float, gamma: float) -> Tensor:
    """The density * n largest entries that are left without the gamma * n largest ones."""
    count = delta.numel()
    top = int(gamma * count)
    low = top + max(int(density * count), 1)
    sizes = delta.abs()
    kept = sizes >= _size_at(delta, min(low, count))
    if top:
        kept &= sizes < _size_at(delta, top)
    return delta.mul_(kept)


def drawn(delta: Tensor, draws: np.random.SFC64, *, density: float, rescale: str) -> Tensor:
    """Each entry with probability density, then rescaled (DARE)."""
    return _thinned(delta, torch.full((1, 1), density), draws, rescale)


def drawn_by_size(delta: Tensor, draws: np.random.SFC64, *, density: float, epsilon: float, rescale: str) -> Tensor:
    """Each entry with a probability from density - epsilon, of the smallest of its row, to density + epsilon (MAGPRUNE)."""
    spread = 2.0 * epsilon / max(delta.shape[1] - 1, 1)
    return _thinned(delta, _ranks(delta.abs()).mul_(spread).add_(density - epsilon), draws, rescale)


def _ranks(sizes: Tensor) -> Tensor:
    """[out, in] fp32: how many entries of its row are smaller, or as large and before it; sizes [out, in] fp32 of at least 0.

    Whole numbers are sorted that hold a size, whose bits rise as it does, and its column: several times faster than by `argsort`.
    """
    keys = sizes.numpy().view(np.int32).astype(np.int64) << _COLUMN
    keys |= np.arange(sizes.shape[1])
    keys.sort(axis=1)
    keys &= (1 << _COLUMN) - 1
    places = torch.arange(sizes.shape[1], dtype=sizes.dtype).expand_as(sizes)
    return torch.empty_like(sizes).scatter_(1, torch.from_numpy(keys), places)


def _thinned(delta: Tensor, probability: Tensor, draws: np.random.SFC64, rescale: str) -> Tensor:
    kept = _kept(delta.shape, probability, draws)
    if rescale == "l1":
        before = delta.abs().sum(dtype=torch.float64)
        after = delta.mul_(kept).abs().sum(dtype=torch.float64)
        return delta.mul_(before / after if after > 0 else 1.0)
    return delta.mul_(kept).div_(probability) if rescale == "probability" else delta.mul_(kept)


def _kept(shape: torch.Size, probability: Tensor, draws: np.random.SFC64) -> Tensor:
    """[out, in] bool: true with these probabilities [out, in] or [1, 1], above 0 and up to 1, which are rounded to 2 ** -32."""
    count = shape.numel()
    words = draws.random_raw(-(-count // 2)).view(np.uint32)[:count].reshape(shape)
    return torch.from_numpy(words <= (probability.double().mul(2.0**32).clamp(1.0).sub(1.0).numpy().astype(np.uint32)))


def _size_at(delta: Tensor, rank: int) -> Tensor:
    """Size of the entry that is at this place among the largest; of the place 0, more than any."""
    if rank < 1:
        return torch.tensor(torch.inf)
    sizes, place = delta.abs().flatten(), delta.numel() - rank
    sizes.numpy().partition(place)  # torch's kthvalue takes nine times as long
    return sizes[place]


def added(weighted: Iterable[tuple[float, Tensor]]) -> Tensor:
    """sum_k w_k x_k."""
    return reduce(Tensor.add_, (kept.mul_(weight) for weight, kept in weighted))


@dataclass(slots=True)
class _Side:
    """What adds to an entry with one sign: the sum of w x, and where they are asked for the sum of w, and how many."""

    values: Tensor
    weights: Tensor | None
    counts: Tensor | None

    @classmethod
    def empty(cls, like: Tensor, *, weighs: bool, counts: bool) -> "_Side":
        weights = torch.zeros_like(like) if weighs else None
        return cls(torch.zeros_like(like), weights, torch.zeros_like(like, dtype=torch.int16) if counts else None)

    def take(self, weight: float, mine: Tensor) -> None:
        """Add entries; those of the other sign are 0."""
        self.values.add_(mine, alpha=weight)
        if self.weights is not None or self.counts is not None:
            there = mine != 0
            if self.weights is not None:
                self.weights.add_(there, alpha=weight)
            if self.counts is not None:
                self.counts.add_(there)


def agreed(weighted: Iterable[tuple[float, Tensor]], *, elect: str, normalize: bool) -> Tensor:
    """sum_k w_k x_k over the x_k of the sign that is elected for an entry; + where both are even (TIES, steps 2 and 3).

    Args:
        elect: "mass", that of sum_k w_k x_k, or "count", that of most x_k. normalize: divide by the share of all weights that
            these have.
    """
    rest, total = iter(weighted), 0.0
    first = next(rest)
    above, below = (_Side.empty(first[1], weighs=normalize, counts=elect == "count") for _ in range(2))
    for weight, kept in chain([first], rest):
        total += weight
        above.take(weight, kept.clamp(min=0.0))
        below.take(weight, kept.clamp_(max=0.0))
    is_above = above.values >= -below.values
    if above.counts is not None and below.counts is not None:
        is_above = above.counts >= below.counts
    found = torch.where(is_above, above.values, below.values)
    if above.weights is not None and below.weights is not None:
        weights = torch.where(is_above, above.weights, below.weights)
        found.mul_(torch.where(weights > 0, total / weights, 0.0))
    return found


def magnitude_prune(path: str, parts: Parts, *, density: float) -> Entries:
    """The largest entries of every delta, added by weight."""
    return _entries("magnitude_prune", path, parts, partial(largest, density=density), added)


def ties(path: str, parts: Parts, *, density: float, **elected: Any) -> Entries:
    """The largest entries of every delta, those of the elected sign added (Yadav et al. 2023)."""
    return _entries("ties", path, parts, partial(largest, density=density), partial(agreed, **elected))


def dare_linear(path: str, parts: Parts, *, density: float, rescale: str, seed: int) -> Entries:
    """Drawn entries, rescaled and added by weight (Yu et al. 2024)."""
    return _entries("dare_linear", path, parts, partial(drawn, density=density, rescale=rescale), added, seed)


def dare_ties(path: str, parts: Parts, *, density: float, rescale: str, seed: int, **elected: Any) -> Entries:
    """Drawn entries, rescaled, those of the elected sign added (Yu et al. 2024)."""
    thin = partial(drawn, density=density, rescale=rescale)
    return _entries("dare_ties", path, parts, thin, partial(agreed, **elected), seed)


def della(path: str, parts: Parts, *, seed: int, elect: str, normalize: bool, **said: Any) -> Entries:
    """Entries drawn by their size, those of the elected sign added (Deep et al. 2024)."""
    return _entries(
        "della", path, parts, _by_size("della", **said), partial(agreed, elect=elect, normalize=normalize), seed
    )


def della_linear(path: str, parts: Parts, *, seed: int, **said: Any) -> Entries:
    """Entries drawn by their size, added by weight (Deep et al. 2024)."""
    return _entries("della_linear", path, parts, _by_size("della_linear", **said), added, seed)


def breadcrumbs(path: str, parts: Parts, **said: Any) -> Entries:
    """Deltas without their largest and smallest entries, added by weight (Davari and Belilovsky 2023)."""
    return _entries("breadcrumbs", path, parts, _between("breadcrumbs", **said), added)


def breadcrumbs_ties(path: str, parts: Parts, *, elect: str, normalize: bool, **said: Any) -> Entries:
    """Deltas without their largest and smallest entries, those of the elected sign added."""
    thin, choose = _between("breadcrumbs_ties", **said), partial(agreed, elect=elect, normalize=normalize)
    return _entries("breadcrumbs_ties", path, parts, thin, choose)


def consensus(
    inner: str,
    path: str,
    parts: Parts,
    blocks: Sequence[Tensor],
    *,
    density: float,
    rescale: str,
    seed: int,
    **elected: Any,
) -> Tensor:
    """What one of these methods makes of matrices that stand for the deltas of the parts, and may be changed."""
    thin = partial(largest, density=density) if inner == "ties" else partial(drawn, density=density, rescale=rescale)
    kept = ((part.weight, thin(block, generator(seed, path, part))) for part, block in zip(parts, blocks, strict=True))
    return added(kept) if inner == "dare_linear" else agreed(kept, **elected)


def _entries(
    method: str,
    path: str,
    parts: Parts,
    thin: Thin,
    merge: Callable[[Iterable[tuple[float, Tensor]]], Tensor],
    seed: int = 0,
) -> Entries:
    only_factors(method, path, parts)

    def make() -> Tensor:
        return merge((part.weight, thin(dense(part), generator(seed, path, part))) for part in parts)

    first = parts[0].factors
    return Entries((first.B.shape[0], first.A.shape[1]), sum(part.factors.rank for part in parts), make)


def _by_size(method: str, *, density: float, epsilon: float, rescale: str) -> Thin:
    if not 0.0 < density - epsilon <= density + epsilon <= 1.0:
        raise RecipeError(
            f"method {method}: density - epsilon and density + epsilon are probabilities above 0 and up to 1, and density "
            f"{density:g} with epsilon {epsilon:g} was given",
            reason="bad-option",
        )
    return partial(drawn_by_size, density=density, epsilon=epsilon, rescale=rescale)


def _between(method: str, *, density: float, gamma: float) -> Thin:
    if density + gamma > 1.0:
        raise RecipeError(
            f"method {method}: density and gamma are parts of the entries, and {density:g} with {gamma:g} is more than all",
            reason="bad-option",
        )
    return partial(middle, density=density, gamma=gamma)
