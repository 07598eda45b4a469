"""Defaults of a user's own, what the shell completes, what goes where: commands as parts of scripts."""

import json
import os
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from soupmix.base import Base
from soupmix.cli import cli
from soupmix.cli.extras import _EXTRAS
from soupmix.errors import SoupmixError
from soupmix.serve.listening import bound
from soupmix.store import Store

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    monkeypatch.setenv("SOUPMIX_CONFIG", str(path))
    return path


def test_the_file_then_the_environment_then_the_command_line(
    config: Path, run: Run, pico_store: Store, tiny_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = Store(config.parent / "other", create=True)
    stored.add(pico_store.path("calm"), dimension="expertise", pole="expert", base=tiny_base)
    assert run("adapters", "show", "calm")[0] == 2
    config.write_text(f"store = {str(pico_store.folder)!r}\n")
    assert run("adapters", "show", "calm")[0] == 0
    assert run("clamp", "-w", "calm=1")[0] == 0
    monkeypatch.setenv("SOUPMIX_STORE", str(stored.folder))
    assert run("clamp", "-w", "calm=1")[0] == 2
    assert run("clamp", "-w", "expert=1")[0] == 0
    assert run("clamp", "-w", "calm=1", "--store", pico_store.folder)[0] == 0


def test_policies_of_the_file_count_from_its_folder(config: Path, run: Run, pico_store: Store) -> None:
    documents = config.parent / "documents"
    documents.mkdir()
    (documents / "acme.yaml").write_text(
        "tier: organisation\nissuer: Acme\nversion: 1\nrules:\n- {rule: bounds, adapter: calm, at_most: '0.25'}\n"
    )
    config.write_text('policy = "documents"\n')
    code, out, _ = run("clamp", "-w", "calm=1", "--store", pico_store.folder)
    assert (code, "calm 1 -> 0.25" in out) == (0, True)


@pytest.mark.parametrize(
    "text", ["stores = 'x'", "store = 3", "policy = [1]", "base = ''", "store = ", "store = ['a']", "\x00"]
)
def test_a_file_that_says_anything_else_is_refused(config: Path, run: Run, text: str) -> None:
    config.write_text(text)
    code, _, err = run("adapters", "list")
    assert code == 2
    assert str(config) in err


def test_a_folder_in_its_place_is_told_and_no_home_is_no_file(
    config: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.mkdir()
    assert run("adapters", "list") == (1, "", f"soupmix: {config} cannot be read: Is a directory\n")
    monkeypatch.setenv("SOUPMIX_CONFIG", "/dev/null/config.toml")
    assert run("adapters", "list")[0] == 0


def test_names_of_adapters_are_completed(pico_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOUPMIX_STORE", str(pico_store.folder))
    complete = BashComplete(cli, {}, "soupmix", "_SOUPMIX_COMPLETE")
    assert [each.value for each in complete.get_completions(["clamp", "-w"], "c")] == ["calm="]
    found = complete.get_completions(["chat", "-w"], "calm=1,")
    assert [each.value for each in found] == ["calm=1,calm=", "calm=1,loud=", "calm=1,plain="]


def test_merge_prints_the_path_alone(run: Run, pico_store: Store, tmp_path: Path) -> None:
    out = tmp_path / "alice"
    code, said, err = run("merge", "-w", "calm=1", "--store", pico_store.folder, out)
    assert (code, said) == (0, f"{out}\n")
    assert "identity sha256:" in err
    code, said, _ = run("merge", "-w", "calm=1", "--store", pico_store.folder, tmp_path / "b", "--json")
    assert json.loads(said)["folder"] == str(tmp_path / "b")


@pytest.mark.parametrize(
    "words",
    [
        ("merge", "gone.yaml", "out"),
        ("clamp", "-w", "calm=1", "--policy", "gone.yaml"),
        ("policy", "check", "gone.yaml"),
        ("merge", "-w", "calm=1", "out", "--sign", "gone.pem"),
        ("adapters", "add", "gone", "--dimension", "d", "--pole", "p", "--base", "gone"),
    ],
)
def test_a_file_that_is_not_there_is_exit_code_1(
    run: Run, pico_store: Store, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOUPMIX_STORE", str(pico_store.folder))
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert err


def test_a_taken_port_is_told_before_the_model_is_loaded(tiny_base: Base, pico_store: Store, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        words = (
            "serve",
            "--open",
            "--no-auth",
            "--port",
            port,
            "--database",
            tmp_path / "x.db",
            "--base",
            "there-is-none",
        )
        done = subprocess.run(
            [sys.executable, "-c", "from soupmix.cli import run; run()", *map(str, words)],
            capture_output=True, text=True, env=os.environ, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"cannot listen on port {port} of 127.0.0.1: another program listens there" in done.stderr
    assert "there-is-none" not in done.stderr


def test_a_port_that_is_free_is_bound_once_for_every_address_of_the_host() -> None:
    found = bound("127.0.0.1", 0)
    try:
        assert len(found) == 1
        assert found[0].getsockname()[1] > 0
    finally:
        for each in found:
            each.close()
    with pytest.raises(SoupmixError, match="is no address"):
        bound("no.such.host.invalid", 0)


@pytest.mark.parametrize(
    ("words", "extra"),
    [(("train", "out"), "train"), (("adapters", "extract", "a", "b"), "extract"), (("simulate", "out"), "plot")],
)
def test_an_extra_that_is_missing_is_told_before_anything_is_done(
    run: Run, words: tuple[str, ...], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soupmix.cli.extras.find_spec", lambda name: None)
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert f"pip install 'soupmix[{extra}]'" in err


def test_extras_are_what_the_project_says() -> None:
    """By the names that pip knows, as modules; plotting and the like are checked where they are used."""
    said = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    for extra, modules in _EXTRAS.items():
        assert sorted(modules) == sorted(each.partition(">")[0] for each in said[extra])
