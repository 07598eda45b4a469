"""The references against dense float64 algebra, one row, one adapter at a time: they are the truth of all other tests."""

import pytest
import torch
from torch import Tensor

from soupmix_kernels import reference

RANKS, WIDTHS, INPUTS = (1, 3, 8), (17, 5), 13
ROWS = torch.tensor([0, -1, 2, 1, 0, 3, 7], dtype=torch.int32)  # 3 and 7 are nobody: there are three people


def factors(ranks: tuple[int, ...] = RANKS) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """A and B of every slice and adapter, float64."""
    draw = torch.Generator().manual_seed(0)
    A = [[torch.randn(r, INPUTS, generator=draw).double() for r in ranks] for _ in WIDTHS]
    B = [[torch.randn(width, r, generator=draw).double() for r in ranks] for width in WIDTHS]
    return A, B


def stacked(A: list[list[Tensor]], B: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([a for each in A for a in each]), torch.cat([torch.cat(each, 1) for each in B])


def columns(weights: Tensor, ranks: tuple[int, ...]) -> Tensor:
    return weights.repeat_interleave(torch.tensor(ranks), dim=-1).repeat(1, len(WIDTHS))


@pytest.fixture
def people() -> Tensor:
    return torch.tensor([[1.0, 0, 0.5], [0, 0, 0], [0.2, -0.3, 0.4]])


def test_coefficients_are_clamped_weights_times_scaling() -> None:
    nan, inf = float("nan"), float("inf")
    weights = torch.tensor([[0.5, 2.0, -1.0, nan], [inf, 0.0, 0.25, -inf]])
    lo, hi = torch.tensor([0.0, 0, -0.5, 0]), torch.tensor([1.0, 1, 1, 1])
    kof, scale = torch.tensor([0, 0, 1, 2, 3, -1, 9]).int(), torch.tensor([2.0, 3, 5, 7, 11, 13, 17])
    c, rejected = reference.coefficients(weights, lo, hi, kof, scale)
    assert c.tolist() == [[1.0, 1.5, 5.0, -3.5, 0, 0, 0], [0, 0, 0, 1.75, 0, 0, 0]]
    assert rejected.tolist() == [1, 2]
    for least, most in ((0.0, 0.0), (0.6, 0.4), (nan, 1.0), (0.0, nan)):  # not approved, or not a bound
        none, _ = reference.coefficients(weights[:, :1] * 0 + 0.5, *torch.tensor([[least], [most]]), kof[:2], scale[:2])
        assert none.tolist()[0] == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_merge_rounds_the_exact_sum_once(dtype: torch.dtype, people: Tensor) -> None:
    A, B = factors()
    W = torch.randn(17, INPUTS).to(dtype)
    merged = reference.merge(W, torch.cat(A[0]), torch.cat(B[0], 1), columns(people, RANKS)[:, :12])
    for row, made in zip(people, merged, strict=True):
        exact = W.double() + sum(w.double() * b @ a for w, a, b in zip(row, A[0], B[0], strict=True))
        assert torch.equal(made, exact.to(dtype))


def test_soup_linear_is_the_dense_sum_of_each_row(people: Tensor) -> None:
    A, B = factors()
    x, y = torch.randn(len(ROWS), INPUTS).double(), torch.randn(len(ROWS), sum(WIDTHS)).double()
    got = reference.soup_linear(y, x, *stacked(A, B), columns(people, RANKS), ROWS, WIDTHS)
    for row, person in enumerate(ROWS.tolist()):
        if not 0 <= person < 3:
            assert torch.equal(got[row], y[row])
            continue
        delta = torch.cat(
            [sum(people[person, k].double() * B[s][k] @ A[s][k] for k in range(3)) for s in range(len(WIDTHS))]
        )
        torch.testing.assert_close(got[row], y[row] + delta @ x[row])


def test_soup_linear_factor_averages_a_and_b_themselves(people: Tensor) -> None:
    A, B = factors(ranks=(4, 4, 4))
    x, y = torch.randn(len(ROWS), INPUTS).double(), torch.randn(len(ROWS), sum(WIDTHS)).double()
    got = reference.soup_linear_factor(y, x, *stacked(A, B), columns(people, (4, 4, 4)), ROWS, WIDTHS, 4)
    for row, person in enumerate(ROWS.tolist()):
        if not 0 <= person < 3:
            assert torch.equal(got[row], y[row])
            continue
        c = people[person].double()
        halves = []
        for s in range(len(WIDTHS)):
            a, b = (sum(c[k] * side[s][k] for k in range(3)) for side in (A, B))
            halves.append(b @ (a @ x[row]))
        torch.testing.assert_close(got[row], y[row] + torch.cat(halves))


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_an_adapter_of_weight_zero_cannot_leak(poison: float) -> None:
    A, B = factors(ranks=(4, 4))
    for each in A:
        each[1][:] = poison
    x, y = torch.randn(2, INPUTS).double(), torch.randn(2, sum(WIDTHS)).double()
    c, rows = columns(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), (4, 4)), torch.arange(2, dtype=torch.int32)
    soup = reference.soup_linear(y, x, *stacked(A, B), c, rows, WIDTHS)
    factor = reference.soup_linear_factor(y, x, *stacked(A, B), c, rows, WIDTHS, 4)
    B[0][1][:] = poison
    merged = reference.merge(torch.randn(17, INPUTS), torch.cat(A[0]), torch.cat(B[0], 1), c[:, :8])
    assert all(t.isfinite().all() for t in (soup, factor, merged))
    assert torch.equal(soup[1], y[1])
    assert torch.equal(factor[1], y[1])
