"""A shop that answers batches: picoscopic engine, a policy that narrows, refuses and obliges."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.policy import Policy
from soupmix.store import Store

sys.path.insert(0, str(Path(__file__).parent))

from batch_shop import Shop, policy_text  # a module beside this one

NAMES = ("calm", "loud", "plain")


@pytest.fixture(scope="session")
def pico_store(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, tiny_adapter: Callable[..., Path]) -> Store:
    store = Store(tmp_path_factory.mktemp("store"), create=True)
    for number, name in enumerate(NAMES):
        folder = tiny_adapter(rank=4, alpha=4 * (number + 1), seed=number, scale=0.3)
        store.add(folder, name=name, dimension=name, pole=name, base=tiny_base)
    return store


@pytest.fixture(scope="session")
def policy_file(tmp_path_factory: pytest.TempPathFactory, pico_store: Store) -> Path:
    """calm at most 0.5; loud is refused to minors; disclose that answers are personalised."""
    path = tmp_path_factory.mktemp("policy") / "acme.yaml"
    path.write_text(policy_text(pico_store))
    return path


@pytest.fixture(scope="session")
def shop(tiny_base: Base, pico_store: Store, policy_file: Path) -> Shop:
    policy = Policy.load(policy_file, adapters=pico_store)
    return Shop(Engine.load(tiny_base, pico_store, policy=policy), policy)
