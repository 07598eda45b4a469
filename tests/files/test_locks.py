"""Whoever holds a file or a folder makes others wait, and lets go of it however it ends."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Thread

import pytest

from soupmix.locks import lock, locked, locked_folder

_HOLDER = "import os, sys, time; from soupmix.locks import lock; lock(os.open(sys.argv[1], os.O_RDONLY)); print(); time.sleep(60)"
Holding = Callable[[Path], AbstractContextManager[None]]


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY)


def _free(path: Path) -> bool:
    handle = _opened(path)
    try:
        return lock(handle, wait=False)
    finally:
        os.close(handle)


@pytest.fixture(params=["file", "folder"])
def holding(request: pytest.FixtureRequest) -> Holding:
    return locked_folder if request.param == "folder" else lambda path: locked(_opened(path))


def test_others_wait_until_it_is_free_again(tmp_path: Path, holding: Holding) -> None:
    order = []

    def other() -> None:
        with holding(tmp_path):
            order.append("other")

    thread = Thread(target=other)
    with holding(tmp_path):
        assert not _free(tmp_path)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]
    assert _free(tmp_path)


def test_a_failure_inside_lets_go(tmp_path: Path, holding: Holding) -> None:
    with pytest.raises(ZeroDivisionError), holding(tmp_path):
        raise ZeroDivisionError
    assert _free(tmp_path)


def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert not _free(tmp_path)
        process.kill()
        process.wait()
    assert _free(tmp_path)


def test_a_folder_that_is_none_is_not_held(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "missing"):
        with pytest.raises(OSError, match=name), locked_folder(tmp_path / name):
            pass
