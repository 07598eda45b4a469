"""How large adapters are: inner products of their deltas, and the norm of the base weights that they change.

Inner products come from r x r products: a delta [out, in] is never formed. The product of a pair depends on these two alone, so
that what a manifest holds of a pair stays true whatever else is added. A bound on the norm of a soup is relative to that of the
base.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

from soupmix.base import Base, Layer
from soupmix.base.layers import weight_path
from soupmix.base.squares import layer_square
from soupmix.dtypes import TORCH
from soupmix.errors import BaseModelError
from soupmix.store.adapter import Factors
from soupmix.store.deltas import matrix_of
from soupmix.store.manifest import Gram

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Pair", "base_norm", "gram_of", "inner_product", "norm_of", "pairs_of", "products"]

Pair = tuple[str, str]
"""Names of two adapters, or twice the name of one, sorted."""

_ROWS = 1 << 12  # of a whole weight that are in float64 at once


def inner_product(one: Factors, other: Factors) -> float:
    """<delta_one, delta_other> of one module, in float64.

    With delta_k = s_k B_k A_k:  <delta_k, delta_l> = s_k s_l tr((B_k^T B_l)(A_l A_k^T)), the sum of the elementwise
    product of the two [r_k, r_l] matrices B_k^T B_l and A_k A_l^T.
    """
    mine, theirs = _formed(one), _formed(other)
    if mine is not None and theirs is not None:  # of whole weights, where those products would take minutes
        parts = zip(mine.split(_ROWS), theirs.split(_ROWS), strict=True)
        return one.scaling * math.fsum((a.double() * b.double()).sum().item() for a, b in parts) * other.scaling
    products = (one.B.double().T @ other.B.double()) * (one.A.double() @ other.A.double().T)
    return one.scaling * products.sum().item() * other.scaling


def _formed(factors: Factors) -> "Tensor | None":
    """B A [out, in] where one of them is the identity, as of a weight that changed as a whole; else None."""
    if _is_identity(factors.A):
        return factors.B
    return factors.A if _is_identity(factors.B) else None


def _is_identity(matrix: "Tensor") -> bool:
    rows, columns = matrix.shape
    return rows == columns and matrix.equal(matrix.new_zeros(rows, columns).fill_diagonal_(1))


def _gained(one: Factors, other: Factors, weight: "Tensor") -> float:
    """What DoRA's gains g add to the inner product: <diag(g) W, other's delta>, and the other way round.

    <diag(g) W, s B A> = s tr(B^T (diag(g) W A^T)), and <diag(g) W, diag(h) W> the squares of rows of W by g h.
    """
    both = [each.gain.double() if each.gain is not None else None for each in (one, other)]
    parts = [
        factors.scaling * (factors.B.double() * gain[:, None] * (weight @ factors.A.double().T)).sum().item()
        for gain, factors in zip(both, (other, one), strict=True)
        if gain is not None
    ]
    if both[0] is not None and both[1] is not None:
        parts.append((both[0] * both[1] * weight.square().sum(1)).sum().item())
    return math.fsum(parts)


def products(one: Mapping[str, Factors], other: Mapping[str, Factors], base: Base) -> Mapping[str, float]:
    """Module -> the inner product of two adapters' deltas there, for the modules that both adapt, sorted.

    All experts in one weight are one module here. The base's weights are read where an adapter has gains.
    """
    found: dict[str, list[float]] = {}
    for module in sorted(one.keys() & other.keys()):
        parts = found.setdefault(weight_path(module), [])
        parts.append(inner_product(one[module], other[module]))
        if one[module].gain is not None or other[module].gain is not None:
            parts.append(_gained(one[module], other[module], matrix_of(base, base.layers()[module])))
    return {module: math.fsum(parts) for module, parts in found.items()}


def norm_of(adapter: Mapping[str, Factors], base: Base) -> float:
    """Frobenius norm of an adapter's whole delta, to ten digits."""
    square = _rounded(math.fsum(products(adapter, adapter, base).values()))
    return _rounded(math.sqrt(max(0.0, square)))


def pairs_of(names: Sequence[str], gram: Gram) -> Mapping[Pair, Mapping[str, float]]:
    """What a `Gram` over these sorted names holds of every pair, by module; "" is all modules together."""
    found: dict[Pair, dict[str, float]] = {pair: {} for pair in combinations_with_replacement(names, 2)}
    for module, triangle in {"": gram.total, **gram.modules}.items():
        for pair, value in zip(found, triangle, strict=True):
            found[pair][module] = value
    return found


def gram_of(names: Sequence[str], modules: Iterable[str], pairs: Mapping[Pair, Mapping[str, float]]) -> Gram:
    """The `Gram` of adapters by these sorted names, from products by pair and module.

    Args:
        names: sorted. modules: those that at least one of them adapts.
        pairs: for every pair of names what `pairs_of` or `products` gives; without "", all modules are summed up here.
    """
    order = list(combinations_with_replacement(names, 2))
    summed = {pair: {"": math.fsum(pairs[pair].values()), **pairs[pair]} for pair in order}
    triangles = {
        module: _triangle(summed[pair].get(module, 0.0) for pair in order) for module in ["", *sorted(modules)]
    }
    return Gram(total=triangles.pop(""), modules=triangles)


def base_norm(base: Base, weights: Iterable[str], parts: Sequence[Layer] = ()) -> float:
    """Frobenius norm of these tensors of a base together, by their names on disk, to ten digits.

    Args:
        parts: layers that are parts of what lies on disk, of which only their own weights count too.

    Raises:
        BaseModelError: a weight is stored in a dtype without a norm (reason "dtype"), together they have no norm that others
            could be measured by ("norm"), or as `Base.weight_squares`.
    """
    names, tensors = set(weights), base.tensors()
    for name in sorted(names.union(*(layer.tensors for layer in parts))):
        if tensors[name].dtype not in TORCH:
            raise BaseModelError(
                f"weight {name} of the base is stored as {tensors[name].dtype}, which has no norm", reason="dtype"
            )
    squares = base.weight_squares() if names else {}
    own = [layer_square(base.layers(), layer, tensors) for layer in parts]
    norm = _rounded(math.sqrt(math.fsum([*own, *(squares[name] for name in names)])))
    if not 0 < norm < math.inf:
        raise BaseModelError(
            f"the weights of base model {base.name} that the adapters change have the norm {norm:g}, and a bound on the norm "
            "of a soup is relative to it: use a base whose weights are finite and not all zero",
            reason="norm",
        )
    return norm


def _triangle(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(map(_rounded, values))


def _rounded(value: float) -> float:
    # Ten digits are the same on machines whose float64 products differ in the last bits.
    return float(f"{value:.10g}")
