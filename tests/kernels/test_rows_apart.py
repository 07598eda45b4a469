"""A row depends on itself alone in half precision too, on processors whose products read beyond rows and on this one."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import soupmix_kernels as kernels
from soupmix_kernels import Part, Pool, cpu, reference, rows_apart
from tests.support.reads_beyond import ReadsBeyond, TileUnits

CPU = torch.device("cpu")
HALF = (torch.bfloat16, torch.float16)
ROWS, INPUTS, WIDTHS, RANKS = 33, (7, 31, 33, 64, 65, 72, 80, 100), (40, 7), (16,) * 5  # 80 columns


def poisoned(inputs: int, dtype: torch.dtype) -> Tensor:
    """Rows of which every other is NaN, in a buffer of NaN."""
    x = torch.full((ROWS + 1, inputs), torch.nan, dtype=dtype)[:ROWS]
    x[::2] = torch.randn(ROWS // 2 + 1, inputs, generator=torch.Generator().manual_seed(0)).to(dtype)
    return x


def pool(inputs: int, dtype: torch.dtype) -> Pool:
    draw = torch.Generator().manual_seed(1)
    parts = [
        [
            Part(k, torch.randn(r, inputs, generator=draw), torch.randn(w, r, generator=draw), 0.5)
            for k, r in enumerate(RANKS)
        ]
        for w in WIDTHS
    ]
    return Pool.stack(parts, WIDTHS, inputs=inputs, dtype=dtype, device=CPU)


def projected(x: Tensor) -> Tensor:
    weight = torch.randn(40, x.shape[1], generator=torch.Generator().manual_seed(2)).to(x.dtype)
    return kernels.wide_linear(x, kernels.wide_weight(weight))


def packed(x: Tensor) -> Tensor:
    weight = torch.randn(40, x.shape[1], generator=torch.Generator().manual_seed(2)).to(x.dtype)
    made = kernels.pack(weight)
    return projected(x) if made is None else kernels.packed_linear(x, made)


def pooled(x: Tensor) -> Tensor:
    made = pool(x.shape[1], x.dtype)
    c = made.coefficients(torch.rand(len(x), len(RANKS)), torch.zeros(len(RANKS)), torch.ones(len(RANKS)))
    y = torch.zeros(len(x), sum(WIDTHS), dtype=x.dtype)
    return kernels.soup_linear_(y, x, made, kernels.RowCoefficients(c, torch.arange(len(x), dtype=torch.int32)))


def crowded(x: Tensor) -> Tensor:
    """As many rows as go over tile units, where there are any."""
    return pooled(x.repeat(3, 1))[:ROWS]


def op(x: Tensor, rank: int = 0) -> Tensor:
    made = pool(x.shape[1], x.dtype)
    R = sum(RANKS)
    A = made.A.unflatten(0, (len(WIDTHS), -1))[:, :R].flatten(0, 1)  # columns as somebody else would lay them out
    c = torch.rand(ROWS, len(WIDTHS) * R)
    y, rows = torch.zeros(ROWS, sum(WIDTHS), dtype=x.dtype), torch.arange(ROWS, dtype=torch.int32)
    cpu.soup_into(y, x, A, made.B[:, :R], c, rows, WIDTHS, rank)  # the op itself would hide its products from a mode
    return y


def factor(x: Tensor) -> Tensor:
    return op(x, 16)


def merged(x: Tensor) -> Tensor:
    """B is what has rows in a merge: [out, columns]; the weights of a poisoned row of B are its own."""
    A, W = torch.randn(x.shape[1], 24).to(x.dtype), torch.randn(ROWS, 24).to(x.dtype)
    out = torch.empty(1, ROWS, 24, dtype=x.dtype)
    cpu.merge_into(out, W, A, x, torch.ones(1, x.shape[1]))
    return out[0]


PATHS = (projected, packed, pooled, crowded, op, factor, merged)


@pytest.fixture
def half_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads beyond rows in half precision multiplies in it, which this processor may not do."""
    monkeypatch.setattr(kernels.packed, "has_products", lambda *of: True)


@pytest.mark.usefixtures("half_products")
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("processor", [ReadsBeyond, TileUnits])
@pytest.mark.parametrize("path", PATHS)
def test_rows_stay_apart_where_products_read_beyond_them(
    path: Callable[[Tensor], Tensor], processor: type[ReadsBeyond], dtype: torch.dtype
) -> None:
    for inputs in INPUTS:
        with processor():
            y = path(poisoned(inputs, dtype))
        assert y[::2].isfinite().all(), f"{inputs}"
        assert y[1::2].isnan().any(1).all()


@pytest.mark.usefixtures("half_products")
@pytest.mark.parametrize("path", [projected, op, factor, merged])
def test_without_the_guard_they_would_not(path: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (rows_apart, cpu):
        monkeypatch.setattr(module, "inner_step", lambda *_: 1)
    with ReadsBeyond():
        assert path(poisoned(80, torch.bfloat16))[::2].isnan().any()


@pytest.mark.parametrize("path", PATHS)
def test_on_this_processor_too(path: Callable[[Tensor], Tensor]) -> None:
    for dtype in (*HALF, torch.float32):
        for inputs in INPUTS:
            assert path(poisoned(inputs, dtype))[::2].isfinite().all(), f"{dtype} {inputs}"


@pytest.mark.usefixtures("half_products")
@pytest.mark.parametrize("dtype", HALF)
def test_what_is_filled_up_is_still_the_same_product(dtype: torch.dtype) -> None:
    for inputs in INPUTS:
        x, weight = torch.randn(ROWS, inputs).to(dtype), torch.randn(40, inputs).to(dtype)
        exact = x.double() @ weight.double().t()
        with ReadsBeyond():
            made = pool(inputs, dtype)
            wide = kernels.wide_linear(x, kernels.wide_weight(weight))
            c = made.coefficients(torch.rand(ROWS, len(RANKS)), torch.zeros(len(RANKS)), torch.ones(len(RANKS)))
            rows, y = torch.arange(ROWS, dtype=torch.int32), torch.randn(ROWS, sum(WIDTHS)).to(dtype)
            given = (x, made.A, made.B, c.values, rows, made.widths)
            soup = y.clone()
            cpu.soup_into(soup, *given, 0)
        eps = torch.finfo(dtype).eps
        assert (wide.double() - exact).abs().max() <= 2 * eps * exact.abs().max()
        truth = reference.soup_linear(y.double(), *given)
        assert (soup.double() - truth).norm() <= 4 * eps * truth.norm()


@pytest.mark.parametrize("rank", [3, 5, 16, 33])
def test_columns_after_the_last_whole_block_stay_out_of_a_soup_of_factors(rank: int) -> None:
    draw = torch.Generator().manual_seed(rank)
    columns, inputs = 2 * rank + rank // 2 + 1, 70
    x, y = torch.randn(ROWS, inputs, generator=draw), torch.randn(ROWS, sum(WIDTHS), generator=draw)
    A = torch.randn(len(WIDTHS) * columns, inputs, generator=draw)
    B = torch.randn(sum(WIDTHS), columns, generator=draw)
    c = torch.rand(2, len(WIDTHS) * columns, generator=draw)
    rows = torch.arange(ROWS, dtype=torch.int32) % 2
    x, y, A, B = (t.bfloat16() for t in (x, y, A, B))
    truth = reference.soup_linear_factor(y.double(), x, A, B, c, rows, WIDTHS, rank)
    with ReadsBeyond():
        cpu.soup_into(y, x, A, B, c, rows, WIDTHS, rank)
    assert (y.double() - truth).norm() <= 4 * torch.finfo(y.dtype).eps * truth.norm()


def test_a_trial_finds_every_product_that_reads_beyond() -> None:
    can = {
        name
        for name in rows_apart.PRODUCTS
        if name != "packed" or kernels.pack(torch.ones(8, 32).bfloat16()) is not None
    }
    with ReadsBeyond():
        assert rows_apart.leaks(torch.bfloat16, 80) == can
        assert not rows_apart.leaks(torch.bfloat16, 96)
        assert not rows_apart.leaks(torch.float32, 80)
        assert rows_apart.inner_step(torch.bfloat16, CPU) == rows_apart.WIDE
        assert rows_apart.inner_step(torch.float32, CPU) == 1
        assert rows_apart.inner_step(torch.bfloat16, torch.device("meta")) == 1


def test_tile_units_are_not_tried_but_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    rows_apart._step.cache_clear()
    assert rows_apart.inner_step(torch.bfloat16, CPU) == rows_apart.WIDE
    made = pool(64, torch.bfloat16)
    assert made.tiled is not None
    assert made.A.shape[0] % (2 * rows_apart.WIDE) == 0
    assert made.factors_for(63) is made.factors
    assert made.factors_for(64) is made.tiled
    assert pool(72, torch.bfloat16).tiled is None  # the inputs are no whole tiles
    rows_apart._step.cache_clear()


def test_products_that_mix_rows_whatever_the_dimension_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_apart, "leaks", lambda *_: frozenset({"mm"}))
    rows_apart._step.cache_clear()
    with pytest.raises(RuntimeError, match=r"bfloat16 on this processor mix neighbouring rows.*use float32"):
        kernels.wide_weight(torch.ones(3, 5, dtype=torch.bfloat16))
    rows_apart._step.cache_clear()


@pytest.mark.parametrize("most", ["avx2", "avx512_core", "avx512_core_bf16", "avx512_core_amx", ""])
def test_whatever_instructions_onednn_may_use(most: str) -> None:
    """oneDNN reads its limit once, so each has a process; where the processor has less, it is the same again."""
    code = "from tests.kernels import test_rows_apart as t; [t.test_on_this_processor_too(p) for p in t.PATHS]"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": most, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], env=environment)
