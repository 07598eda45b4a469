"""What the tests of extraction share."""

from collections.abc import Callable

import pytest

from soupmix.base import Base
from tests.support.tuned import Tuned, tuned


@pytest.fixture(scope="session")
def adapter_of(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base) -> Callable[..., Tuned]:
    """An adapter of a method on the tiny base, made once."""
    made: dict[str, Tuned] = {}

    def make(method: str) -> Tuned:
        if method not in made:
            made[method] = tuned(method, tiny_base.folder, tmp_path_factory.mktemp("tuned") / "adapter")
        return made[method]

    return make
