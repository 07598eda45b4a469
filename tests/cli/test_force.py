"""Every command that replaces with --force, at every kind of thing that it must not replace: refused, and nothing is touched."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from soupmix.base import Base
from soupmix.store import Store

Run = Callable[..., tuple[int, str, str]]
Command = Callable[[Path], tuple[object, ...]]


def _snapshot(root: Path) -> dict[str, Any]:
    """What is where, without following a link, and what it is."""
    found: dict[str, Any] = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder) / name
            state = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
            found[str(path)] = (state.st_ino, state.st_mode, content)
    return found


@pytest.fixture
def commands(pico_store: Store, tiny_base: Base, place: Path) -> dict[str, Command]:
    """Command lines that write to a place and may replace what is there."""
    report, lines = place / "report.txt", place / "lines.jsonl"
    report.write_text("evaluated")
    lines.write_text('{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n')
    store, base = place / "store", tiny_base.folder
    approved = ("--combination", "calm+loud", "--report", report, "--until", "2099-01-01", "--issuer", "us")
    return {
        "merge": lambda out: ("merge", "--store", store, "-w", "calm=0.5", out, "--force"),
        "merge --as model": lambda out: (
            *("merge", "--store", store, "-w", "calm=0.5", "--as", "model", "--base", base, out, "--force"),
        ),
        "approve": lambda out: ("approve", out, "--store", store, *approved, "--accept", "large", "--force"),
        "batch": lambda out: ("batch", lines, out, "--store", store, "--base", base, "--force"),
    }


@pytest.fixture
def place(tmp_path: Path, pico_store: Store, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with a copy of a store that is read."""
    import shutil

    shutil.copytree(pico_store.folder, tmp_path / "place" / "store")
    (tmp_path / "place" / "here").mkdir()
    monkeypatch.chdir(tmp_path / "place" / "here")
    return tmp_path / "place"


def _folder(place: Path) -> Path:
    (place / "photos").mkdir()
    (place / "photos" / "one.jpg").write_bytes(b"x")
    return place / "photos"


def _link(place: Path, to: Path) -> Path:
    (place / "link.jsonl").symlink_to(to)
    return place / "link.jsonl"


def _fifo(place: Path) -> Path:
    os.mkfifo(place / "fifo.jsonl")
    return place / "fifo.jsonl"


def _socket(place: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("../s.jsonl")  # such a name must be short
    return place / "s.jsonl"


def _device(place: Path) -> Path:
    try:
        os.mknod(place / "full.jsonl", 0o600 | 0o020000, os.makedev(1, 7))
    except PermissionError:
        pytest.skip("only root can make a device")
    return place / "full.jsonl"


def _file(place: Path) -> Path:
    (place / "letter.jsonl").write_bytes(b"dear all")
    return place / "letter.jsonl"


def _disguised(place: Path) -> Path:
    """A record of soupmix among files that it does not list."""
    folder = _folder(place)
    (folder / "soupmix_digests.json").write_text('{"inputs": {}, "outputs": {}}')
    return folder


TARGETS: dict[str, Callable[[Path], Path]] = {
    "a folder of somebody's": _folder,
    "a folder with a record that lists other files": _disguised,
    "the store": lambda place: place / "store",
    "the store, spelled otherwise": lambda place: place / "here" / ".." / "store" / ".",
    "a part of the store": lambda place: place / "store" / "blobs",
    "a file of the store": lambda place: place / "store" / "manifest.json",
    "where one stands": lambda place: Path(),
    "where one stands, by name": lambda place: place / "here",
    "above where one stands": lambda place: Path(".."),
    "a FIFO": _fifo,
    "a socket": _socket,
    "a device": _device,
    "a link to a folder": lambda place: _link(place, _folder(place)),
    "a link to a file": lambda place: _link(place, _file(place)),
    "a link to nothing": lambda place: _link(place, place / "nothing"),
    "a file": _file,
}
FILES = {"approve", "batch"}  # write one file, so that they may replace one


@pytest.mark.parametrize("command", ["merge", "merge --as model", "approve", "batch"])
@pytest.mark.parametrize("target", TARGETS)
def test_force_replaces_nothing_that_is_not_ours(
    run: Run, commands: dict[str, Command], place: Path, command: str, target: str
) -> None:
    out = TARGETS[target](place)
    if target == "a file" and command in FILES:
        pytest.skip("that is what --force is for")
    before = _snapshot(place.parent)
    code, shown, said = run(*commands[command](out))
    assert _snapshot(place.parent) == before
    assert code == 1, said
    assert said.splitlines()[-1].startswith("soupmix: ")
    assert "Traceback" not in said
    assert shown == ""


def test_force_replaces_its_own_result_and_an_empty_folder(run: Run, commands: dict[str, Command], place: Path) -> None:
    out = place / "out"
    out.mkdir()
    for command in ("merge", "merge", "merge --as model", "merge --as model", "merge"):
        assert run(*commands[command](out))[0] == 0
    (out / "mine.txt").write_text("keep me")
    before = _snapshot(place.parent)
    assert run(*commands["merge"](out))[0] == 1
    assert _snapshot(place.parent) == before


def test_a_result_is_not_replaced_by_what_is_made_of_its_own_recipe(
    run: Run, commands: dict[str, Command], place: Path
) -> None:
    out = place / "out"
    assert run(*commands["merge"](out))[0] == 0
    before = _snapshot(place.parent)
    code, _, said = run("merge", out / "soupmix_recipe.yaml", out, "--force")
    assert code == 1
    assert "which is read" in said
    assert _snapshot(place.parent) == before


def test_force_replaces_a_file(run: Run, commands: dict[str, Command], place: Path) -> None:
    out = place / "letter.yaml"
    out.write_text("dear all")
    code, _, said = run(*commands["approve"](out))
    assert code == 0, said
    assert out.read_text() != "dear all"
