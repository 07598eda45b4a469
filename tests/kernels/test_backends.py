"""The torch and reference backends under the battery; the ops under torch's own checks; which backend runs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch

import soupmix_kernels as kernels
from soupmix_kernels import Part, Pool, backend_for, cpu, packed, reference
from tests.support import battery

OPS = torch.ops.soupmix
CPU = torch.device("cpu")
# BLAS sums in another order when there are more rows, so on the CPU a row's last bits may depend on their number
CASES = {name: check for name, check in battery.cases() if not name.startswith("rows-alone")}


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("check", CASES.values(), ids=CASES.keys())
def test_backend(backend: str, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOUPMIX_KERNELS", backend)
    check()


def pool(
    ranks: tuple[int, ...] = (4, 4), widths: tuple[int, ...] = (17, 5), dtype: torch.dtype = torch.float32
) -> Pool:
    draw = torch.Generator().manual_seed(0)
    parts = [
        [
            Part(k, torch.randn(r, 13, generator=draw), torch.randn(w, r, generator=draw), 0.5)
            for k, r in enumerate(ranks)
        ]
        for w in widths
    ]
    return Pool.stack(parts, widths, inputs=13, dtype=dtype, device=CPU)


def arguments() -> dict[str, tuple[object, ...]]:
    made = pool()
    weights, lo, hi = torch.rand(3, 2), torch.zeros(2), torch.ones(2)
    c = made.coefficients(weights, lo, hi).values
    rows = torch.tensor([0, -1, 2, 1], dtype=torch.int32)
    soup = (torch.randn(4, 22), torch.randn(4, 13), made.A, made.B, c, rows, [17, 5])
    W, A, B, mine = torch.randn(17, 13), made.A[:16], made.B[:17], c[:, :16].contiguous()
    return {
        "coefficients": (weights, lo, hi, made.columns, made.scale),
        "merge": (W, A, B, mine),
        "merge_": (W, A, B, mine[:1]),
        "merge_out": (torch.zeros(3, 17, 13), W, A, B, mine),
        "soup_linear_": soup,
        "soup_linear_factor_": (*soup, 4),
    }


@pytest.mark.parametrize("name", arguments())
def test_ops_pass_torchs_own_check(name: str) -> None:
    torch.library.opcheck(getattr(OPS, name).default, arguments()[name])


def test_a_whole_layer_compiles_into_one_graph() -> None:
    made = pool()
    weights, lo, hi = torch.rand(3, 2), torch.zeros(2), torch.ones(2)
    rows = torch.tensor([0, -1, 2, 1], dtype=torch.int32)

    def layer(x: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
        c, _ = OPS.coefficients(weights, lo, hi, made.columns, made.scale)
        y = torch.nn.functional.linear(x, W)
        OPS.soup_linear_(y, x, made.A, made.B, c, rows, [17, 5])
        merged = OPS.merge(W[:17], made.A[:16], made.B[:17], c[:, :16])
        return torch.relu(y).sum() + merged.sum()

    x, W = torch.randn(4, 13), torch.randn(22, 13)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x, W), layer(x, W))


@pytest.mark.parametrize("method", ["delta", "factor"])
def test_row_coefficients_take_the_way_of_the_op(method: Literal["delta", "factor"]) -> None:
    made = pool()
    c = made.coefficients(torch.rand(3, 2), torch.zeros(2), torch.ones(2), method)
    rows, x, y = torch.tensor([0, -1, 2, 9], dtype=torch.int32), torch.randn(4, 13), torch.randn(4, 22)
    add = kernels.soup_linear_factor_ if method == "factor" else kernels.soup_linear_
    op = OPS.soup_linear_factor_ if method == "factor" else OPS.soup_linear_
    of_rows, expected = kernels.RowCoefficients(c, rows), y.clone()
    op(expected, x, made.A, made.B, c.values, rows, made.widths, *([made.rank] if method == "factor" else []))
    assert torch.equal(add(y.clone(), x, made, of_rows), expected)
    assert torch.equal(expected[[1, 3]], y[[1, 3]])

    def traced(x: torch.Tensor) -> torch.Tensor:
        return add(y.clone(), x, made, of_rows)

    torch.testing.assert_close(torch.compile(traced, fullgraph=True, backend="aot_eager")(x), expected)


def test_row_coefficients_on_another_backend_go_through_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOUPMIX_KERNELS", "reference")
    made = pool()
    c = made.coefficients(torch.rand(3, 2), torch.zeros(2), torch.ones(2))
    of_rows = kernels.RowCoefficients(c, torch.zeros(4, dtype=torch.int32))
    assert of_rows.gathered is None
    x, y = torch.randn(4, 13), torch.randn(4, 22)
    expected = reference.soup_linear(y, x, made.A, made.B, c.values, of_rows.rows, made.widths)
    assert torch.equal(kernels.soup_linear_(y, x, made, of_rows), expected)


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_are_merged_as_the_whole_is(backend: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOUPMIX_KERNELS", backend)
    made, W = pool(dtype=dtype), torch.randn(17, 13).to(dtype)
    A, B = made.A[:16].clone(), made.B[:17, :16]  # where processors have tile units, B has more columns
    A[4:8] = torch.nan  # of the adapter whose coefficient is zero
    weights, lo, hi = torch.tensor([[0.7, 0.0]]), torch.zeros(2), torch.ones(2)
    c = kernels.coefficients(weights, lo, hi, made.columns[:16], made.scale[:16])
    update, expected = kernels.Update(A, B, c), kernels.merge(W, A, B, c)[0]
    assert expected.isfinite().all()
    assert not torch.equal(expected, W)
    parts = [kernels.merge_rows_(W[a:b].clone(), update, a) for a, b in ((0, 8), (8, 17), (17, 17))]
    assert torch.equal(torch.cat(parts), expected)
    assert (update.factors is None) == (backend == "reference")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_change_of_a_whole_weight_is_added_as_a_product_with_the_identity_adds_it(dtype: torch.dtype) -> None:
    """Bit for bit, of zeros of either sign too, in all rows and in some."""
    W, B = torch.randn(37, 16).to(dtype), torch.randn(37, 16).to(dtype)
    W[:2], B[1:3] = -0.0, -0.0
    A, zeros = torch.eye(16, dtype=dtype), torch.zeros(16, dtype=torch.int32)
    c = kernels.coefficients(torch.tensor([[0.7]]), torch.zeros(1), torch.ones(1), zeros, torch.full((16,), 0.3))
    update, expected = kernels.Update(A, B, c), torch.addmm(W, (B * c.values).to(dtype), A)
    assert update.factors is not None
    assert update.is_left or update.factors[1].shape != A.shape  # filled up where processors have tile units
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    for first, end in ((0, 37), (1, 20), (36, 37)):
        made = kernels.merge_rows_(W[first:end].clone(), update, first)
        assert torch.equal(made.view(bits), expected[first:end].view(bits))
    assert not kernels.Update(A.flip(0), B, c).is_left
    assert not kernels.Update(
        A[:8], B[:, :8], kernels.coefficients(torch.ones(1, 1), torch.zeros(1), torch.ones(1), zeros[:8], torch.ones(8))
    ).is_left


def test_what_is_printed_is_one_line_without_tensors() -> None:
    made = pool()
    c = made.coefficients(torch.rand(3, 2), torch.zeros(2), torch.ones(2))
    assert repr(made) == "Pool(13 -> 17 + 5, 16 rank columns, float32 on cpu)"
    assert repr(Part(1, torch.ones(4, 13), torch.ones(17, 4), 0.5)) == "Part(adapter 1, rank 4, 13 -> 17, scaling 0.5)"
    assert repr(c) == "Coefficients(3 people, 32 columns, on cpu)"
    rows = kernels.RowCoefficients(c, torch.zeros(4, dtype=torch.int32))
    assert repr(rows) == "RowCoefficients(4 rows of 3 people, 32 columns, on cpu)"
    mine = kernels.coefficients(torch.ones(1, 2), torch.zeros(2), torch.ones(2), made.columns[:16], made.scale[:16])
    assert repr(kernels.Update(made.A[:16], made.B[:17], mine)) == "Update(rank 16, 13 -> 17, on cpu)"


def test_which_backend_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOUPMIX_KERNELS", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert backend_for(CPU) == "torch"
    for name in ("reference", "torch"):
        monkeypatch.setenv("SOUPMIX_KERNELS", name)
        assert backend_for(CPU) == name
    monkeypatch.setenv("SOUPMIX_KERNELS", "cuda")
    with pytest.raises(ValueError, match="names no backend; choose one of auto, reference, torch, triton"):
        backend_for(CPU)
    monkeypatch.setenv("SOUPMIX_KERNELS", "triton")
    with pytest.raises(RuntimeError, match=r"TRITON_INTERPRET=1 before Python starts|pip install triton"):
        backend_for(CPU)


def test_what_callers_get_wrong() -> None:
    made = pool()
    c = made.coefficients(torch.rand(3, 2), torch.zeros(2), torch.ones(2))
    x, y, rows = torch.randn(4, 13), torch.randn(4, 22), torch.zeros(4, dtype=torch.int32)
    with pytest.raises(TypeError, match="weights become coefficients by clamping"):
        kernels.RowCoefficients(torch.rand(3, 32), rows)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="weights become coefficients by clamping"):
        kernels.merge(torch.randn(17, 13), made.A[:16], made.B[:17], torch.rand(1, 16))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"come from soupmix_kernels\.coefficients"):
        kernels.Coefficients(c.values, c.rejected)
    with pytest.raises(ValueError, match=r"got y \[4, 22\], x \[4, 12\]"):
        kernels.soup_linear_(y, x[:, 1:], made, kernels.RowCoefficients(c, rows))
    with pytest.raises(ValueError, match=r"rows \[1\]"):
        kernels.soup_linear_(y, x, made, kernels.RowCoefficients(c, rows[:1]))
    with pytest.raises(TypeError, match=r"y torch\.bfloat16, x torch\.float32"):
        kernels.soup_linear_(y.bfloat16(), x, made, kernels.RowCoefficients(c, rows))
    with pytest.raises(TypeError, match=r"rows in int32; got rows torch\.int64"):
        kernels.RowCoefficients(c, rows.long())
    with pytest.raises(ValueError, match=r"person of every row \[rows\]; got rows \[4, 1\]"):
        kernels.RowCoefficients(c, rows[:, None])
    with pytest.raises(ValueError, match="one person can be merged in place, not 3"):
        kernels.merge_(torch.randn(17, 13), made.A[:16], made.B[:17], c)
    with pytest.raises(ValueError, match="all adapters need one rank"):
        kernels.soup_linear_factor_(y, x, pool(ranks=(3, 5)), kernels.RowCoefficients(c, rows))
    with pytest.raises(ValueError, match=r"a factor of adapter 0 is not finite in torch\.float16"):
        Pool.stack(
            [[Part(0, torch.full((1, 4), 1e6), torch.ones(3, 1), 1.0)]], [3], inputs=4, dtype=torch.float16, device=CPU
        )
    with pytest.raises(ValueError, match=r"A \[1, 5\] and B \[3, 1\], but the layer needs A \[rank, 4\]"):
        Pool.stack([[Part(0, torch.ones(1, 5), torch.ones(3, 1), 1.0)]], [3], inputs=4, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_packed_projection_is_linear(dtype: torch.dtype) -> None:
    weight, x, bias = (torch.randn(*shape).to(dtype) for shape in ((70, 50), (9, 50), (70,)))
    held = kernels.pack(weight)
    if held is None:
        pytest.skip(f"no oneDNN layout for {dtype} on this processor")
    exact = torch.nn.functional.linear(x.double(), weight.double(), bias.double())
    plain = torch.nn.functional.linear(x, weight, bias)
    error, allowed = ((made.double() - exact).norm() for made in (kernels.packed_linear(x, held, bias), plain))
    assert error <= 2 * allowed + 1e-6


@pytest.mark.parametrize("block", [1 << 20, 60])
@pytest.mark.parametrize("shape", [(3, 50), (2, 2, 50), (0, 50), (1, 50)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_without_products_of_half_precision_sums_are_those_of_fp32_rounded_once(
    dtype: torch.dtype, biased: bool, shape: tuple[int, ...], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "has_products", lambda *of: False)
    monkeypatch.setattr(packed, "_BLOCK", block)
    weight, x, shift = (torch.randn(*size).to(dtype) for size in ((70, 50), shape, (70,)))
    bias = shift if biased else None
    made = kernels.wide_linear(x, kernels.wide_weight(weight), bias)
    exact = torch.nn.functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
    assert (made.dtype, made.shape) == (dtype, (*shape[:-1], 70))
    # half of the last bit for the rounding, and what fp32 loses in fifty sums
    torch.testing.assert_close(made.double(), exact, rtol=torch.finfo(dtype).eps / 2, atol=2e-5)


def test_other_dtypes_are_multiplied_as_they_are() -> None:
    assert packed.has_products(torch.float32, CPU)
    assert packed.has_products(torch.bfloat16, torch.device("meta"))


def test_a_step_allocates_nothing_for_its_rank_columns() -> None:
    first = cpu._scratch.matrix("h", 4, 6, torch.zeros(1))
    again = cpu._scratch.matrix("h", 2, 3, torch.zeros(1))
    assert first.data_ptr() == again.data_ptr()
    assert cpu._scratch.matrix("x", 2, 3, torch.zeros(1)).data_ptr() != again.data_ptr()


@pytest.mark.parametrize("method", ["delta", "factor"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_wide_factors_round_once(dtype: torch.dtype, method: Literal["delta", "factor"]) -> None:
    made = pool(dtype=dtype)
    c = made.coefficients(torch.rand(3, 2), torch.zeros(2), torch.ones(2), method)
    rows, x, y = (
        torch.tensor([0, -1, 2, 9], dtype=torch.int32),
        torch.randn(4, 13).to(dtype),
        torch.randn(4, 22).to(dtype),
    )
    given = (y.double(), x, made.A, made.B, c.values, rows, made.widths)
    factor = method == "factor"
    exact = reference.soup_linear_factor(*given, made.rank) if factor else reference.soup_linear(*given)
    rounding = (exact.to(dtype).double() - exact).norm()
    add = kernels.soup_linear_factor_ if factor else kernels.soup_linear_
    narrow, wide = (cpu.factor_views(made.A.to(t), made.B.to(t), made.widths) for t in (dtype, torch.float32))
    for each in (made, replace(made, factors=narrow), replace(made, factors=wide)):
        got = add(y.clone(), x, each, kernels.RowCoefficients(c, rows))
        assert torch.equal(got[[1, 3]], y[[1, 3]])
        assert (got.double() - exact).norm() <= (1.01 if each.factors.A.dtype == torch.float32 else 4) * rounding
