"""On a CUDA or HIP device: the whole battery by real launches, and what only a device can do. Skipped without one.

How the battery is put on a device is tried on the CPU as well, so that the first device does not find it broken.
"""

from collections.abc import Callable

import pytest
import torch

from soupmix_kernels import Part, Pool, RowCoefficients, backend_for, soup_linear_
from tests.support import battery

needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or HIP device")]
DEVICES = [pytest.param("cpu"), pytest.param("cuda", marks=needs_gpu)]

WIDTHS, INPUTS, RANK, ADAPTERS = (576, 192, 192), 576, 16, 6
ROWS = (1, 16, 64, 65, 300)
CASES = dict(battery.cases())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("check", CASES.values(), ids=CASES.keys())
def test_the_battery(check: Callable[[], None], device: str, request: pytest.FixtureRequest) -> None:
    """Coefficients as the reference, merges out of place and in place, odd shapes, rows alone, windows of NaN, layouts."""
    if device == "cpu" and "rows-alone" in request.node.name:
        pytest.skip("BLAS sums in another order for another number of rows")
    with torch.device(device):
        check()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", battery.DTYPES)
@pytest.mark.parametrize("rank", [0, RANK])
def test_a_layer_of_a_model(dtype: torch.dtype, rows: int, rank: int, device: str) -> None:
    """The shapes of SmolLM2-135M's q|k|v, whose launches are the aligned ones."""
    with torch.device(device):
        battery.soup(rows, INPUTS, WIDTHS, [RANK] * ADAPTERS, 8, dtype=dtype, rank=rank)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("people", [1, 3])
@pytest.mark.parametrize("dtype", battery.DTYPES)
def test_a_merge_of_a_model(dtype: torch.dtype, people: int, device: str) -> None:
    with torch.device(device):
        battery.merge(INPUTS, INPUTS, [RANK] * ADAPTERS, people, dtype=dtype)


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


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second device")
def test_another_device_than_the_current_one() -> None:
    torch.cuda.set_device(0)
    for name in ("soup_linear-2-bfloat16", "merge-3-float32", "coefficients-3x5", "rows-alone-4"):
        with torch.device("cuda:1"):
            CASES[name]()
    assert torch.cuda.current_device() == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or HIP device")
def test_triton_is_what_runs_there() -> None:
    assert backend_for(torch.device("cuda")) == "triton"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or HIP device")
def test_a_step_can_be_captured_and_replayed_with_other_weights() -> None:
    pool, x, y, people, weights = scene(torch.bfloat16, 16)
    zeros, ones = torch.zeros(ADAPTERS).cuda(), torch.ones(ADAPTERS).cuda()
    out = y.clone()

    def step() -> None:
        out.copy_(y)
        soup_linear_(out, x, pool, RowCoefficients(pool.coefficients(weights, zeros, ones), people))

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    weights.copy_(torch.rand_like(weights))
    graph.replay()
    expected = soup_linear_(y.clone(), x, pool, RowCoefficients(pool.coefficients(weights, zeros, ones), people))
    assert torch.equal(out, expected)
