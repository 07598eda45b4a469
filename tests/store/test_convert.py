"""Pickled adapters become safetensors in a process that can open no file and no socket; what would run code does not."""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from soupmix.cli import cli
from soupmix.errors import AdapterError, OutputError
from soupmix.store import read_adapter, unpickling
from soupmix.store.convert import convert_pickle

CONFIG, TENSORS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"


@pytest.fixture
def pickled(handmade: Callable[..., Path]) -> Path:
    folder = handmade()
    torch.save(load_file(folder / TENSORS), folder / PICKLED)
    (folder / TENSORS).rename(folder.parent / "kept.safetensors")
    return folder


def test_what_is_converted_holds_the_same_values(pickled: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="soupmix adapters convert"):
        read_adapter(pickled)
    (pickled / "README.md").write_text("hello")
    done = CliRunner().invoke(cli, ["adapters", "convert", str(pickled), str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["README.md", CONFIG, TENSORS]
    ours, theirs = load_file(tmp_path / "new" / TENSORS), load_file(tmp_path / "kept.safetensors")
    assert sorted(ours) == sorted(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert read_adapter(tmp_path / "new")
    with pytest.raises(OutputError, match="exists"):
        convert_pickle(pickled / PICKLED, tmp_path / "new")


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("content", ["evil", "nested"])
def test_a_pickle_of_anything_else_is_refused_and_nothing_runs(pickled: Path, tmp_path: Path, content: str) -> None:
    marker = tmp_path / "was-here"
    path = pickled / PICKLED
    if content == "evil":
        path.write_bytes(pickle.dumps({"a": _Evil(marker)}))
    else:
        torch.save({"state_dict": {"a": torch.ones(1)}}, path)
    with pytest.raises(AdapterError) as caught:
        convert_pickle(pickled, tmp_path / "new")
    assert caught.value.reason == "not-converted"
    assert str(caught.value).isprintable()
    assert not marker.exists()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../../elsewhere"])
def test_a_link_to_a_pickle_elsewhere_is_not_followed(pickled: Path, tmp_path: Path, name: str) -> None:
    shutil.rmtree(pickled)
    pickled.mkdir()
    (pickled / PICKLED).symlink_to(name)
    with pytest.raises(AdapterError) as caught:
        convert_pickle(pickled, tmp_path / "new")
    assert caught.value.reason == "symlink"


CAGED = """
import os, socket, subprocess, sys
from soupmix.store import unpickling
unpickling._shut(10)
found = []
for what in (lambda: open("/etc/passwd"), lambda: open("new", "w"), lambda: socket.socket(), lambda: os.pipe(),
             lambda: subprocess.run(["/bin/true"], check=True),
             lambda: os.write(int(sys.argv[1]), b"x"), lambda: bytearray(unpickling.room(10))):
    try:
        what()
        found.append("done")
    except (OSError, MemoryError):
        found.append("refused")
print(found, flush=True)
os.execv("/bin/sh", ["sh", "-c", "echo ran"])
"""


def test_whoever_gets_round_torch_is_where_nothing_can_be_done(tmp_path: Path) -> None:
    (tmp_path / "open").touch()
    with (tmp_path / "open").open("wb") as file:  # a file that is open already can still not be written to
        done = subprocess.run(
            [sys.executable, "-c", CAGED, str(file.fileno())],
            pass_fds=(file.fileno(),),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    # What exec puts in its place can open no library either, so it never starts.
    assert done.stdout.strip() == str(["refused"] * 7), done.stdout + done.stderr
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "open").read_bytes() == b""


def test_a_pickle_that_takes_too_long_is_ended(pickled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soupmix.store.convert._SECONDS", 0.05)
    with pytest.raises(AdapterError, match="too much time") as caught:
        convert_pickle(pickled, tmp_path / "new")
    assert caught.value.reason == "not-converted"


def test_the_room_is_for_what_a_pickle_holds() -> None:
    assert unpickling.room(1 << 30) - unpickling.room(0) == 4 << 30
