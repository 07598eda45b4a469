"""Pickled adapters become safetensors in a process that can only compute; what would run code does not."""

import io
import os
import pickle
import re
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
from soupmix.store import read_adapter, syscalls, unpickling
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
    (pickled / "README.md").write_bytes(b"x" * ((1 << 20) + 1))
    done = CliRunner().invoke(cli, ["adapters", "convert", str(pickled), str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    assert "note: README.md is left out" in done.stderr
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [CONFIG, TENSORS]
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


@pytest.mark.parametrize("content", ["evil", "escapes"])
def test_a_pickle_of_anything_else_is_refused_and_nothing_runs(pickled: Path, tmp_path: Path, content: str) -> None:
    marker = tmp_path / "was-here"
    path = pickled / PICKLED
    if content == "evil":
        path.write_bytes(pickle.dumps({"a": _Evil(marker)}))
    else:
        path.write_bytes(b"\x80\x02cevil\x1b[2J\nname\x1b]0;title\x07\n.")
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
import os, signal, socket, subprocess, sys, threading
from soupmix.store import unpickling
began, shut, found = threading.Event(), threading.Event(), {}
me, parent, writable = os.getpid(), os.getppid(), int(sys.argv[1])
TRIES = {
    "open": lambda: open("/etc/passwd"), "create": lambda: open("new", "w"), "socket": lambda: socket.socket(),
    "pipe": lambda: os.pipe(), "start": lambda: subprocess.run(["/bin/true"], check=True),
    "exec": lambda: os.execv("/bin/sh", ["sh", "-c", "echo ran"]), "fork": lambda: os.fork() or os._exit(0),
    "thread": lambda: threading.Thread(target=print).start(), "write": lambda: os.write(writable, b"x"),
    "memory": lambda: bytearray(unpickling.room(10)), "unlink": lambda: os.unlink("open"), "mkdir": lambda: os.mkdir("new"),
    "rename": lambda: os.rename("open", "new"), "link": lambda: os.symlink("open", "new"), "chmod": lambda: os.chmod("open", 0),
    "list": lambda: os.listdir("."), "stat": lambda: os.stat("open"), "kill parent": lambda: os.kill(parent, 0),
    "kill": lambda: os.kill(me, 0), "nice": lambda: os.nice(0), "duplicate": lambda: os.dup(0),
    "truncate": lambda: os.ftruncate(writable, 0), "utime": lambda: os.utime("open"),
    "limits": lambda: __import__("resource").setrlimit(7, (9, 9)),
}
def tried(kind):
    for name, what in TRIES.items():
        try:
            what()
            found[f"{name} in {kind}"] = "done"
        except (OSError, MemoryError, RuntimeError, ValueError):
            pass
def other():
    began.set()
    shut.wait()
    tried("a thread that was there")
thread = threading.Thread(target=other)
thread.start()
began.wait()
print(unpickling._shut(10))
tried("the main thread")
shut.set()
thread.join()
print(sorted(found), flush=True)
os._exit(0)
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
    assert done.stdout.split("\n") == ["True", "[]", ""], done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["open"]
    assert (tmp_path / "open").read_bytes() == b""


def test_the_filter_has_the_numbers_of_this_machine() -> None:
    """By the kernel's own headers, where they are installed: names in ours, numbers in theirs."""
    headers = {"x86_64": "x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "asm-generic/unistd.h"}
    for place, (machine, name) in enumerate(headers.items()):
        path = Path("/usr/include") / name
        if not path.is_file() or (machine == "aarch64" and "__NR_clock_gettime 113" not in path.read_text()):
            continue
        numbers = dict(re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", path.read_text()))
        for call, pair in syscalls._CALLS.items():
            assert int(numbers[call]) == pair[place], (machine, call)
        assert int(numbers["seccomp"]) == syscalls._MACHINES[machine][1]


def test_where_no_process_can_be_shut_in_nothing_is_unpickled(
    pickled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import platform\nplatform.machine = lambda: 'riscv64'\n")
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with pytest.raises(AdapterError, match="only Linux on x86-64 or aarch64, with seccomp, can shut it in") as caught:
        convert_pickle(pickled, tmp_path / "new")
    assert caught.value.reason == "not-converted"
    assert not (tmp_path / "new").exists()


def test_the_old_form_and_every_dtype_come_out_and_no_sealed_memory_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soupmix.sealed._MEMFD", False)
    whole = torch.arange(1 << 16, dtype=torch.float32).view(256, 256)
    given = {"a": whole.T, "b": whole[3:7].bfloat16(), "c": whole.half()[::2], "d": whole[:0], "e": torch.tensor(1.5)}
    torch.save(given, tmp_path / "a.bin", _use_new_zipfile_serialization=False)
    (tmp_path / "README.md").write_text("hello")
    assert convert_pickle(tmp_path / "a.bin", tmp_path / "new") == ()
    assert (tmp_path / "new" / "README.md").read_text() == "hello"
    found = load_file(tmp_path / "new" / TENSORS)
    assert all(torch.equal(found[key], value) and found[key].dtype == value.dtype for key, value in given.items())


@pytest.mark.parametrize(
    "held", [{1: torch.ones(1), "1": torch.zeros(1)}, {"all": {"a": torch.ones(1)}}, [torch.ones(1)]]
)
def test_nothing_but_tensors_by_name_comes_out(held: Any) -> None:
    pickled = io.BytesIO()
    torch.save(held, pickled)
    with pytest.raises(TypeError, match="something else than tensors by name"):
        unpickling._safe(pickled.getvalue())


def test_a_pickle_that_takes_too_long_is_ended(pickled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soupmix.store.convert._SECONDS", 0.05)
    with pytest.raises(AdapterError, match="too much time") as caught:
        convert_pickle(pickled, tmp_path / "new")
    assert caught.value.reason == "not-converted"


def test_the_room_is_for_what_a_pickle_holds() -> None:
    assert unpickling.room(1 << 30) - unpickling.room(0) == 4 << 30
