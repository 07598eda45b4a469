"""Files that are exchanged, written over and cut short while they are checked and loaded."""

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from soupmix.errors import AdapterError
from soupmix.store import Adapter, Store
from tests.attacks.on_stores import store
from tests.support.adapter_folder import CONFIG, TENSORS, adapter, encode, item, sound

LOADS = 200


def _renaming(path: Path, contents: tuple[bytes, bytes]) -> None:
    for content in contents:
        path.with_suffix(".new").write_bytes(content)
        path.with_suffix(".new").replace(path)


def _writing(path: Path, contents: tuple[bytes, bytes]) -> None:
    for content in contents:
        with path.open("r+b") as file:
            for start in range(0, len(content), 512):
                file.write(content[start : start + 512])
                file.flush()


def _cutting(path: Path, contents: tuple[bytes, bytes]) -> None:
    os.truncate(path, len(contents[0]) // 2)
    path.write_bytes(contents[1])


def _linking(path: Path, contents: tuple[bytes, bytes]) -> None:
    path.with_suffix(".new").symlink_to("/etc/passwd")
    path.with_suffix(".new").replace(path)
    _renaming(path, contents)


@contextmanager
def _attacker(attack: Callable[[], None]) -> Iterator[list[int]]:
    stop, turns = threading.Event(), [0]

    def run() -> None:
        while not stop.is_set():
            attack()
            turns[0] += 1
            time.sleep(0.002)  # so that both outcomes come about

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield turns
    finally:
        stop.set()
        thread.join()


def _same(one: Adapter, other: Adapter) -> bool:
    return one.digest == other.digest and all(
        torch.equal(factors.A, other.modules[module].A) and torch.equal(factors.B, other.modules[module].B)
        for module, factors in one.modules.items()
    )


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
@pytest.mark.parametrize("attack", [_renaming, _writing, _cutting, _linking])
def test_what_is_loaded_is_what_was_approved(
    tmp_path: Path, name: str, attack: Callable[[Path, tuple[bytes, bytes]], None]
) -> None:
    folder = store(tmp_path)
    opened = Store(folder)
    approved = opened.load("expert", opened["expert"].digest)
    path = opened.path("expert") / name
    evil = adapter(
        tmp_path / "evil",
        tensors=encode({key: item(shape, 9.0) for key, (_, shape, _) in sound().items()}),
        lora_alpha=9,
    )
    contents = ((evil / name).read_bytes(), path.read_bytes())
    loaded, refused = 0, set()
    with _attacker(lambda: attack(path, contents)) as turns:
        deadline = time.monotonic() + 20
        for number in itertools.count():
            if (number >= LOADS and loaded and refused) or time.monotonic() > deadline:
                break
            try:
                assert _same(Store(folder).load("expert", approved.digest), approved)
                loaded += 1
            except AdapterError as error:
                refused.add(error.reason)
    assert turns[0] > 10
    assert loaded
    assert refused
    assert refused <= {"digest-mismatch", "missing", "symlink", "unreadable"}
