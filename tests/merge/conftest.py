"""Stores on disk, grants and soups, for the tests of merging."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from soupmix.base import Base
from soupmix.merge import Soup, merge
from soupmix.policy import Grant, Policy
from soupmix.store.store import Store


@pytest.fixture
def make_store(tmp_path: Path, tiny_base: Base) -> Callable[..., Store]:
    """Folders by name -> a store; every adapter is a dimension of its own, so that [0, 1] is the only bound."""

    def make(folders: Mapping[str, Path], base: Base = tiny_base, where: str = "store") -> Store:
        store = Store(tmp_path / where, create=True)
        for name, folder in folders.items():
            store.add(folder, dimension=f"d-{name}", pole=name, base=base, licence="apache-2.0")
        return store

    return make


@pytest.fixture
def grant() -> Callable[..., Grant]:
    """Weights granted exactly as asked, or the test is wrong."""

    def make(store: Store, **weights: float) -> Grant:
        found = Policy.open(store).clamp(weights)
        assert not found.clamped
        return found

    return make


@pytest.fixture(scope="session")
def folders(tiny_adapter: Callable[..., Path]) -> Mapping[str, Path]:
    """Three plain adapters of different ranks, alphas and target modules."""
    return {
        "friendly": tiny_adapter(rank=4, alpha=8, seed=1),
        "concise": tiny_adapter(rank=6, alpha=3, seed=2, targets=["q_proj", "down_proj"]),
        "expert": tiny_adapter(rank=2, alpha=5, seed=3, targets=["up_proj", "down_proj", "v_proj"]),
    }


@pytest.fixture(scope="session")
def patterned(tiny_adapter: Callable[..., Path]) -> Mapping[str, Path]:
    """rsLoRA, rank_pattern, alpha_pattern: what PEFT's own merge gets wrong."""
    return {
        "friendly": tiny_adapter(rank=4, alpha=6, seed=4, rslora=True),
        "concise": tiny_adapter(rank=3, alpha=4, seed=5, rank_pattern={"layers.0.mlp.up_proj": 7, "k_proj": 1}),
        "expert": tiny_adapter(
            rank=2, alpha=5, seed=6, rslora=True, alpha_pattern={"down_proj": 9.0}, rank_pattern={"down_proj": 5}
        ),
    }


@pytest.fixture
def three(make_store: Callable[..., Store], folders: Mapping[str, Path]) -> Store:
    return make_store(folders)


@pytest.fixture
def soup(three: Store, grant: Callable[..., Grant]) -> Soup:
    return merge(three, grant(three, friendly=0.5, concise=0.9, expert=0.25))
