"""Norms, distances and the thin route, against dense float64."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from soupmix.merge.result import Errors
from soupmix.merge.stack import Stack, compress, distance, frobenius, one_thread

sizes = st.integers(1, 12)


def stack_of(rows: int, columns: int, rank: int, seed: int = 0) -> Stack:
    generator = torch.Generator().manual_seed(seed)
    A, B = torch.randn(rank, columns, generator=generator), torch.randn(rows, rank, generator=generator)
    return Stack(
        A, B, torch.linspace(0, 1, rank, dtype=torch.float64), torch.linspace(-1, 2, rank, dtype=torch.float64)
    )


def dense(stack: Stack) -> torch.Tensor:
    return stack.scaled() @ stack.A.double()


@settings(deadline=None, max_examples=60)
@given(sizes, sizes, sizes, st.integers(1, 14))
def test_compress_is_the_truncated_svd_of_the_dense_delta(rows: int, columns: int, rank: int, kept: int) -> None:
    stack = stack_of(rows, columns, rank)
    B, A, lost, norm = compress(stack, kept)
    delta = dense(stack)
    u, values, v = torch.linalg.svd(delta, full_matrices=False)
    best = (u[:, :kept] * values[:kept]) @ v[:kept]
    assert B.shape[1] == A.shape[0] == min(kept, rank, rows, columns)
    torch.testing.assert_close(B @ A, best, rtol=0, atol=1e-9 * max(1.0, norm))
    assert norm == pytest.approx(float(delta.norm()), abs=1e-12)
    assert lost == pytest.approx(float((delta - B @ A).norm()), abs=1e-9 * max(1.0, norm))


def test_compress_at_full_rank_is_exact_even_for_repeated_columns() -> None:
    stack = stack_of(9, 8, 3)
    doubled = Stack(stack.A.repeat(2, 1), stack.B.repeat(1, 2), stack.weights.repeat(2), stack.scale.repeat(2))
    for rank in (3, 6):
        B, A, lost, norm = compress(doubled, rank)
        torch.testing.assert_close(B @ A, dense(doubled))
        assert lost < 1e-12 * norm


@settings(deadline=None, max_examples=40)
@given(sizes, sizes, sizes, sizes)
def test_distance_and_norm_need_no_dense_delta(rows: int, columns: int, rank: int, other: int) -> None:
    stack, made = stack_of(rows, columns, rank), stack_of(rows, columns, other, seed=1)
    apart, norm = distance(stack, made.B, made.A)
    assert norm == pytest.approx(float(dense(stack).norm()), rel=1e-6, abs=1e-6)
    assert apart == pytest.approx(float((made.B.double() @ made.A.double() - dense(stack)).norm()), rel=1e-6, abs=1e-6)


def test_distance_sees_the_rounding_of_fp32_which_a_difference_of_norms_would_not() -> None:
    stack = stack_of(40, 30, 5)
    B = stack.scaled().float()
    apart, norm = distance(stack, B, stack.A)
    expected = float((B.double() @ stack.A.double() - dense(stack)).norm())
    assert 0 < expected < 1e-6 * norm
    assert apart == pytest.approx(expected, rel=1e-6)


def test_frobenius_of_zero_is_zero() -> None:
    assert frobenius(torch.zeros(3, 2), torch.ones(2, 4)) == 0.0


def test_errors_add_up_as_norms_do() -> None:
    errors = Errors.of({"b": (3.0, 6.0), "a": (4.0, 8.0), "still": (0.0, 0.0)})
    assert errors.total == pytest.approx(0.5)
    assert dict(errors.modules) == {"a": 0.5, "b": 0.5, "still": 0.0}
    assert math.isinf(Errors.of({"a": (1.0, 0.0)}).total)


def test_one_thread_gives_the_setting_back_even_after_an_error() -> None:
    before = torch.get_num_threads()

    def fail() -> None:
        with one_thread():
            assert torch.get_num_threads() == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.get_num_threads() == before


def test_what_is_shortened_is_shortened_with_its_gains() -> None:
    stack = replace(stack_of(4, 3, 2), gain=torch.tensor([[1.0], [-2.0], [0.5], [3.0]]))
    weight = torch.arange(12, dtype=torch.float64).reshape(4, 3)

    def update(of: Stack) -> torch.Tensor:
        assert of.gain is not None
        return dense(of) + of.gain.double() * weight

    torch.testing.assert_close(update(stack.scaled_by(0.25)), 0.25 * update(stack))
