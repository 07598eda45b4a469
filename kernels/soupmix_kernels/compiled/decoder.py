"""What a decoder computes, in tensors: checked here, since the library trusts every number."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor
from torch.nn.functional import pad

from soupmix_kernels.compiled.blocks import Blocks
from soupmix_kernels.pool import Pool

__all__ = ["ACTIVATIONS", "Decoder", "DecoderLayer", "Product", "lies"]

_COLUMNS, _TILE = 8, 32
ACTIVATIONS = ("silu", "gelu by tanh", "gelu")
"""What a gate may be passed through; their places are known to the library."""


@dataclass(frozen=True, eq=False)
class Product:
    """`y = W x + bias` and, where adapters change it, their soup.

    Attributes:
        weight: [out, in], fp32 or bf16, or in blocks, of a decoder in bf16. bias: [out], or None.
        pool: the factors of all adapters, or None. table: which of a step's coefficients are those of this pool.
    """

    weight: Tensor | Blocks
    bias: Tensor | None = None
    pool: Pool | None = None
    table: int = 0

    @cached_property
    def factors(self) -> tuple[Tensor, Tensor] | None:
        """A and B of the pool as the library reads them from one end to the other, copied once.

        A [slices R, in], and of every slice B [R / 8, width / 32, 8, 32], filled up with zeros.
        """
        return None if self.pool is None else (self.pool.A.contiguous(), _tiles(self.pool))


@dataclass(frozen=True, slots=True, eq=False)
class DecoderLayer:
    """`x += m after(o(attention(qkv(norm(x)))))`, then `x += m after(down(act(gate(norm(x))) up(norm(x))))`.

    Attributes:
        qkv, gate_up: one to three, one or two products whose outputs lie side by side: queries, keys and values; gate and up.
        before_attention, before_mlp: what RMS norms multiply by [features]. after_attention, after_mlp: the same of what is
            added, or None. query_norm, key_norm: the same over every head [size], or None.
        window: so many keys a query sees, itself among them; 0: all before it.
        angles: by which of the decoder's tables positions turn queries and keys; None: they do not.
    """

    qkv: tuple[Product, ...]
    o: Product
    gate_up: tuple[Product, ...]
    down: Product
    before_attention: Tensor
    before_mlp: Tensor
    after_attention: Tensor | None = None
    after_mlp: Tensor | None = None
    query_norm: Tensor | None = None
    key_norm: Tensor | None = None
    window: int = 0
    angles: int | None = 0


@dataclass(frozen=True, slots=True, eq=False)
class Decoder:
    """A decoder of the Llama kind. All weights have one dtype, fp32 or bf16, and lie on the CPU.

    Attributes:
        embedding: [vocabulary, features]. norm: before the output layer [features]. head: the output layer.
        heads, key_heads: of queries, and of keys and values; the first is a multiple of the second. size: of a head.
        cos, sin: tables of angles, of every position [tables, positions, rotated / 2]: the first `rotated` numbers of a head
            are turned, number i with number i + rotated / 2.
        activation: one of `ACTIVATIONS`. epsilon: of norms. scale: of scores.
        embedding_scale, residual_scale, logit_scale: factors of embeddings, of what a half layer adds (m above), and of logits.
        score_cap, logit_cap: scores and logits x are cap tanh(x / cap); 0: as they are.

    Raises:
        ValueError: shapes that do not fit each other, or tensors that do not lie as the library reads them. TypeError: dtypes.
    """

    embedding: Tensor
    layers: tuple[DecoderLayer, ...]
    norm: Tensor
    head: Product
    heads: int
    key_heads: int
    size: int
    cos: Tensor
    sin: Tensor
    activation: str
    epsilon: float
    scale: float
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    score_cap: float = 0.0
    logit_cap: float = 0.0

    def __post_init__(self) -> None:
        features, dtype = self.embedding.shape[1], self.embedding.dtype
        if dtype not in (torch.float32, torch.bfloat16):
            raise TypeError(f"a compiled step is of fp32 or bf16, not of {dtype}")
        if self.activation not in ACTIVATIONS or self.heads % self.key_heads or not self.layers:
            raise ValueError("a decoder has layers, a known activation, and a whole number of heads to a key head")
        queries, keys = self.heads * self.size, self.key_heads * self.size
        turned = self.cos.dim() == 3 and self.cos.shape == self.sin.shape and 2 * self.cos.shape[2] <= self.size
        _fits(turned, "cos and sin [tables, positions, rotated / 2]")
        _fits(all(each.angles in (None, *range(len(self.cos))) for each in self.layers), "tables of angles")
        _fits(lies(self.embedding, dtype), "the embedding")
        for layer in self.layers:
            _check_products(layer.qkv, features, queries + 2 * keys, dtype)
            _check_products((layer.o,), queries, features, dtype)
            _check_products(layer.gate_up, features, 2 * self.inner, dtype)
            _check_products((layer.down,), self.inner, features, dtype)
            norms = (layer.before_attention, layer.after_attention, layer.before_mlp, layer.after_mlp, self.norm)
            _fits(all(each is None or each.shape == (features,) for each in norms), "norms [features]")
            own = [each for each in (layer.query_norm, layer.key_norm) if each is not None]
            _fits(all(each.shape == (self.size,) for each in own), "norms of heads [size]")
        _check_products((self.head,), features, len(self.head.weight), dtype)

    @property
    def positions(self) -> int:
        """So many tokens of a text at most have angles."""
        return self.cos.shape[1]

    @property
    def inner(self) -> int:
        """Features between gate and down."""
        return self.layers[0].down.weight.shape[1]

    @property
    def products(self) -> tuple[Product, ...]:
        """All of them, the output layer last."""
        each = ((*one.qkv, one.o, *one.gate_up, one.down) for one in self.layers)
        return (*chain.from_iterable(each), self.head)


def _fits(right: bool, what: str) -> None:
    if not right:
        raise ValueError(f"a decoder's tensors do not fit each other, or lie in another way than rows: {what}")


def lies(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether a tensor lies as the library reads it: one row behind the other, in this dtype, on the CPU."""
    return tensor.dtype == dtype and tensor.device.type == "cpu" and tensor.is_contiguous()


def _held(weight: Tensor | Blocks, dtype: torch.dtype) -> bool:
    """Whether a weight lies as the library reads it: row by row, or in blocks."""
    if isinstance(weight, Blocks):
        return dtype == torch.bfloat16 and lies(weight.data, torch.uint8)
    return weight.dtype == dtype and weight.device.type == "cpu" and weight.stride(1) == 1


def _check_products(products: Sequence[Product], inputs: int, outputs: int, dtype: torch.dtype) -> None:
    _fits(1 <= len(products) <= 3 and sum(len(each.weight) for each in products) == outputs, "weights [out, in]")
    for each in products:
        out = len(each.weight)
        _fits(_held(each.weight, dtype) and each.weight.shape == (out, inputs), "weights [out, in]")
        _fits(each.bias is None or each.bias.shape == (out,), "a bias [out]")
        pool = each.pool
        if pool is not None:
            shapes = pool.A.shape[1] == inputs and pool.B.shape[0] == out
            _fits(shapes and lies(pool.A.t(), dtype) and lies(pool.B.t(), dtype), "factors, by columns")
            _fits(pool.B.shape[1] % _COLUMNS == 0, f"rank columns, {_COLUMNS} at a time")


def _tiles(pool: Pool) -> Tensor:
    parts = []
    for B in pool.B.split(list(pool.widths)):
        filled = pad(B, (0, 0, 0, -len(B) % _TILE))
        parts.append(filled.t().reshape(-1, _COLUMNS, len(filled) // _TILE, _TILE).transpose(1, 2).flatten())
    return torch.cat(parts)
