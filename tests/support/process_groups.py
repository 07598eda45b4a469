"""Programs started in a process group of their own, and who of it is still alive."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["alive", "group", "wait_for"]


def alive(leader: int) -> list[str]:
    """Command lines of the processes of a group; one that nobody has buried yet does not count."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            _, _, after = (folder / "stat").read_text().rpartition(")")
            state, _, number = after.split()[:3]
            if int(number) == leader and state not in "ZX":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
    return found


def wait_for(what: Callable[[], object], seconds: float) -> bool:
    """Whether it comes true within that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.02)
    return False


@contextmanager
def group(command: Sequence[object]) -> Iterator["subprocess.Popen[str]"]:
    """A program as the leader of a new group; what is left of it in the end is killed."""
    child = subprocess.Popen(
        [str(each) for each in command], process_group=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, 9)
        child.communicate()
