"""A shop that answers batches: picoscopic engine, a policy that narrows, refuses and obliges."""

from pathlib import Path

import pytest

from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.policy import Policy
from soupmix.store import Store
from tests.support.batch_shop import Shop, policy_text  # a module beside this one


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
