"""Methods at load time: a function each from the adapters that change a layer to the merged update of that layer.

What methods there are, and what is said of them, stands in `soupmix.methods`. An adapter of weight zero is left out, never
multiplied, so that nothing of it can leak (0 * inf is NaN).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from soupmix.errors import AdapterError
from soupmix.merge.entries import Merged
from soupmix.merge.stack import Stack
from soupmix.methods import DEFAULT, find_method, options_of, resolve
from soupmix.options import LAYERS, Options, layer_of, share_at
from soupmix.store.adapter import Adapter, Factors

__all__ = [
    "Contribution",
    "Parts",
    "Weighted",
    "combined",
    "dense",
    "generator",
    "merge_modules",
    "only_factors",
    "warnings_of",
]

Weighted = Sequence[tuple[Adapter, float]]
"""Adapters with their weights."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one adapter does to one layer: its name and digest, its weight there, and its factors."""

    name: str
    weight: float
    factors: Factors
    digest: str


Parts = Sequence[Contribution]
"""The adapters that change one layer, in the order of their digests. Shapes agree, and no weight is 0."""


def merge_modules(weighted: Weighted, method: str = DEFAULT, options: Options | None = None) -> Mapping[str, Merged]:
    """Every module that any adapter of non-zero weight has -> its merged update, sorted by module path.

    Args:
        weighted: adapters with their weights. Stacked in the order of the adapters' digests, whatever the order given.
        method: name of a method. options: of it; the others have their defaults.

    Raises:
        RecipeError: unknown method ("unknown-method"), option ("unknown-option") or value ("bad-option").
        AdapterError: adapters disagree about a layer's shape ("shape-mismatch"); else as the method's function does.
    """
    merge_one, said = resolve(find_method(method).load), options_of(method, options or {})
    live = _live(weighted)
    paths = sorted({path for adapter, _ in live for path in adapter.modules})
    depth = 1 + max(map(layer_of, paths), default=0)
    own = {name: value for name, value in said.items() if name != LAYERS}
    parts = {path: _shared(path, _parts(path, live), said, depth) for path in paths}
    return {path: merge_one(path, found, **own) for path, found in parts.items() if found}


def warnings_of(weighted: Weighted, method: str) -> tuple[str, ...]:
    """Why a method may mean little for these adapters and weights, one sentence each."""
    warn = find_method(method).warn
    return () if warn is None else tuple(resolve(warn)(_live(weighted)))


def only_factors(method: str, path: str, parts: Parts) -> None:
    """Refuse what changes a layer by more than factors. Raises `AdapterError` ("whole")."""
    for part in parts:
        if part.factors.gain is not None or part.factors.kind != "linear":
            raise AdapterError(
                f"method {method} merges deltas of linear layers, and {part.name} changes {path} by more than factors of one: "
                f"use method {DEFAULT}",
                reason="whole",
            )


def combined(parts: Parts, coefficients: Sequence[float]) -> Stack:
    """sum_k c_k s_k B_k A_k, exact: factors side by side. Coefficients take the place of weights, and may be any numbers."""
    live = [(part.factors, c) for part, c in zip(parts, coefficients, strict=True) if c != 0.0] or [
        (parts[0].factors, 0.0)
    ]
    ranks = torch.tensor([factors.rank for factors, _ in live])
    scale = torch.tensor([c * factors.scaling for factors, c in live], dtype=torch.float64).repeat_interleave(ranks)
    A, B = torch.cat([f.A.float() for f, _ in live]), torch.cat([f.B.float() for f, _ in live], 1)
    excess = max(abs(c) / part.weight for part, c in zip(parts, coefficients, strict=True))
    return Stack(A, B, weights=torch.ones_like(scale), scale=scale, excess=max(excess, 1.0))


def dense(part: Contribution) -> Tensor:
    """s B A, the delta itself [out, in] fp32, without its weight."""
    return (part.factors.B.float() * part.factors.scaling) @ part.factors.A.float()


def generator(seed: int, path: str, part: Contribution) -> np.random.SFC64:
    """What is drawn for an adapter in a layer, whatever else is merged, in any order and anywhere.

    The words of numpy's bit generators stay the same from one release to the next (NEP 19); torch promises less.
    """
    return np.random.SFC64(list(hashlib.sha256(f"soupmix.draw.v2\0{seed}\0{part.digest}\0{path}".encode()).digest()))


def _live(weighted: Weighted) -> Weighted:
    return sorted(((a, w) for a, w in weighted if w != 0.0), key=lambda pair: pair[0].digest)


def _shared(path: str, parts: Parts, options: Options, depth: int) -> Parts:
    """The parts with what the option `layers` leaves of their weights; those of which it leaves nothing are left out."""
    if LAYERS not in options:
        return parts
    found = [replace(part, weight=part.weight * share_at(options, part.name, path, depth)) for part in parts]
    return [part for part in found if part.weight != 0.0]


def _parts(path: str, live: Weighted) -> Parts:
    parts = [
        Contribution(each.name, weight, each.modules[path], each.digest)
        for each, weight in live
        if path in each.modules
    ]
    first = parts[0]
    for part in parts:
        shape, expected = _shape(part.factors), _shape(first.factors)
        if shape != expected:
            raise AdapterError(
                f"adapters {first.name} and {part.name} disagree about the shape of {path}: {expected} and {shape}; "
                "they cannot belong to one base model",
                reason="shape-mismatch",
            )
    return parts


def _shape(factors: Factors) -> tuple[int, int]:
    return factors.B.shape[0], factors.A.shape[1]
