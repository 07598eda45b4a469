"""Programs that start workers which never finish by themselves; run as `python hosts.py HOW FOLDER`."""

import hashlib
import sys
import time
from functools import partial
from pathlib import Path

from soupmix.children import workers


def slowly(folder: Path) -> None:
    """Begin as slowly as a process that must load torch."""
    (folder / "beginning").touch()
    time.sleep(60)


def at_once() -> None:
    """Begin."""


def sleep(mark: Path) -> None:
    mark.touch()
    time.sleep(60)


def count(mark: Path) -> None:
    mark.touch()
    while True:
        hashlib.sha256(bytes(10_000)).digest()


def swallow(mark: Path) -> None:
    """Go on whatever is raised."""
    mark.touch()
    while True:
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001
            continue


if __name__ == "__main__":
    how, folder = sys.argv[1], Path(sys.argv[2])
    begin = partial(slowly, folder) if how == "begin" else at_once
    work = {"begin": sleep, "sleep": sleep, "count": count, "swallow": swallow}[how]
    with workers(2, begin) as pool:
        waiting = [pool.submit(work, folder / f"working-{number}") for number in range(6)]
        for future in waiting:
            future.result()
