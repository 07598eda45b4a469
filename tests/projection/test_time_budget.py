import pytest

from soupmix.errors import PolicyRefusal
from soupmix.projection import time_budget as module
from soupmix.projection.time_budget import check_time, time_budget


def test_a_budget_holds_inside_only(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    with time_budget(2.0):
        with time_budget(1.0):
            clock[0] = 1.5
            with pytest.raises(PolicyRefusal):
                check_time()
        check_time()
        clock[0] = 2.5
        with pytest.raises(PolicyRefusal):
            check_time()
    check_time()
