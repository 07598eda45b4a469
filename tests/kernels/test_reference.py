"""The kernel references against dense float64 algebra, row by row."""

import pytest
import torch
from torch import Tensor

import soupmix_kernels as kernels

RANKS = (1, 3, 8)


def factors(
    seed: int = 0, out: int = 17, wide: int = 13, ranks: tuple[int, ...] = RANKS
) -> tuple[list[Tensor], list[Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    A = [torch.randn(r, wide, generator=draw) for r in ranks]
    B = [torch.randn(out, r, generator=draw) for r in ranks]
    return A, B


def columns(weights: Tensor, ranks: tuple[int, ...]) -> Tensor:
    return weights.repeat_interleave(torch.tensor(ranks), dim=-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_merge_rounds_the_exact_sum_once(dtype: torch.dtype) -> None:
    A, B = factors()
    W = torch.randn(17, 13).to(dtype)
    w = torch.tensor([0.5, 0.0, 0.25])
    exact = W.double() + sum(wk.double() * b.double() @ a.double() for wk, a, b in zip(w, A, B, strict=True))
    before = W.clone()
    merged = kernels.merge(W, torch.cat(A), torch.cat(B, 1), columns(w, RANKS))
    assert merged.dtype == dtype
    assert torch.equal(W, before)
    torch.testing.assert_close(
        merged.double(), exact.to(dtype).double(), rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-5
    )
    rounding = (exact.to(dtype).double() - exact).norm()
    assert (merged.double() - exact).norm() <= rounding * 1.01 + 1e-5


def test_merge_in_place_is_merge_out_of_place() -> None:
    A, B = factors()
    W, c = torch.randn(17, 13), columns(torch.tensor([1.0, 0.5, 0.1]), RANKS)
    apart = kernels.merge(W, torch.cat(A), torch.cat(B, 1), c)
    assert kernels.merge(W, torch.cat(A), torch.cat(B, 1), c, out=W) is W
    assert torch.equal(W, apart)


@pytest.mark.parametrize("shape", [(5, 13), (5, 1, 13), (5, 7, 13)])
def test_soup_linear_is_the_dense_sum_of_each_row(shape: tuple[int, ...]) -> None:
    A, B = factors()
    x = torch.randn(shape)
    y = torch.randn(*shape[:-1], 17)
    w = torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5], [0, 0, 0], [0.2, 0.3, 0.4], [0, 1, 0]])
    got = kernels.soup_linear(x, y, torch.cat(A), torch.cat(B, 1), columns(w, RANKS))
    for row in range(5):
        delta = sum(w[row, k].double() * B[k].double() @ A[k].double() for k in range(3))
        torch.testing.assert_close(got[row].double(), y[row].double() + x[row].double() @ delta.T, rtol=1e-5, atol=1e-5)


def test_soup_linear_factor_averages_a_and_b_themselves() -> None:
    A, B = factors(ranks=(4, 4, 4))
    x, y = torch.randn(3, 2, 13), torch.randn(3, 2, 17)
    c = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0], [0.3, 0.3, 0.4]])
    got = kernels.soup_linear_factor(x, y, torch.cat(A), torch.cat(B, 1), c, 3)
    for row in range(3):
        a = sum(c[row, k].double() * A[k].double() for k in range(3))
        b = sum(c[row, k].double() * B[k].double() for k in range(3))
        torch.testing.assert_close(
            got[row].double(), y[row].double() + x[row].double() @ (b @ a).T, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_an_adapter_of_weight_zero_cannot_leak(poison: float) -> None:
    A, B = factors(ranks=(4, 4))
    A[1][:] = poison
    x, y, c = torch.randn(2, 13), torch.randn(2, 17), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    soup = kernels.soup_linear(x, y, torch.cat(A), torch.cat(B, 1), columns(c, (4, 4)))
    factor = kernels.soup_linear_factor(x, y, torch.cat(A), torch.cat(B, 1), c, 2)
    merged = kernels.merge(torch.randn(17, 13), torch.cat(A), torch.cat(B, 1), columns(c[0], (4, 4)))
    assert all(t.isfinite().all() for t in (soup, factor, merged))
    assert torch.equal(soup[1], y[1])
    assert torch.equal(factor[1], y[1])


def test_a_poisoned_row_stays_alone() -> None:
    A, B = factors()
    x, y, c = torch.randn(3, 13), torch.randn(3, 17), columns(torch.rand(3, 3), RANKS)
    clean = kernels.soup_linear(x, y, torch.cat(A), torch.cat(B, 1), c)
    x[1] = float("nan")
    got = kernels.soup_linear(x, y, torch.cat(A), torch.cat(B, 1), c)
    assert torch.equal(got[[0, 2]], clean[[0, 2]])
    assert got[1].isnan().all()
