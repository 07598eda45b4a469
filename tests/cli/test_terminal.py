"""What a person at a terminal has, by a pty: a line that can be edited, keys that stop, and what is drawn."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from soupmix.base import Base
from soupmix.store import Store
from tests.support.terminal import CTRL_C, CTRL_D, LEFT, UP, Terminal

Begin = Callable[..., AbstractContextManager[Terminal]]


@pytest.fixture
def begin(tiny_base: Base, pico_store: Store, tmp_path: Path, session_cache: Path) -> Begin:
    """Begin to talk with the picoscopic model, in a folder for user data of its own."""
    environment = {"SOUPMIX_DATA": str(tmp_path / "data"), "SOUPMIX_CACHE": str(session_cache)}
    there: list[str | Path] = ["--base", tiny_base.folder, "--store", pico_store.folder, "-w", "calm=0.5"]

    def made(*more: str) -> Terminal:
        return Terminal(["chat", *there, "--temperature", "0", *more], environment)

    return made


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Terminal], Iterator[dict[str, str]]]:
    """What was said so far, as `/save` writes it."""
    count = iter(range(100))

    def read(terminal: Terminal) -> Iterator[dict[str, str]]:
        path = tmp_path / f"{next(count)}.json"
        terminal.type(f"/save {path}\r")
        terminal.wait("/save .*\n> ")
        return iter(json.loads(path.read_text())["messages"])

    return read


def test_a_conversation_at_a_terminal(
    begin: Begin, saved: Callable[[Terminal], Iterator[dict[str, str]]], tmp_path: Path
) -> None:
    with begin("--max-new-tokens", "6") as terminal:
        before = terminal.wait("\n> ")
        assert "calm 0.5" in before
        assert "/help says what there is" in before
        terminal.type(f"helo{LEFT}l\r")  # a line can be edited
        terminal.wait("\n.*\n> ")
        terminal.type(f"{UP}\r")  # and is remembered
        terminal.wait("hello\n.*\n> ")
        said = list(saved(terminal))
        assert [each["content"] for each in said if each["role"] == "user"] == ["hello", "hello"]
        terminal.type("/soup loud=.25\r")
        terminal.wait("loud 0.25\n> ")
        terminal.type("/why\r")
        terminal.wait("no policy is applied: only the built-in defaults hold\nloud 0.25\n> ")
        terminal.type("/soup lod=1\r")
        terminal.wait("did you mean 'loud'")
        terminal.wait("> ")
        terminal.type("/reset\r")
        terminal.wait("> ")
        assert list(saved(terminal)) == []
        terminal.type(f"half a line{CTRL_C}")  # empties the line
        terminal.wait("\n> ")
        terminal.type(CTRL_D)
        assert terminal.end() == 0
        assert "Traceback" not in terminal.shown
    with begin() as terminal:  # the lines of before are there the next day
        terminal.wait("\n> ")
        terminal.type(f"{UP}{UP}")
        terminal.wait("/reset")
    assert (tmp_path / "data" / "chat_history").stat().st_mode & 0o777 == 0o600


def test_ctrl_c_stops_the_answer_and_not_the_conversation(
    begin: Begin, saved: Callable[[Terminal], Iterator[dict[str, str]]]
) -> None:
    with begin("--max-new-tokens", "450") as terminal:
        terminal.wait("\n> ")
        terminal.type("a long story\r")
        terminal.wait("a long story\n.")  # the first of it
        terminal.type(CTRL_C)
        terminal.wait("\n> ")
        (_, answer) = saved(terminal)
        assert 0 < len(answer["content"].encode()) < 450
        terminal.type("/quit\r")
        assert terminal.end() == 0
        assert "Traceback" not in terminal.shown


def test_ctrl_c_before_the_conversation_ends_the_command(begin: Begin) -> None:
    with begin() as terminal:
        terminal.wait("calm 0.5")  # the model is loaded next
        terminal.type(CTRL_C)
        assert terminal.end() == 130
        assert "soupmix: interrupted" in terminal.shown
        assert "Traceback" not in terminal.shown


@pytest.mark.slow
def test_learning_takes_one_key_and_draws_what_it_thinks(smollm2: Base, tmp_path: Path) -> None:
    environment, profile = {"SOUPMIX_DATA": str(tmp_path)}, tmp_path / "me.json"
    asked = [
        "learn",
        "--profile",
        profile,
        "--max-new-tokens",
        "12",
        "--questions",
        "2",
        "--prompt",
        "Why do we sleep?",
    ]
    with Terminal(asked, environment) as terminal:
        terminal.wait("Why do we sleep", 400)
        terminal.wait("1 .*2 ")
        terminal.type("x")  # no such key: it is told, and nothing happens
        terminal.wait("1 .*2 ")
        terminal.type("1")  # without Return
        terminal.wait("expected loss|Why do we sleep", 400)
        assert profile.exists()
        terminal.wait("Why do we sleep", 400)
        terminal.type("q")
        assert terminal.end() == 0
        assert "kept in" in terminal.shown
    with Terminal(["learn", "show", "--profile", profile], environment) as terminal:
        assert terminal.end() == 0
        assert "choice" in terminal.shown
