"""The step over a decoder: its tensors and rows as the library reads them."""

import ctypes
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from soupmix_kernels.compiled.blocks import KINDS, Blocks
from soupmix_kernels.compiled.decoder import ACTIVATIONS, Decoder, DecoderLayer, Product, lies
from soupmix_kernels.compiled.pages import LargePages
from soupmix_kernels.soup import RowCoefficients

__all__ = ["CompiledStep"]

_SIZES = ["layers", "features", "heads", "key_heads", "size", "rotated", "inner", "length", "is_bf16", "act"]
_SCALES = ["epsilon", "scale", "embedding_scale", "residual_scale", "logit_scale", "score_cap", "logit_cap"]
_NORMS = ["before_attention", "after_attention", "before_mlp", "after_mlp", "query_norm", "key_norm"]


class _Linear(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("W", "bias", "A", "B")),
        *((name, ctypes.c_int32) for name in ("inputs", "out", "R", "slices", "table", "rank")),
        ("widths", ctypes.c_int32 * 3),
        *((name, ctypes.c_int32) for name in ("apart", "kind", "unused")),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        ("qkv", _Linear * 3),
        ("o", _Linear),
        ("gate_up", _Linear * 2),
        ("down", _Linear),
        *((name, ctypes.c_void_p) for name in (*_NORMS, "cos", "sin", "keys", "values")),
        ("window", ctypes.c_int32),
        ("unused", ctypes.c_int32),
    )


_ADDRESSES = ["tokens", "positions", "slots", "kept", "live", "kept_live", "c", "kept_c", "logits", "scratch"]


class _Decoder(ctypes.Structure):
    _fields_ = (
        ("layer", ctypes.POINTER(_Layer)),
        ("embedding", ctypes.c_void_p),
        ("norm", ctypes.c_void_p),
        ("head", _Linear),
        *((name, ctypes.c_int32) for name in _SIZES),
        *((name, ctypes.c_float) for name in _SCALES),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("rows", "keeps", "threads", "factor")),
        *((name, ctypes.c_void_p) for name in _ADDRESSES),
    )


class _Tables(NamedTuple):
    """Which rows have a soup [rows] uint8, the addresses of the tables of coefficients, and what lies there."""

    soups: tuple[RowCoefficients, ...]
    rows: int
    live: Tensor
    tables: Any
    beside: list[Tensor]


@dataclass(slots=True, eq=False)
class CompiledStep:
    """Computes steps of a decoder over keys and values in slots. One call at a time.

    Args:
        decoder: the model. library: see `soupmix_kernels.compiled.library`.
        keys, values: of every layer [slots, key heads, length, size], of the decoder's dtype; written in place.
    """

    decoder: Decoder
    library: ctypes.CDLL
    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    _made: _Decoder = field(init=False)
    _widths: dict[int, int] = field(init=False)
    _ranks: bool = field(init=False)
    _held: list[Any] = field(init=False, default_factory=list)
    _scratch: Tensor = field(init=False, default_factory=lambda: torch.empty(0))
    _known: list[_Tables] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        d, caches = self.decoder, (*self.keys, *self.values)
        shape = (*caches[0].shape[:1], d.key_heads, *caches[0].shape[2:3], d.size)
        lie = all(each.shape == shape and lies(each, d.embedding.dtype) for each in caches)
        if not (lie and len(self.keys) == len(self.values) == len(d.layers)):
            raise ValueError("a compiled step needs keys and values [slots, key heads, length, size] of every layer")
        _lay_out(d.products)
        angles = [[self._numbers(each[: shape[2]]) for each in pair] for pair in zip(d.cos, d.sin, strict=True)]
        layers = (_Layer * len(d.layers))()
        for number, layer in enumerate(d.layers):
            self._fill(layers[number], layer)
            layers[number].cos, layers[number].sin = (None, None) if layer.angles is None else angles[layer.angles]
            layers[number].keys, layers[number].values = self.keys[number].data_ptr(), self.values[number].data_ptr()
        self._held.append(layers)
        sizes = (
            len(d.layers), d.embedding.shape[1], d.heads, d.key_heads, d.size, 2 * d.cos.shape[2], d.inner, shape[2],
            int(d.embedding.dtype == torch.bfloat16), ACTIVATIONS.index(d.activation),
        )  # fmt: skip
        scales = (getattr(d, name) for name in _SCALES)
        self._made = _Decoder(
            ctypes.cast(layers, ctypes.POINTER(_Layer)),
            d.embedding.data_ptr(),
            self._numbers(d.norm),
            self._linear(d.head),
            *sizes,
            *scales,
        )
        pools = {each.table: each.pool for each in d.products if each.pool is not None}
        self._widths = {table: len(pool.A) for table, pool in pools.items()}
        self._ranks = all(each.pool is None or each.pool.rank > 0 for each in d.products)

    def _fill(self, made: _Layer, layer: DecoderLayer) -> None:
        for number, each in enumerate(layer.qkv):
            made.qkv[number] = self._linear(each)
        for number, each in enumerate(layer.gate_up):
            made.gate_up[number] = self._linear(each)
        made.o, made.down, made.window = self._linear(layer.o), self._linear(layer.down), layer.window
        for name in _NORMS:
            norm = getattr(layer, name)
            setattr(made, name, None if norm is None else self._numbers(norm))

    def _numbers(self, tensor: Tensor) -> int:
        """The address of a copy in fp32 that lives as long as this."""
        self._held.append(tensor.detach().to(torch.float32, copy=True).contiguous())
        return int(self._held[-1].data_ptr())

    def _linear(self, product: Product) -> _Linear:
        out, inputs = product.weight.shape
        made = _Linear(inputs=inputs, out=out, table=product.table)
        if isinstance(product.weight, Blocks):
            made.W, made.kind = product.weight.data.data_ptr(), 1 + [*KINDS].index(product.weight.kind)
        else:
            made.W, made.apart = product.weight.data_ptr(), product.weight.stride(0)
        made.bias = None if product.bias is None else self._numbers(product.bias)
        pool = product.pool
        if pool is not None:
            made.A, made.B = (each.data_ptr() for each in product.factors or ())
            made.R, made.slices = pool.B.shape[1], len(pool.widths)
            made.widths[: made.slices] = pool.widths
            made.rank = pool.rank
        return made

    def __call__(
        self,
        tokens: Tensor,
        positions: Tensor,
        slots: Tensor,
        kept: Tensor,
        soups: Sequence[RowCoefficients],
        kept_soups: Sequence[RowCoefficients],
        *,
        factor: bool = False,
    ) -> Tensor:
        """Compute the new tokens of some slots, and write their keys and values.

        Args:
            tokens, positions, slots: of every row [rows] int64; the positions of a slot ascend, and all before them are computed.
            kept: rows whose logits are computed [kept] int64.
            soups: coefficients of all rows, a table for every number that products name; empty: nobody has a soup.
            kept_soups: the same of the kept rows, for the output layer.
            factor: whether coefficients are those of method `factor`.

        Returns:
            Logits [kept, vocabulary] fp32. A row's bits depend on its own tokens and soup only.

        Raises:
            ValueError: a token, position, slot or row that is not there, or tables of other shapes.
        """
        vocabulary, length = len(self.decoder.embedding), self.keys[0].shape[2]
        most = (vocabulary, min(length, self.decoder.positions), len(self.keys[0]), len(tokens))
        given = [_numbers(each, end) for each, end in zip((tokens, positions, slots, kept), most, strict=True)]
        if not (len(given[0]) == len(given[1]) == len(given[2])):
            raise ValueError("a step needs a position and a slot for every token")
        if factor and not self._ranks:
            raise ValueError("method factor needs one rank for all adapters of a layer")
        served, kept_served = self._tables(soups, len(tokens)), self._tables(kept_soups, len(kept))
        logits = torch.empty(len(kept), len(self.decoder.head.weight))
        threads = torch.get_num_threads()
        size = self.library.soupmix_scratch(ctypes.byref(self._made), max(len(tokens), len(kept)), threads)
        if len(self._scratch) < size:
            self._scratch = torch.empty(size)
        step = _Step(
            len(tokens), len(kept), threads, int(factor), *map(ctypes.addressof, given),
            served.live.data_ptr(), kept_served.live.data_ptr(), ctypes.addressof(served.tables),
            ctypes.addressof(kept_served.tables), logits.data_ptr(), self._scratch.data_ptr(),
        )  # fmt: skip
        self.library.soupmix_step(ctypes.byref(self._made), ctypes.byref(step))
        return logits

    def _tables(self, soups: Sequence[RowCoefficients], rows: int) -> _Tables:
        """The tables of these soups, which are the same objects step after step, as long as nobody comes or goes."""
        for made in self._known:
            if made.rows == rows and len(made.soups) == len(soups) and all(map(operator.is_, made.soups, soups)):
                return made
        made = _Tables(tuple(soups), rows, *self._made_tables(soups, rows))
        self._known = [made, *self._known[:1]]  # of the rows and of those whose logits are computed
        return made

    def _made_tables(self, soups: Sequence[RowCoefficients], rows: int) -> tuple[Tensor, Any, list[Tensor]]:
        beside = [each.gathered.c for each in soups if each.gathered is not None]
        if not soups or len(beside) < len(soups):
            return torch.zeros(rows, dtype=torch.uint8), (ctypes.c_void_p * 1)(), []
        live = ((soups[0].rows >= 0) & (soups[0].rows < len(soups[0].values))).to(torch.uint8)
        shapes = {table: (rows, width) for table, width in self._widths.items()}
        if any(table >= len(beside) or beside[table].shape != shape for table, shape in shapes.items()):
            raise ValueError("a step needs coefficients of every row over the columns of every pool")
        beside = [each.contiguous() for each in beside]
        return live, (ctypes.c_void_p * len(beside))(*(each.data_ptr() for each in beside)), beside


def _lay_out(products: Sequence[Product]) -> None:
    """Copy the factors of products, at their first use, into large pages, in the order in which they are read."""
    new = [each for each in products if "factors" not in vars(each)]
    pages = LargePages(factor for each in new for factor in each.factors or ())
    for each in new:
        vars(each)["factors"] = each.factors and tuple(map(pages.copy, each.factors))


def _numbers(tensor: Tensor, end: int) -> Any:
    """Numbers from 0 to below `end`, as int32 [n] of C."""
    values = tensor.tolist() if tensor.dim() == 1 else []
    if tensor.dim() != 1 or tensor.is_floating_point() or (values and not (min(values) >= 0 and max(values) < end)):
        raise ValueError(f"a step takes numbers from 0 to {end - 1} here; got {list(tensor.shape)} others")
    return (ctypes.c_int32 * len(values))(*values)
