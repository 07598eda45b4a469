"""Workers end with their parent, however it ends and whatever they are at."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process_groups import alive, group, wait_for

HOSTS = Path(__file__).parent / "hosts.py"
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]


@pytest.fixture(autouse=True)
def _a_hangup_is_heard() -> Iterator[None]:
    """Also where tests run under nohup, which every child of theirs would take over."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("how", ["sleep", "count", "swallow", "begin"])
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_workers_end_within_two_seconds_of_a_signal_to_their_parent(
    how: str, number: signal.Signals, tmp_path: Path
) -> None:
    with group([sys.executable, HOSTS, how, tmp_path]) as host:
        marks = 1 if how == "begin" else 2
        assert wait_for(lambda: len(list(tmp_path.iterdir())) >= marks, 30)
        assert len(alive(host.pid)) >= 3
        host.send_signal(number)
        assert wait_for(lambda: not alive(host.pid), 2), alive(host.pid)


def test_a_terminal_that_interrupts_all_of_them_ends_all_of_them(tmp_path: Path) -> None:
    with group([sys.executable, HOSTS, "sleep", tmp_path]) as host:
        assert wait_for(lambda: len(list(tmp_path.iterdir())) == 2, 30)
        os.killpg(host.pid, signal.SIGINT)
        assert wait_for(lambda: not alive(host.pid), 2), alive(host.pid)
        assert host.communicate()[1].count("Traceback") == 1  # of the host; its workers leave the word to it
