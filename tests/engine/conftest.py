"""A store of three picoscopic adapters, an engine over it, and grants."""

from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.policy import Grant, Policy
from soupmix.store import Store

NAMES = ("calm", "loud", "plain")


@pytest.fixture(scope="session")
def pico_store(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, tiny_adapter: Callable[..., Path]) -> Store:
    """Three adapters of rank 4 with different scalings, on all linear layers but the second: q and v only."""
    store = Store(tmp_path_factory.mktemp("store"), create=True)
    for number, name in enumerate(NAMES):
        targets = {"targets": ("q_proj", "v_proj")} if name == "loud" else {}
        folder = tiny_adapter(rank=4, alpha=4 * (number + 1), seed=number, scale=0.3, **targets)
        store.add(folder, name=name, dimension=name, pole=name, base=tiny_base)
    return store


@pytest.fixture(scope="session", params=[True, False], ids=["fused", "plain"])
def engine(request: pytest.FixtureRequest, tiny_base: Base, pico_store: Store) -> Engine:
    return Engine.load(tiny_base, pico_store, fused=request.param)


@pytest.fixture(scope="session")
def plain(tiny_base: Base, pico_store: Store) -> Engine:
    return Engine.load(tiny_base, pico_store, fused=False)


@pytest.fixture(scope="session")
def grant(pico_store: Store) -> Callable[..., Grant]:
    policy = Policy.open(tuple(pico_store))
    return lambda **weights: policy.clamp(weights)
