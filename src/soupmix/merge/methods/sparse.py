"""Methods that keep some entries of every delta and add what is kept, or what of it agrees on a sign.

Every delta is made in its turn and what it adds is added at once, to the entries above zero and to those below: a layer takes the
memory of a few matrices, however many adapters there are.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import chain
from typing import Any

import torch
from torch import Tensor

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

Thin = Callable[[Tensor, torch.Generator], Tensor]
"""A delta, which may be changed, and what is drawn for it -> what is kept of it."""


def largest(delta: Tensor, _: torch.Generator, *, density: float) -> Tensor:
    """The density * n entries of greatest size, and all that are as large as the least of them."""
    return delta.mul_(delta.abs() >= _size_at(delta, max(int(density * delta.numel()), 1)))


def middle(delta: Tensor, _: torch.Generator, *, density: float, gamma: float) -> Tensor:
    """The density * n largest entries that are left without the gamma * n largest ones."""
    count = delta.numel()
    top = int(gamma * count)
    low = top + max(int(density * count), 1)
    sizes = delta.abs()
    kept = sizes >= _size_at(delta, min(low, count))
    if top:
        kept &= sizes < _size_at(delta, top)
    return delta.mul_(kept)


def drawn(delta: Tensor, draws: torch.Generator, *, density: float, rescale: str) -> Tensor:
    """Each entry with probability density, then rescaled (DARE)."""
    return _thinned(delta, torch.full((1, 1), density), draws, rescale)


def drawn_by_size(delta: Tensor, draws: torch.Generator, *, density: float, epsilon: float, rescale: str) -> Tensor:
    """Each entry with a probability from density - epsilon, of the smallest of its row, to density + epsilon (MAGPRUNE)."""
    columns = delta.shape[1]
    order = delta.abs().argsort(dim=1, stable=True)
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(columns).expand_as(order))
    spread = 2.0 * epsilon / max(columns - 1, 1)
    return _thinned(delta, ranks.mul(spread).add_(density - epsilon), draws, rescale)


def _thinned(delta: Tensor, probability: Tensor, draws: torch.Generator, rescale: str) -> Tensor:
    kept = torch.rand(delta.shape, generator=draws) < probability
    if rescale == "l1":
        before = delta.abs().sum(dtype=torch.float64)
        after = delta.mul_(kept).abs().sum(dtype=torch.float64)
        return delta.mul_(before / after if after > 0 else 1.0)
    return delta.mul_(kept).div_(probability) if rescale == "probability" else delta.mul_(kept)


def _size_at(delta: Tensor, rank: int) -> Tensor:
    """Size of the entry that is at this place among the largest; of the place 0, more than any."""
    if rank < 1:
        return torch.tensor(torch.inf)
    return delta.abs().flatten().kthvalue(delta.numel() - rank + 1).values


def added(weighted: Iterable[tuple[float, Tensor]]) -> Tensor:
    """sum_k w_k x_k."""
    return reduce(Tensor.add_, (kept.mul_(weight) for weight, kept in weighted))


@dataclass(slots=True)
class _Side:
    """What adds to an entry with one sign: the sum of w x, of w, and how many."""

    values: Tensor
    weights: Tensor
    counts: Tensor

    @classmethod
    def empty(cls, like: Tensor) -> "_Side":
        return cls(torch.zeros_like(like), torch.zeros_like(like), torch.zeros_like(like, dtype=torch.int16))

    def take(self, weight: float, kept: Tensor, mine: Tensor) -> None:
        self.values.add_(kept * mine, alpha=weight)
        self.weights.add_(mine, alpha=weight)
        self.counts.add_(mine)


def agreed(weighted: Iterable[tuple[float, Tensor]], *, elect: str, normalize: bool) -> Tensor:
    """sum_k w_k x_k over the x_k of the sign that is elected for an entry; + where both are even (TIES, steps 2 and 3).

    Args:
        elect: "mass", that of sum_k w_k x_k, or "count", that of most x_k. normalize: divide by the share of all weights that
            these have.
    """
    rest, total = iter(weighted), 0.0
    first = next(rest)
    above, below = _Side.empty(first[1]), _Side.empty(first[1])
    for weight, kept in chain([first], rest):
        total += weight
        above.take(weight, kept, kept > 0)
        below.take(weight, kept, kept < 0)
    is_above = above.values >= -below.values if elect == "mass" else above.counts >= below.counts
    found = torch.where(is_above, above.values, below.values)
    if normalize:
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
