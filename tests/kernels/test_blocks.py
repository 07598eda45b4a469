"""Weights in 8 and 4 bits: what their blocks hold, and that a step over them is that over the bf16 weights they stand for."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from soupmix_kernels.compiled import BITS, KINDS, Blocks, Decoder, DecoderLayer, Product, blocks, instructions
from tests.support.decoders import FEATURES, INNER, PEOPLE, TEXTS, Draw, Running, library_for

COMPILES = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler here")
MOST = {8: 127, 4: 8}


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", [(16, 32), (40, 70), (1, 1), (33, 96)])
def test_a_number_is_off_by_half_a_step_at_most(bits: int, shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(bits))
    weight[0, 0] = 3.0
    found = Blocks.of(weight, bits).decoded()
    assert found.shape == shape
    assert found.dtype == torch.bfloat16
    for o in range(shape[0]):
        for first in range(0, shape[1], 32):
            mine, other = weight[o, first : first + 32].double(), found[o, first : first + 32].double()
            step = float(mine.abs().max()) / MOST[bits]
            room = step / 2 * (2.01 if bits == 4 else 1.01) + float(other.abs().max()) * 2**-8  # 7 of 8 above, and bf16
            assert bool(((mine - other).abs() <= room).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nearest", [True, False])
def test_what_comes_from_a_gguf_file_is_held_as_it_is(kind: str, nearest: bool) -> None:
    """Whether its scales are those that llama.cpp chooses, or any others."""
    gguf = pytest.importorskip("gguf")
    draw, which = torch.Generator().manual_seed(1), gguf.GGMLQuantizationType[kind]
    if nearest:
        weight = torch.randn(48, 96, generator=draw) * 0.05
        weight[3, 32:64] = 0.0
        plain = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), which), which))
        assert KINDS[kind].shifted or torch.equal(Blocks.of(plain, KINDS[kind].bits).decoded(), plain.bfloat16())
    else:
        _, low, high, shifted = KINDS[kind]
        scale, shift = (torch.rand(2, 48, 3, 1, generator=draw) - 0.5 * (1 - shifted)).half().float()
        numbers = torch.randint(low, high, (48, 3, 32), generator=draw)
        numbers[..., 5] = 0
        plain = (scale * numbers + (shift if shifted else 0.0)).view(48, 96)
    found = Blocks.exactly(plain)
    assert found is not None
    assert found.kind == kind
    assert torch.equal(found.decoded(torch.float32), plain)
    assert torch.equal(Blocks.of_data(found.data, (48, 96)).decoded(torch.float32), plain)


@pytest.mark.parametrize("changed", [1.0001, math.nan, math.inf])
def test_what_no_blocks_stand_for_has_none(changed: float) -> None:
    weight = Blocks.of(torch.randn(48, 96, generator=torch.Generator().manual_seed(2)), 8).decoded(torch.float32)
    assert Blocks.exactly(weight) is not None
    weight[47, 95] = weight[47, 95] * changed + 1e-6
    assert Blocks.exactly(weight) is None
    assert Blocks.exactly(torch.randn(40, 33)) is None


def test_a_weight_that_begins_with_zeros_is_told_apart_by_some_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number that a scale may stand for is tried, which takes long of all rows of a large weight."""
    weight, looked, exact = (
        torch.randn(2000, 64, generator=torch.Generator().manual_seed(4)),
        list[int](),
        blocks._exact,
    )
    weight[:400] = 0.0
    monkeypatch.setattr(blocks, "_exact", lambda part, kind: looked.append(len(part)) or exact(part, kind))
    assert Blocks.exactly(weight) is None
    assert len(looked) == len(KINDS)
    assert max(looked) < 20


@pytest.mark.parametrize("outs", [(16, 32), (7, 20), (48, 1)])
@pytest.mark.parametrize("bits", [(8, 8), (4, 4), (8, 4)])
def test_blocks_one_below_the_other_stand_for_the_same(outs: tuple[int, int], bits: tuple[int, int]) -> None:
    parts = [Blocks.of(torch.randn(out, 70), each) for out, each in zip(outs, bits, strict=True)]
    made = Blocks.stack(parts)
    assert made.bits == max(bits)
    assert made.shape == (sum(outs), 70)
    assert torch.equal(made.decoded(torch.float32), torch.cat([each.decoded(torch.float32) for each in parts]))
    other = Blocks.of_data(torch.ones(1, 3, 320, dtype=torch.uint8), (16, 70))
    assert other.kind == "Q4_1"
    with pytest.raises(ValueError, match="not of one kind"):
        Blocks.stack([*parts, other])
    with pytest.raises(ValueError, match="none of a weight"):
        Blocks.of_data(made.data, (sum(outs) + 16, 70))


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e38])
def test_what_is_no_number_is_refused(bad: float) -> None:
    weight = torch.zeros(16, 32)
    weight[1, 1] = bad
    with pytest.raises(ValueError, match="not finite, or too large"):
        Blocks.of(weight, 8)
    with pytest.raises(ValueError, match="8 or 4 bits, not in 3"):
        Blocks.of(weight, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("step")


def in_blocks(decoder: Decoder, kind: str, made: Callable[[Blocks], Any]) -> Decoder:
    def blocks(weight: torch.Tensor) -> Blocks:
        found = Blocks.of(weight, KINDS[kind].bits)
        head, numbers = found.data[..., :32].clone(), found.data[..., 32:]
        scale = head.view(torch.float16)
        mantissa, exponent = torch.frexp(scale[..., ::2].float())
        scale[..., ::2] = (
            mantissa.sign() * 0.75 * 2.0**exponent
        ).half()  # thrice a number lies often between two of bf16
        if not KINDS[kind].shifted:
            return Blocks.of_data(torch.cat([head, numbers], -1), found.shape)
        shift = torch.randn(*scale.shape, generator=torch.Generator().manual_seed(3)) * 0.02  # with shifts of their own
        return Blocks.of_data(torch.cat([head, shift.half().view(torch.uint8), numbers], -1), found.shape)

    def product(each: Product) -> Product:
        assert isinstance(each.weight, torch.Tensor)
        return Product(made(blocks(each.weight)), each.bias, each.pool, each.table)

    def layer(each: DecoderLayer) -> DecoderLayer:
        qkv, gate_up = (tuple(map(product, many)) for many in (each.qkv, each.gate_up))
        return replace(each, qkv=qkv, o=product(each.o), gate_up=gate_up, down=product(each.down))

    return replace(decoder, layers=tuple(map(layer, decoder.layers)), head=product(decoder.head))


@COMPILES
@pytest.mark.parametrize("name", instructions())
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(FEATURES, INNER), (64, 96), (48, 176)], ids=str)
def test_a_step_is_that_of_the_weights_they_stand_for(
    name: str, kind: str, sizes: tuple[int, int], folder: Path
) -> None:
    """Bit for bit, for many rows, few and one; weights whose rows lie apart are read as well."""
    plain = Draw(torch.bfloat16, features=sizes[0], inner=sizes[1]).decoder()
    lib = library_for(name, folder)
    wide = in_blocks(plain, kind, lambda each: torch.nn.functional.pad(each.decoded(), (0, 12))[:, : each.shape[1]])
    held = in_blocks(plain, kind, lambda each: each)
    fed = [(slot, 0, text) for slot, text in enumerate(TEXTS)]
    for what in (fed, *([(0, 0, TEXTS[0][:rows])] for rows in range(1, 6))):
        found, expected = (Running(each, lib).feed(what, PEOPLE[: len(what)]) for each in (held, wide))
        assert torch.equal(found, expected)
        assert bool(found.isfinite().all())


@COMPILES
def test_blocks_need_a_decoder_in_bf16() -> None:
    with pytest.raises(ValueError, match="weights"):
        in_blocks(Draw(torch.float32).decoder(), "Q8_0", lambda each: each)
