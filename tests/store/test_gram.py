"""Gram matrices from r x r products against dense float64 deltas."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from soupmix.base import Base
from soupmix.store import Factors, Store
from soupmix.store.gram import gram_of_module, grams


def _factors(rank: int, seed: int, scaling: float, dtype: torch.dtype = torch.float32) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    A, B = torch.randn(rank, 7, generator=generator), torch.randn(5, rank, generator=generator)
    return Factors(A.to(dtype), B.to(dtype), scaling)


def _dense(factors: Factors | None, shape: tuple[int, int] = (5, 7)) -> torch.Tensor:
    if factors is None:
        return torch.zeros(shape, dtype=torch.float64)
    return factors.scaling * (factors.B.double() @ factors.A.double())


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.none()
        | st.builds(
            _factors,
            st.integers(1, 9),
            st.integers(0, 1000),
            st.floats(0.01, 30),
            st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
        ),
        max_size=5,
    )
)
def test_a_module_s_gram_is_the_inner_products_of_its_deltas(factors: list[Factors | None]) -> None:
    deltas = [_dense(item) for item in factors]
    expected = torch.tensor([[float((a * b).sum()) for b in deltas] for a in deltas], dtype=torch.float64)
    gram = gram_of_module(factors)
    scale = max([1.0, *(float(delta.square().sum()) for delta in deltas)])
    torch.testing.assert_close(gram, expected.reshape(gram.shape), rtol=1e-12, atol=1e-12 * scale)
    assert torch.equal(gram, gram.T)


@pytest.fixture(scope="module")
def store(tiny_base: Base, tiny_adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("gram"), create=True)
    cases = {
        "zeta": {"rank": 2, "seed": 1},
        "alpha": {"rank": 5, "seed": 2, "rslora": True, "targets": ["q_proj", "up_proj"]},
        "mid": {"rank": 3, "seed": 3, "rank_pattern": {"q_proj": 6}, "dtype": torch.bfloat16},
    }
    for name, case in cases.items():
        store.add(tiny_adapter(**case), name=name, dimension="d", pole=name, base=tiny_base)
    return Store(store.folder)


def _dense_gram(adapters: list[Mapping[str, Factors]], module: str) -> np.ndarray:
    present = next(adapter[module] for adapter in adapters if module in adapter)
    shape = (present.B.shape[0], present.A.shape[1])
    rows = torch.stack([_dense(adapter.get(module), shape).flatten() for adapter in adapters])
    return (rows @ rows.T).numpy()


def test_a_store_s_grams_are_in_the_order_of_its_names(store: Store) -> None:
    assert store.names == ("alpha", "mid", "zeta")
    adapters = [store.load(name).modules for name in store.names]
    modules = {module for adapter in adapters for module in adapter}
    total = sum(_dense_gram(adapters, module) for module in modules)
    np.testing.assert_allclose(store.gram, total, rtol=1e-9, atol=1e-9)
    for module in modules:
        np.testing.assert_allclose(store.gram_of(module), _dense_gram(adapters, module), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(np.sqrt(np.diag(store.gram)), [entry.delta_norm for entry in store], rtol=1e-9)
    assert not store.gram_of("model.layers.9.q_proj").any()


def test_the_gram_gives_the_norm_of_any_merge(store: Store) -> None:
    weights = np.array([0.5, -1.0, 0.3])
    squares = 0.0
    adapters = [store.load(name).modules for name in store.names]
    for module in {module for adapter in adapters for module in adapter}:
        shape = next((a[module].B.shape[0], a[module].A.shape[1]) for a in adapters if module in a)
        merged = sum(float(w) * _dense(a.get(module), shape) for w, a in zip(weights, adapters, strict=True))
        squares += float(merged.square().sum())
    assert np.isclose(weights @ store.gram @ weights, squares, rtol=1e-8)


def test_no_adapters_have_an_empty_gram(tmp_path: Path) -> None:
    assert grams([]).total == ()
    assert Store(tmp_path, create=True).gram.shape == (0, 0)
