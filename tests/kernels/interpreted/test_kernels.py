"""Every case of the battery, under the interpreter."""

from collections.abc import Callable

import pytest

from tests.support import battery

CASES = dict(battery.cases())


@pytest.mark.parametrize("check", CASES.values(), ids=CASES.keys())
def test_kernel(check: Callable[[], None]) -> None:
    check()
