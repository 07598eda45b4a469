"""How much whole weights, rows, biases and lengths of an adapter change: tuned minus base, as factors.

A changed weight is B A with ones: of few changed rows A or B says which they are, of more it is the identity beside the whole
difference. So everything that measures or adds factors measures and adds these, and the sum is linear in the weight of the
adapter: at 1 it is what PEFT merges. DoRA's m (W + s B A) / |W + s B A|, with lengths m and norms of outputs, is
W + diag(g) W + s diag(1 + g) B A with g = m / |W + s B A| - 1 (arXiv 2402.09353).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from soupmix.base import Base, Layer
from soupmix.errors import AdapterError
from soupmix.store.adapter import Factors, LayerForm
from soupmix.store.unchanged import row_blocks
from soupmix.store.whole import Extra

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["changed", "matrix_of"]


def changed(
    factors: Mapping[str, Factors], extras: Sequence[Extra], tensors: Mapping[str, "Tensor"], base: Base, where: str
) -> Mapping[str, Factors]:
    """All that an adapter changes, as factors by layer: those that it has, and what its other tensors come to.

    Args:
        factors: of its layers. extras: its other tensors, checked. tensors: their values by name, finite.

    Returns:
        Path -> factors; what is equal to the base is left out.

    Raises:
        AdapterError: a difference is no fp32 number, or DoRA divides by a length of zero ("not-finite"); tensors of one weight
            differ ("embedding").
        BaseModelError: a file was cut short ("truncated").
    """
    found, layers = dict(factors), base.layers()
    vectors: dict[str, Tensor] = {}
    whole: dict[str, str] = {}
    for extra in extras:
        layer, tensor = layers[extra.layer.tied or extra.layer.path], tensors[extra.key]
        if extra.kind == "magnitude":
            found[layer.path] = _with_lengths(factors[layer.path], tensor, base, layer)
        elif (same := whole.setdefault(layer.path, extra.key)) != extra.key and extra.kind == "whole":
            _check_same(tensor, tensors[same], extra.key, same, where)
        elif layer.kind == "vector":
            scaling = factors[extra.module].scaling if extra.kind == "bias" else None
            delta = _of_vector(tensor, base, layer) if scaling is None else tensor.double() * scaling
            vectors[layer.path] = vectors[layer.path] + delta if layer.path in vectors else delta
        else:
            _check_copies(base, layer, where)
            found |= _of_matrix(extra, tensor, base, layer)
    found |= {path: _vector(delta) for path, delta in vectors.items() if delta.any()}
    for path, each in found.items():
        _check_finite(each, path, where)
    return found


def matrix_of(base: Base, layer: Layer) -> "Tensor":
    """The weight of a layer that lies whole, as the map that it is [outputs, inputs], in float64."""
    return _stored(base, layer).T if layer.transposed else _stored(base, layer)


def _stored(base: Base, layer: Layer) -> "Tensor":
    import torch

    info = base.tensors()[layer.tensors[0]]
    return torch.cat([block.double() for _, block in row_blocks(info, info.shape[0])])


def _with_lengths(factors: Factors, lengths: "Tensor", base: Base, layer: Layer) -> Factors:
    import torch

    B = factors.B.double()
    tuned = torch.addmm(matrix_of(base, layer), B, factors.A.double(), alpha=factors.scaling)
    ratio = lengths.double() / torch.linalg.vector_norm(tuned, dim=1)
    return replace(factors, B=(ratio[:, None] * B).float(), gain=(ratio - 1).float())


def _of_vector(tensor: "Tensor", base: Base, layer: Layer) -> "Tensor":
    return tensor.double() - matrix_of(base, layer)[:, 0]


def _vector(delta: "Tensor") -> Factors:
    import torch

    return Factors(torch.ones(1, 1), delta[:, None].float(), 1.0, kind="vector")


def _of_matrix(extra: Extra, tensor: "Tensor", base: Base, layer: Layer) -> Mapping[str, Factors]:
    """Path -> the change of a matrix; nothing if there is none."""
    import torch

    info = base.tensors()[layer.tensors[0]]
    numbers, parts = [], []
    wanted = torch.tensor(extra.rows, dtype=torch.long)
    for at, block in row_blocks(info, info.shape[0]):
        if extra.kind == "tokens":
            here = ((wanted >= at) & (wanted < at + len(block))).nonzero().flatten()
            rows, tuned = wanted[here], tensor[here]
        else:
            rows, tuned = torch.arange(at, at + len(block)), tensor[at : at + len(block)]
        delta = (tuned.double() - block[rows - at].double()).float()
        kept = delta.any(1)
        numbers.append(rows[kept])
        parts.append(delta[kept])
    rows, delta = torch.cat(numbers), torch.cat(parts)
    return {layer.path: _of_rows(rows, delta, layer)} if len(rows) else {}


def _of_rows(rows: "Tensor", delta: "Tensor", layer: Layer) -> Factors:
    """The change of some rows of a parameter, of the lower of two ranks: how many rows there are, and how long they are."""
    import torch

    count, columns = layer.stored_shape[0], delta.shape[1]
    if len(rows) <= columns:
        which = torch.zeros(len(rows), count)
        which[torch.arange(len(rows)), rows] = 1
    else:
        which, delta = torch.zeros(count, columns).index_copy_(0, rows, delta).T, torch.eye(columns)
    A, B = (which, delta.T) if layer.transposed else (delta, which.T)
    kind: LayerForm = "embedding" if layer.kind == "embedding" else "linear"
    return Factors(A.contiguous(), B.contiguous(), 1.0, kind=kind)


def _check_same(one: "Tensor", other: "Tensor", key: str, same: str, where: str) -> None:
    if not one.double().equal(other.double()):
        raise AdapterError(
            f"{where} holds other values for {key[:120]!a} than for {same[:120]!a}, which are one weight of the base "
            "(tie_word_embeddings): train both with ensure_weight_tying, or on a base whose head has a weight of its own",
            reason="embedding",
        )


def _check_copies(base: Base, layer: Layer, where: str) -> None:
    """Refuse a tied weight of which the base has two: transformers ties what is equal, whatever config.json says."""
    for path, each in base.layers().items():
        copied = each.tied == layer.path and each.tensors != layer.tensors
        if copied and (each.lies != "whole" or not _stored(base, each).equal(_stored(base, layer))):
            raise AdapterError(
                f"{where} changes {layer.path}, and the base has {path} for the same weight (tie_word_embeddings) with other "
                "values in it: it is not known which of them was trained; repair the base",
                reason="embedding",
            )


def _check_finite(factors: Factors, path: str, where: str) -> None:
    parts = [factors.A, factors.B, *([] if factors.gain is None else [factors.gain])]
    if not all(bool(part.isfinite().all()) for part in parts):
        raise AdapterError(
            f"{where} changes {path} by numbers too large to add up, or by lengths of outputs that are zero in the base",
            reason="not-finite",
        )
