"""A small decoder with everything that a compiled step can have, rows that run in it, and the libraries they run by."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from soupmix.base import cache_root
from soupmix_kernels import Part, Pool, RowCoefficients
from soupmix_kernels.compiled import CompiledStep, Decoder, DecoderLayer, Product, build, instructions, library

FEATURES, HEADS, KEYS, SIZE, INNER, VOCABULARY, LENGTH, ADAPTERS = 52, 4, 2, 20, 70, 40, 24, 3
RANKS = (4, 7, 2)
BEST = instructions()[0]


class Draw:
    """Tensors of a decoder with everything that one can have."""

    def __init__(
        self,
        dtype: torch.dtype,
        *,
        one_rank: bool = False,
        seed: int = 0,
        features: int = FEATURES,
        inner: int = INNER,
    ) -> None:
        self.random, self.dtype = torch.Generator().manual_seed(seed), dtype
        self.features, self.inner = features, inner
        self.ranks = (4, 4, 4) if one_rank else RANKS

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=self.random) * scale

    def product(self, inputs: int, *widths: int, table: int, bias: bool = False, pool: bool = True) -> Product:
        out = sum(widths)
        weight = self.normal(out, inputs, scale=inputs**-0.5).to(self.dtype)
        slices = [[self.part(k, inputs, width) for k in range(ADAPTERS)] for width in widths]
        held = Pool.stack(slices, widths, inputs=inputs, dtype=self.dtype, device=weight.device) if pool else None
        return Product(weight, self.normal(out) if bias else None, held, table)

    def part(self, adapter: int, inputs: int, out: int) -> Part:
        rank = self.ranks[adapter]
        A, B = self.normal(rank, inputs, scale=inputs**-0.5), self.normal(out, rank, scale=0.4)
        return Part(adapter, A, B, 0.5 + adapter)

    def norm(self, size: int) -> Tensor:
        return 1 + self.normal(size, scale=0.2)

    def layer(self, number: int) -> DecoderLayer:
        q, kv = HEADS * SIZE, KEYS * SIZE
        apart = (self.product(self.features, each, table=1, bias=True) for each in (q, kv, kv))
        return DecoderLayer(
            tuple(apart) if number else (self.product(self.features, q, kv, kv, table=0),),
            self.product(q, self.features, table=1, bias=number == 1),
            (self.product(self.features, self.inner, self.inner, table=2),),
            self.product(self.inner, self.features, table=1),
            self.norm(self.features),
            self.norm(self.features),
            query_norm=self.norm(SIZE) if number else None,
            key_norm=self.norm(SIZE) if number else None,
            after_attention=self.norm(self.features) if number == 1 else None,
            after_mlp=self.norm(self.features) if number == 1 else None,
            window=5 if number else 0,
            angles=(0, 1, None)[number],
        )

    def decoder(self, activation: str = "silu") -> Decoder:
        bases = torch.tensor([100.0, 7.0])[:, None, None]
        angles = torch.arange(LENGTH)[:, None] * bases ** -(torch.arange(SIZE // 2) / (SIZE // 2))
        return Decoder(
            embedding=self.normal(VOCABULARY, self.features).to(self.dtype),
            layers=tuple(self.layer(number) for number in range(3)),
            norm=self.norm(self.features),
            head=self.product(self.features, VOCABULARY, table=1, pool=False),
            heads=HEADS, key_heads=KEYS, size=SIZE, cos=angles.cos(), sin=angles.sin(), activation=activation,
            epsilon=1e-5, scale=0.2, embedding_scale=1.5, residual_scale=0.7, logit_scale=0.25,
            score_cap=2.0, logit_cap=1.5,
        )  # fmt: skip


class Running:
    """Rows in slots, each with weights of its own."""

    def __init__(self, decoder: Decoder, lib: ctypes.CDLL, slots: int = 4, *, factor: bool = False) -> None:
        shape = slots, KEYS, LENGTH, SIZE
        caches = [[torch.zeros(shape, dtype=decoder.embedding.dtype) for _ in decoder.layers] for _ in range(2)]
        self.step, self.decoder, self.factor = CompiledStep(decoder, lib, *caches), decoder, factor

    def soups(self, weights: Tensor, rows: Tensor) -> list[RowCoefficients]:
        pools = {each.table: each.pool for each in self.decoder.products if each.pool is not None}
        nobody = torch.where((weights != 0).any(1), torch.arange(len(weights)), -1)
        most = torch.ones(ADAPTERS) * 1e30
        method: Literal["delta", "factor"] = "factor" if self.factor else "delta"
        made = [pools[n].coefficients(weights, torch.zeros(ADAPTERS), most, method) for n in sorted(pools)]
        return [RowCoefficients(each, nobody[rows].int()) for each in made]

    def feed(self, fed: Sequence[tuple[int, int, Sequence[int]]], weights: Tensor, *, bare: bool = False) -> Tensor:
        """(slot, position of the first token, tokens), a person for each -> logits behind every token."""
        tokens = torch.tensor([token for _, _, each in fed for token in each])
        slots = torch.tensor([slot for slot, _, each in fed for _ in each])
        positions = torch.tensor([first + n for _, first, each in fed for n in range(len(each))])
        rows = torch.tensor([person for person, (_, _, each) in enumerate(fed) for _ in each])
        soups = [] if bare else self.soups(weights, rows)
        return self.step(tokens, positions, slots, torch.arange(len(tokens)), soups, soups, factor=self.factor)


TEXTS = ([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8], [27, 18, 28], [14, 14, 2, 13, 5, 6, 7], [1])
PEOPLE = torch.tensor([[0.5, 0.0, 0.25], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.3, 0.3, 0.3]])


def library_for(name: str, folder: Path) -> ctypes.CDLL:
    """The library that is served with, or one of a lesser processor, compiled in less time."""
    if name == BEST:
        return library(cache_root() / "step")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_FLAGS", (*build._FLAGS, "-O1"))
        return library(folder, name)
