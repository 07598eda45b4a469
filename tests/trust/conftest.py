"""Signed sets to read, and to attack."""

from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.trust import RoleKeys
from tests.support.signed_sets import Shop, new_keys


@pytest.fixture(name="new_keys")
def new_keys_fixture() -> Callable[[], RoleKeys]:
    return new_keys


@pytest.fixture
def make_shop(tmp_path: Path) -> Callable[[str], Shop]:
    return lambda name: Shop(tmp_path / name).create()


@pytest.fixture
def shop(make_shop: Callable[[str], Shop]) -> Shop:
    """A set of version 2 with one document."""
    made = make_shop("law")
    made.publish(made.files)
    return made
