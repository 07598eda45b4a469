"""Methods at load time: a function each from the adapters that change a layer to the merged update of that layer.

What methods there are, and what is said of them, stands in `soupmix.methods`. An adapter of weight zero is left out, never
multiplied, so that nothing of it can leak (0 * inf is NaN).
"""

from collections.abc import Mapping, Sequence

from soupmix.errors import AdapterError
from soupmix.merge.stack import Stack
from soupmix.methods import DEFAULT, find_method, resolve
from soupmix.store.adapter import Adapter, Factors

__all__ = ["Parts", "Weighted", "merge_modules", "warnings_of"]

Weighted = Sequence[tuple[Adapter, float]]
"""Adapters with their weights."""

Parts = Sequence[tuple[str, float, Factors]]
"""The adapters that change one layer: name, weight, factors, in the order of the adapters' digests. Shapes agree."""


def merge_modules(weighted: Weighted, method: str = DEFAULT) -> Mapping[str, Stack]:
    """Every module that any adapter of non-zero weight has -> its merged update, sorted by module path.

    Args:
        weighted: adapters with their weights. Stacked in the order of the adapters' digests, whatever the order given.
        method: name of a method.

    Raises:
        RecipeError: unknown method ("unknown-method").
        AdapterError: adapters disagree about a layer's shape ("shape-mismatch"); else as the method's function does.
    """
    merge_one = resolve(find_method(method).load)
    live = _live(weighted)
    paths = sorted({path for adapter, _ in live for path in adapter.modules})
    return {path: merge_one(path, _parts(path, live)) for path in paths}


def warnings_of(weighted: Weighted, method: str) -> tuple[str, ...]:
    """Why a method may mean little for these adapters and weights, one sentence each."""
    warn = find_method(method).warn
    return () if warn is None else tuple(resolve(warn)(_live(weighted)))


def _live(weighted: Weighted) -> Weighted:
    return sorted(((a, w) for a, w in weighted if w != 0.0), key=lambda pair: pair[0].digest)


def _parts(path: str, live: Weighted) -> Parts:
    parts = [(adapter.name, weight, adapter.modules[path]) for adapter, weight in live if path in adapter.modules]
    first = parts[0]
    for name, _, factors in parts:
        shape, expected = _shape(factors), _shape(first[2])
        if shape != expected:
            raise AdapterError(
                f"adapters {first[0]} and {name} disagree about the shape of {path}: {expected} and {shape}; "
                "they cannot belong to one base model",
                reason="shape-mismatch",
            )
    return parts


def _shape(factors: Factors) -> tuple[int, int]:
    return factors.B.shape[0], factors.A.shape[1]
