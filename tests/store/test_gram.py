"""Gram matrices from r x r products against dense float64 deltas."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from soupmix.base import Base, cache
from soupmix.base.squares import measured
from soupmix.store import Factors, Store, adding
from soupmix.store.gram import gram_of, inner_product, norm_of, pairs_of, products
from soupmix.store.manifest import Gram


def _factors(rank: int, seed: int, scaling: float, dtype: torch.dtype = torch.float32) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    A, B = torch.randn(rank, 7, generator=generator), torch.randn(5, rank, generator=generator)
    return Factors(A.to(dtype), B.to(dtype), scaling)


def _dense(factors: Factors | None, shape: tuple[int, int] = (5, 7)) -> torch.Tensor:
    if factors is None:
        return torch.zeros(shape, dtype=torch.float64)
    return factors.scaling * (factors.B.double() @ factors.A.double())


_FACTORS = st.builds(
    _factors,
    st.integers(1, 9),
    st.integers(0, 1000),
    st.floats(0.01, 30),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)


def _whole(seed: int, scaling: float, turned: bool) -> Factors:
    """Of a weight that changed as a whole."""
    if turned:
        return replace(_factors(5, seed, scaling), B=torch.eye(5))
    return replace(_factors(7, seed, scaling), A=torch.eye(7))


_ANY = st.one_of(_FACTORS, st.builds(_whole, st.integers(0, 1000), st.floats(0.01, 30), st.booleans()))


def test_whole_weights_of_many_rows_are_summed_in_parts() -> None:
    one, other = (Factors(torch.eye(3), torch.randn(9_000, 3), scaling) for scaling in (0.5, 3.0))
    expected = 1.5 * float((one.B.double() * other.B.double()).sum())
    assert inner_product(one, other) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(_ANY, _ANY)
def test_an_inner_product_is_that_of_the_dense_deltas(one: Factors, other: Factors) -> None:
    deltas = _dense(one), _dense(other)
    scale = float(deltas[0].norm() * deltas[1].norm())
    expected = float((deltas[0] * deltas[1]).sum())
    assert inner_product(one, other) == pytest.approx(expected, rel=1e-12, abs=1e-12 * scale)


def test_a_delta_of_zero_has_no_norm_however_it_is_scaled(tiny_base: Base) -> None:
    empty = Factors(torch.ones(2, 7), torch.zeros(5, 2), 1e300)
    assert norm_of({"up": empty}, tiny_base) == 0.0


CASES: Mapping[str, Mapping[str, Any]] = {
    "zeta": {"rank": 2, "seed": 1},
    "alpha": {"rank": 5, "seed": 2, "rslora": True, "targets": ["q_proj", "up_proj"]},
    "mid": {"rank": 3, "seed": 3, "rank_pattern": {"q_proj": 6}, "dtype": torch.bfloat16},
    "none": {"rank": 2, "seed": 4, "scale": 0.0, "targets": ["down_proj"]},
}


@pytest.fixture(scope="module")
def folders(tiny_adapter: Callable[..., Path]) -> Mapping[str, Path]:
    return {name: tiny_adapter(**case) for name, case in CASES.items()}


def _store(folder: Path, order: Sequence[tuple[str, Path]], base: Base) -> Store:
    store = Store(folder, create=True)
    for name, adapter in order:
        store.add(adapter, name=name, dimension="d", pole=name, base=base, force=True)
    return store


@pytest.fixture(scope="module")
def store(folders: Mapping[str, Path], tiny_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Store:
    adapters = [(name, folders[name]) for name in ("zeta", "alpha", "mid")]
    return Store(_store(tmp_path_factory.mktemp("gram"), adapters, tiny_base).folder)


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


def test_a_manifest_does_not_tell_in_which_order_it_grew(
    folders: Mapping[str, Path], tiny_base: Base, tmp_path: Path
) -> None:
    """What is taken over from the manifest before is what computing everything again would give, byte for byte."""
    orders = list(permutations(folders.items()))[::5]
    made = [_store(tmp_path / str(number), order, tiny_base) for number, order in enumerate(orders)]
    assert len({(store.folder / "manifest.json").read_bytes() for store in made}) == 1


def test_a_replaced_adapter_leaves_nothing_behind(folders: Mapping[str, Path], tiny_base: Base, tmp_path: Path) -> None:
    others = [("zeta", folders["none"]), ("alpha", folders["alpha"]), ("zeta", folders["mid"])]
    replaced = _store(tmp_path / "replaced", others, tiny_base)
    anew = _store(tmp_path / "anew", others[1:], tiny_base)
    assert (replaced.folder / "manifest.json").read_bytes() == (anew.folder / "manifest.json").read_bytes()
    assert not replaced.gram_of("model.layers.0.mlp.down_proj")[0].any()


def test_the_pairs_of_a_manifest_are_all_of_its_numbers(store: Store) -> None:
    manifest = store.manifest
    assert gram_of(manifest.names, manifest.gram.modules, pairs_of(manifest.names, manifest.gram)) == manifest.gram


def test_adding_multiplies_the_new_adapter_with_each_and_reads_the_base_once(
    folders: Mapping[str, Path], tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    multiplied, read = [], []
    base = replace(tiny_base, cache=tmp_path / "cache")
    monkeypatch.setattr(adding, "products", lambda *three: multiplied.append(three) or products(*three))
    monkeypatch.setattr(cache, "measured", lambda folder: read.append(folder) or measured(folder))
    for count, item in enumerate(folders.items(), start=1):
        multiplied.clear()
        _store(tmp_path / "store", [item], base)
        assert len(multiplied) == count
    assert read == [base.folder]


def test_no_adapters_have_an_empty_gram(tmp_path: Path) -> None:
    assert gram_of([], [], {}) == Gram(total=(), modules={})
    assert Store(tmp_path, create=True).gram.shape == (0, 0)
