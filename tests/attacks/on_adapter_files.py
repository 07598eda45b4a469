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


def _with(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.") and None


def _instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).rename(folder.parent / "moved")
        make(folder / name)

    return spoil


def _link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "moved")


def _linked_folder(folder: Path) -> Path:
    (folder.parent / "link").symlink_to(folder)
    return folder.parent / "link"


def _linked_card(folder: Path) -> None:
    (folder / "README.md").symlink_to("/etc/passwd")


def _dangling(folder: Path) -> None:
    (folder / "notes.txt").symlink_to(folder / "nowhere")


def _socket(path: Path) -> None:
    os.chdir(path.parent)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)


def _large(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, size)


def _gone(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


ATTACKS = (
    _attack("pickle-beside", "code that another loader would run", "pickle", _with("adapter_model.bin")),
    _attack("pickle-shouting", "a pickle past a check for lower case", "pickle", _with("training_args.PT")),
    _attack("pickle-joblib", "a pickle under a less known suffix", "pickle", _with("scaler.joblib")),
    _attack("linked-tensors", "read a file elsewhere as tensors", "symlink", _instead(TENSORS, _link)),
    _attack("linked-config", "read a file elsewhere as a config", "symlink", _instead(CONFIG, _link)),
    _attack("linked-card", "copy /etc/passwd into the store as a card", "symlink", _linked_card),
    _attack("linked-folder", "swap the whole folder by moving a link", "symlink", _linked_folder),
    _attack("dangling-link", "a link that is pointed somewhere later", "symlink", _dangling),
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
