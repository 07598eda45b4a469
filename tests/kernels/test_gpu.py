"""On a CUDA or HIP device: the same laws as under the interpreter, by real launches. Skipped without one."""

import pytest
import torch

from soupmix_kernels import Part, Pool, Seats, coefficients, merge, reference, soup_linear_, soup_linear_factor_

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or HIP device")]

WIDTHS, INPUTS, RANK, ADAPTERS = (576, 192, 192), 576, 16, 6


def scene(dtype: torch.dtype, rows: int) -> tuple[Pool, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(rows)
    parts = [
        [
            Part(k, torch.randn(RANK, INPUTS, generator=draw), torch.randn(w, RANK, generator=draw), 0.25)
            for k in range(ADAPTERS)
        ]
        for w in WIDTHS
    ]
    pool = Pool.stack(parts, WIDTHS, inputs=INPUTS, dtype=dtype, device=torch.device("cuda"))
    x, y = torch.randn(rows, INPUTS, generator=draw), torch.randn(rows, sum(WIDTHS), generator=draw)
    people = torch.randint(-1, 8, (rows,), generator=draw).int()
    weights = torch.rand(8, ADAPTERS, generator=draw)
    return pool, x.to("cuda", dtype), y.to("cuda", dtype), people.cuda(), weights.cuda()


@pytest.mark.parametrize("rows", [1, 16, 64, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["delta", "factor"])
def test_rows_are_near_the_reference(dtype: torch.dtype, rows: int, method: str) -> None:
    pool, x, y, people, weights = scene(dtype, rows)
    zeros, ones = torch.zeros(ADAPTERS).cuda(), torch.ones(ADAPTERS).cuda()
    c = pool.coefficients(weights, zeros, ones, "factor" if method == "factor" else "delta")
    given = (y.double(), x, pool.A, pool.B, c.values, people, pool.widths)
    if method == "factor":
        exact, got = (
            reference.soup_linear_factor(*given, RANK),
            soup_linear_factor_(y.clone(), x, pool, Seats(c, people)),
        )
    else:
        exact, got = reference.soup_linear(*given), soup_linear_(y.clone(), x, pool, Seats(c, people))
    rounding = (exact.to(dtype).double() - exact).norm()
    assert (got.double() - exact).norm() <= 2 * rounding + 2e-5 * exact.norm()
    assert torch.equal(got[people < 0], y[people < 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_merge_is_near_the_reference(dtype: torch.dtype) -> None:
    pool, *_, weights = scene(dtype, 1)
    R, zeros, ones = pool.B.shape[1], torch.zeros(ADAPTERS).cuda(), torch.ones(ADAPTERS).cuda()
    c = coefficients(weights, zeros, ones, pool.columns[:R], pool.scale[:R])
    W, A, B = torch.randn(576, INPUTS, device="cuda").to(dtype), pool.A[:R], pool.B[:576]
    exact = reference.merge(W.double(), A, B, c.values)
    rounding = (exact.to(dtype).double() - exact).norm()
    assert (merge(W, A, B, c).double() - exact).norm() <= 2 * rounding + 2e-5 * exact.norm()


def test_a_step_can_be_captured_and_replayed_with_other_weights() -> None:
    pool, x, y, people, weights = scene(torch.bfloat16, 16)
    zeros, ones = torch.zeros(ADAPTERS).cuda(), torch.ones(ADAPTERS).cuda()
    out = y.clone()

    def step() -> None:
        out.copy_(y)
        soup_linear_(out, x, pool, Seats(pool.coefficients(weights, zeros, ones), people))

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    weights.copy_(torch.rand_like(weights))
    graph.replay()
    expected = soup_linear_(y.clone(), x, pool, Seats(pool.coefficients(weights, zeros, ones), people))
    assert torch.equal(out, expected)
