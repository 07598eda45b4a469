"""Every case of the battery, under the interpreter."""

from collections.abc import Callable

import battery
import pytest

CASES = dict(battery.cases())


@pytest.mark.parametrize("check", CASES.values(), ids=CASES.keys())
def test_kernel(check: Callable[[], None]) -> None:
    check()
