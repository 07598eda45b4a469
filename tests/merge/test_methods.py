"""The two methods against dense float64, and the laws of merging."""

import math
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from soupmix.errors import AdapterError, RecipeError
from soupmix.merge.methods import merge_modules, warnings_of
from soupmix.merge.stack import Stack
from soupmix.store.adapter import Adapter, Factors

SHAPES = {"layers.0.up": (13, 7), "layers.0.down": (7, 13), "layers.1.up": (13, 7)}


def adapter(
    name: str, *, rank: int = 3, scaling: float = 2.0, seed: int = 0, skip: str = "", start: int = -1
) -> Adapter:
    """Random factors; adapters of one `start` begin from the same A."""
    values = torch.Generator().manual_seed(seed)
    starts = torch.Generator().manual_seed(9000 + (seed if start < 0 else start))
    modules = {}
    for path, (rows, columns) in sorted(SHAPES.items()):
        A, B = torch.randn(rank, columns, generator=starts), torch.randn(rows, rank, generator=values)
        if path != skip:
            modules[path] = Factors(A, B, scaling)
    return Adapter(name, f"sha256:{seed:064x}", f"sha256:{'b' * 64}", modules)


def dense(stack: Stack) -> torch.Tensor:
    return stack.scaled() @ stack.A.double()


def truth(weighted: list[tuple[Adapter, float]], path: str) -> torch.Tensor:
    total = torch.zeros(SHAPES[path], dtype=torch.float64)
    for one, weight in weighted:
        if path in one.modules and weight:
            factors = one.modules[path]
            total += weight * factors.scaling * (factors.B.double() @ factors.A.double())
    return total


weights = st.floats(-2, 2).map(lambda number: round(number, 6))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 5), st.floats(0.1, 8), weights), min_size=1, max_size=4))
def test_delta_is_the_weighted_sum_of_deltas(drawn: list[tuple[int, float, float]]) -> None:
    weighted = [
        (adapter(f"a{i}", rank=rank, scaling=scaling, seed=i, skip="layers.0.up" if i % 2 else ""), weight)
        for i, (rank, scaling, weight) in enumerate(drawn)
    ]
    merged = merge_modules(weighted)
    live = [one for one, weight in weighted if weight]
    assert set(merged) == {path for one in live for path in one.modules}
    for path, stack in merged.items():
        assert stack.rank == sum(one.modules[path].rank for one in live if path in one.modules)
        torch.testing.assert_close(dense(stack), truth(weighted, path), rtol=1e-12, atol=1e-10)


def test_one_hot_is_that_adapter_alone() -> None:
    one, other = adapter("a", seed=1), adapter("b", seed=2)
    alone, mixed = merge_modules([(one, 1.0)]), merge_modules([(other, 0.0), (one, 1.0)])
    for path, factors in one.modules.items():
        assert torch.equal(mixed[path].A, alone[path].A)
        assert torch.equal(mixed[path].A, factors.A)
        assert torch.equal(mixed[path].B, factors.B)
        assert mixed[path].c.tolist() == [factors.scaling] * factors.rank


def test_an_adapter_of_weight_zero_is_left_out_not_multiplied() -> None:
    sick = adapter("sick", seed=2)
    for factors in sick.modules.values():
        factors.B.fill_(math.nan)
        factors.A.fill_(math.inf)
    for method in ("delta", "factor"):
        for stack in merge_modules([(adapter("a", seed=1), 0.5), (sick, 0.0)], method).values():
            assert torch.isfinite(stack.A).all()
            assert torch.isfinite(stack.B).all()
    assert merge_modules([(sick, 0.0)]) == {}


@pytest.mark.parametrize("method", ["delta", "factor"])
def test_the_order_of_adapters_does_not_matter_to_the_last_bit(method: str) -> None:
    weighted = [(adapter(name, seed=seed), w) for name, seed, w in (("a", 3, 0.2), ("b", 1, 0.3), ("c", 2, 0.5))]
    expected = merge_modules(weighted, method)
    for order in permutations(weighted):
        for path, stack in merge_modules(order, method).items():
            for field in ("A", "B", "c"):
                assert torch.equal(getattr(stack, field), getattr(expected[path], field))


@pytest.mark.parametrize("method", ["delta", "factor"])
def test_inputs_are_left_untouched(method: str) -> None:
    used = [(adapter("a", seed=1), 0.25), (adapter("b", seed=2), 0.5)]
    merged = merge_modules(used, method)
    for stack in merged.values():
        stack.A.zero_()
        stack.B.zero_()
    for fresh, (one, _) in zip((adapter("a", seed=1), adapter("b", seed=2)), used, strict=True):
        for path, factors in fresh.modules.items():
            assert torch.equal(factors.A, one.modules[path].A)
            assert torch.equal(factors.B, one.modules[path].B)


def test_delta_is_linear_in_the_weights() -> None:
    a, b = adapter("a", seed=1), adapter("b", seed=2, rank=5)
    left, right = merge_modules([(a, 0.2), (b, -0.4)]), merge_modules([(a, 0.7), (b, 0.9)])
    both = merge_modules([(a, 0.2 * 3 + 0.7), (b, -0.4 * 3 + 0.9)])
    for path in SHAPES:
        torch.testing.assert_close(dense(both[path]), 3 * dense(left[path]) + dense(right[path]))


@pytest.mark.parametrize("method", ["delta", "factor"])
def test_twice_the_weight_at_half_the_scaling_is_the_same_for_delta_and_double_for_factor(method: str) -> None:
    once = merge_modules([(adapter("a", scaling=2.0), 0.3)], method)
    again = merge_modules([(adapter("a", scaling=1.0), 0.6)], method)
    for path in SHAPES:
        times = 1 if method == "delta" else 2
        torch.testing.assert_close(dense(again[path]), times * dense(once[path]), rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.floats(0.1, 8), weights.filter(bool)), min_size=1, max_size=4))
def test_factor_is_the_product_of_the_two_averages(drawn: list[tuple[float, float]]) -> None:
    weighted = [(adapter(f"a{i}", scaling=scaling, seed=i), weight) for i, (scaling, weight) in enumerate(drawn)]
    for path, stack in merge_modules(weighted, "factor").items():
        parts = [(w, one.modules[path]) for one, w in weighted]
        A = sum(w * math.sqrt(f.scaling) * f.A.double() for w, f in parts)
        B = sum(w * math.sqrt(f.scaling) * f.B.double() for w, f in parts)
        torch.testing.assert_close(dense(stack), B @ A, rtol=1e-5, atol=1e-5)


def test_factor_equals_delta_for_one_adapter_at_weight_one() -> None:
    one = adapter("a", scaling=3.0)
    exact, factor = merge_modules([(one, 1.0)]), merge_modules([(one, 1.0)], "factor")
    for path in SHAPES:
        torch.testing.assert_close(dense(factor[path]), dense(exact[path]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("weighted", "told"),
    [
        ([(adapter("a", seed=1, start=5), 0.4), (adapter("b", seed=2, start=5), 0.6)], []),
        ([(adapter("a", seed=1, start=5), 0.4), (adapter("b", seed=2, start=5), 0.5)], ["sum to 0.9"]),
        ([(adapter("a", seed=1), 0.4), (adapter("b", seed=2), 0.6)], ["a and b differ"]),
        ([(adapter("a", seed=1), 0.4), (adapter("b", seed=2), 0.0)], ["sum to 0.4"]),
        ([(adapter("a", seed=1), 1.0), (adapter("b", seed=2), 0.0)], []),
        ([], []),
    ],
)
def test_factor_warns_when_it_means_little(weighted: list[tuple[Adapter, float]], told: list[str]) -> None:
    warnings = warnings_of(weighted, "factor")
    assert len(warnings) == len(told)
    assert all(part in warning for part, warning in zip(told, warnings, strict=True))


@pytest.mark.parametrize(
    ("make", "method", "error", "reason"),
    [
        (lambda: [adapter("a"), adapter("b", rank=4, seed=1)], "factor", AdapterError, "rank-mismatch"),
        (lambda: [adapter("a", scaling=-1.0)], "factor", AdapterError, "negative-scaling"),
        (lambda: [adapter("a")], "tise", RecipeError, "unknown-method"),
    ],
)
def test_what_cannot_be_merged_is_refused(
    make: Callable[[], list[Adapter]], method: str, error: type[AdapterError] | type[RecipeError], reason: str
) -> None:
    with pytest.raises(error) as caught:
        merge_modules([(one, 1.0) for one in make()], method)
    assert caught.value.reason == reason


def test_adapters_of_different_layer_shapes_are_refused_by_name() -> None:
    wide = Adapter("wide", "sha256:1", "", {"layers.0.up": Factors(torch.ones(2, 8), torch.ones(13, 2), 1.0)})
    with pytest.raises(AdapterError, match=r"a and wide .*layers\.0\.up.*\(13, 7\) and \(13, 8\)"):
        merge_modules([(adapter("a"), 1.0), (wide, 1.0)])
