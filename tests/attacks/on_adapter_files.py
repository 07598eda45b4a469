"""Attacks on the files of an adapter folder themselves."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

from soupmix.errors import AdapterError
from soupmix.store import read_adapter
from tests.attacks.attack import Attack
from tests.support.adapter_folder import CONFIG, SHAPES, TENSORS, adapter

__all__ = ["ATTACKS"]


def _attack(name: str, tries: str, reason: str, spoil: Callable[[Path], object]) -> Attack:
    def run(where: Path) -> None:
        folder = adapter(where / "adapter")
        read_adapter(spoil(folder) or folder, SHAPES)  # type: ignore[arg-type]

    return Attack(name, tries, run, AdapterError, reason)


def _instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).rename(folder.parent / "moved")
        make(folder / name)

    return spoil


def _link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "moved")


def _into_hub(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """The link of a hub's cache, with something else behind it."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        (folder.parent / "blobs").mkdir()
        (folder / name).symlink_to("../blobs/abc")
        make(folder.parent / "blobs" / "abc")

    return spoil


def _hub_elsewhere(folder: Path) -> None:
    """The blobs of the hub's cache are a link themselves."""
    (folder / CONFIG).unlink()
    (folder.parent / "blobs").symlink_to("/etc")
    (folder / CONFIG).symlink_to("../blobs/passwd")


def _to(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


def _pickle_alone(folder: Path) -> None:
    (folder / TENSORS).unlink()
    (folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")


def _socket(path: Path) -> None:
    os.chdir(path.parent)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)


def _large(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, size)


def _gone(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


ATTACKS = (
    _attack("pickle-alone", "code that runs when it is read", "pickle", _pickle_alone),
    _attack("linked-tensors", "read a file elsewhere as tensors", "symlink", _instead(TENSORS, _link)),
    _attack("linked-config", "read a file elsewhere as a config", "symlink", _instead(CONFIG, _link)),
    _attack("linked-config-to-device", "read for ever", "symlink", _instead(CONFIG, _to("/dev/zero"))),
    _attack("hub-link-to-passwd", "read /etc/passwd as a config", "symlink", _into_hub(CONFIG, _to("/etc/passwd"))),
    _attack("hub-link-to-fifo", "wait for a writer for ever", "not-a-file", _into_hub(TENSORS, os.mkfifo)),
    _attack("hub-link-to-folder", "an error nobody thought of", "not-a-file", _into_hub(TENSORS, Path.mkdir)),
    _attack("hub-link-to-device", "read for ever", "symlink", _into_hub(TENSORS, _to("/dev/zero"))),
    _attack("hub-link-to-nothing", "an error nobody thought of", "missing", _into_hub(CONFIG, lambda path: None)),
    _attack("hub-blobs-elsewhere", "read /etc/passwd by a cache that is a link", "symlink", _hub_elsewhere),
    _attack(
        "hub-link-upwards", "climb out of the cache", "symlink", _instead(CONFIG, _to("../blobs/../../etc/passwd"))
    ),
    _attack("fifo-tensors", "wait for a writer for ever", "not-a-file", _instead(TENSORS, os.mkfifo)),
    _attack("fifo-config", "wait for a writer for ever", "not-a-file", _instead(CONFIG, os.mkfifo)),
    _attack("folder-as-tensors", "an error nobody thought of", "not-a-file", _instead(TENSORS, Path.mkdir)),
    _attack("folder-as-config", "an error nobody thought of", "not-a-file", _instead(CONFIG, Path.mkdir)),
    _attack("socket-as-tensors", "an error nobody thought of", "unreadable", _instead(TENSORS, _socket)),
    _attack("no-tensors", "an adapter without weights", "missing", _gone(TENSORS)),
    _attack("no-config", "tensors without their scaling", "missing", _gone(CONFIG)),
    _attack("file-as-folder", "a file where a folder belongs", "missing", lambda folder: folder / CONFIG),
    _attack("config-of-ten-megabytes", "parse ten megabytes of JSON", "too-large", _large(CONFIG, 10 << 20)),
    _attack(
        "tensors-of-four-gigabytes", "fill the memory from a sparse file", "too-large", _large(TENSORS, (4 << 30) + 1)
    ),
)
