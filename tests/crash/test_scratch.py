"""Temporaries: the living keep theirs, the dead lose theirs, and nobody takes another's."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from soupmix import scratch as room
from soupmix.errors import OutputError
from soupmix.files import new_folder, write_file
from soupmix.scratch import exchange, scratch, sweep


def _ours(_folder: Path) -> bool:
    return True


def _killed_while_writing(target: Path, *, folder: bool) -> None:
    """A child makes a temporary of `target`, fills it and is killed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with scratch(target, folder=folder) as made:
            if folder:
                (made.path / "half").write_bytes(b"half")
            os.write(write, b"x")
            time.sleep(60)
        os._exit(0)
    os.read(read, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("folder", [True, False])
def test_what_the_dead_left_is_swept_by_the_next_writer_of_the_same_target(tmp_path: Path, folder: bool) -> None:
    _killed_while_writing(tmp_path / "a", folder=folder)
    assert len(_names(tmp_path)) == 1
    write_file(tmp_path / "b", b"another target")
    assert len(_names(tmp_path)) == 2
    write_file(tmp_path / "a", b"the same")
    assert _names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("folder", [True, False])
def test_what_the_living_hold_is_left_alone(tmp_path: Path, folder: bool) -> None:
    with scratch(tmp_path / "a", folder=folder) as held:
        sweep(tmp_path, "a")
        sweep(tmp_path)
        assert held.path.exists()
    assert _names(tmp_path) == []


@pytest.mark.parametrize("name", ["a", "a-b", "a-12345678", "[a]*", "é", ".", "x" * 255])
def test_no_target_takes_another_s_temporaries(tmp_path: Path, name: str) -> None:
    """ "a" once matched the temporaries of "a-b"; "[a]*" was once a pattern."""
    others = [other for other in ("a", "a-b", "a-b-c", "[a]*", "aa") if other != name]
    for other in others:
        _killed_while_writing(tmp_path / other, folder=True)
    sweep(tmp_path, name)
    assert len(_names(tmp_path)) == len(others)
    sweep(tmp_path)
    assert _names(tmp_path) == []


def test_a_folder_that_was_set_aside_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the two renames, where names cannot be exchanged."""
    monkeypatch.setattr(room, "_renameat2", None)
    with new_folder(tmp_path / "a") as made:
        (made / "x").write_bytes(b"old")
    child = os.fork()
    if child == 0:
        rename = Path.rename

        def kill_at_the_second(self: Path, target: Path) -> Path:
            if target == tmp_path / "a":
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(self, target)

        Path.rename = kill_at_the_second  # type: ignore[method-assign, assignment]
        with new_folder(tmp_path / "a", force=True, own=_ours) as made:
            (made / "x").write_bytes(b"new")
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert not (tmp_path / "a").exists()
    with pytest.raises(OutputError, match="exists already"), new_folder(tmp_path / "a"):
        pass
    assert (tmp_path / "a" / "x").read_bytes() == b"old"
    assert _names(tmp_path) == ["a"]


def test_a_reader_never_misses_a_folder_that_is_replaced(tmp_path: Path) -> None:
    if not exchange(_made(tmp_path / "one"), _made(tmp_path / "two")):
        pytest.skip("names cannot be exchanged here")
    target, stop, missed = _made(tmp_path / "target"), threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            try:
                (target / "x").read_bytes()
            except FileNotFoundError as error:
                missed.append(error)

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(200):
        with new_folder(target, force=True, own=_ours) as made:
            (made / "x").write_bytes(bytes([number]))
    stop.set()
    reader.join()
    assert missed == []
    assert (target / "x").read_bytes() == bytes([199])


def _made(folder: Path) -> Path:
    folder.mkdir()
    (folder / "x").write_bytes(b"x")
    return folder


def test_writers_of_one_target_do_not_disturb_each_other(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    _made(tmp_path / "folder")

    def write(number: int) -> None:
        try:
            for turn in range(30):
                write_file(tmp_path / "file", bytes([number]) * 100)
                with new_folder(tmp_path / "folder", force=True, own=_ours) as made:
                    (made / "x").write_bytes(bytes([number, turn]))
                    (made / "y").write_bytes(bytes([number, turn]))
        except BaseException as error:  # noqa: BLE001  # told to the test
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert _names(tmp_path) == ["file", "folder"]
    assert len(set((tmp_path / "file").read_bytes())) == 1
    assert (tmp_path / "folder" / "x").read_bytes() == (tmp_path / "folder" / "y").read_bytes()


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_force_replaces_neither_a_name_that_is_no_folder_nor_what_it_leads_to(tmp_path: Path, kind: str) -> None:
    target, elsewhere = tmp_path / "out", _made(tmp_path / "elsewhere")
    if kind == "file":
        target.write_text("precious?")
    else:
        target.symlink_to(elsewhere if kind == "link" else tmp_path / "nowhere")
    with pytest.raises(OutputError) as caught, new_folder(target, force=True, own=_ours) as made:
        (made / "x").write_bytes(b"new")
    assert caught.value.reason == "not-ours"
    assert target.is_symlink() or target.read_text() == "precious?"
    assert (elsewhere / "x").read_bytes() == b"x"
    assert _names(tmp_path) == ["elsewhere", "out"]


def test_what_comes_meanwhile_is_not_replaced_either(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(OutputError) as caught, new_folder(target, force=True):
        _made(target)
    assert caught.value.reason == "not-ours"
    with pytest.raises(OutputError) as caught:
        write_file(target, b"new")
    assert caught.value.reason == "not-ours"
    assert (target / "x").read_bytes() == b"x"
    assert _names(tmp_path) == ["out"]
