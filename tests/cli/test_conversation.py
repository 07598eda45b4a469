"""A conversation: what is remembered, what a slash does, what Ctrl-C stops, and what comes through a pipe."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from soupmix.backends import TALKING, Limits
from soupmix.base import Base
from soupmix.cli.conversation import Conversation, _Interrupted, converse
from soupmix.errors import RecipeError, WeightError
from soupmix.modes import FULL
from soupmix.policy import Policy
from soupmix.store import Store
from soupmix.weights import Weights
from tests.support.echo_backend import EchoBackend

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def talk(pico_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Conversation]:
    monkeypatch.setenv("SOUPMIX_DATA", str(tmp_path / "data"))
    policy = Policy.open(pico_store)
    with EchoBackend(Limits(rows=1, length=4096)) as backend:
        sampling = replace(TALKING, max_new_tokens=256)
        yield Conversation(backend, policy.clamp, Weights("calm=0.5"), sampling, "delta", FULL)


def type_(monkeypatch: pytest.MonkeyPatch, *lines: str | type[BaseException]) -> None:
    """Somebody types these lines, or presses the keys that raise, and ends."""
    left = iter([*lines, EOFError])

    def typed(_: str) -> str:
        line = next(left)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", typed)


def test_answers_come_in_parts_and_are_remembered(talk: Conversation) -> None:
    parts = list(talk.answer("hi"))
    assert "".join(parts) == "user: hi\n"
    assert len(parts) > len("user: hi")
    assert talk.messages == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "user: hi"}]
    assert "".join(talk.answer("ho")) == "user: hi\nassistant: user: hi\nuser: ho\n"
    talk.reset()
    assert "".join(talk.answer("ho")) == "user: ho\n"


def test_a_system_prompt_is_not_forgotten(talk: Conversation) -> None:
    again = replace(talk, messages=[{"role": "system", "content": "be brief"}])
    assert "".join(again.answer("hi")) == "system: be brief\nuser: hi\n"
    again.reset()
    assert again.messages == [{"role": "system", "content": "be brief"}]


def test_what_marks_a_role_is_refused_and_forgotten(talk: Conversation) -> None:
    with pytest.raises(RecipeError, match="leave it out"):
        list(talk.answer("a<|end|>b"))
    assert talk.messages == []


def test_an_answer_that_is_stopped_is_remembered_as_far_as_it_came(talk: Conversation) -> None:
    answer = talk.answer("a long story")
    for _ in range(6):
        next(answer)
    answer.close()  # type: ignore[attr-defined]
    assert talk.messages[-1] == {"role": "assistant", "content": "user:"}


def test_words_with_a_slash(
    talk: Conversation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    kept = tmp_path / "talk.json"
    type_(
        monkeypatch, "/help", "hello", "/soup loud=.25", "/why", "/soup lod=1", "/soup loud=x", "/what", "/save", f"/save {kept}",
        f"/save {kept}", _Interrupted, "", "/reset", "/quit", "never said",
    )  # fmt: skip
    converse(talk)
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "user: hello"
    assert "never said" not in out
    for said in (
        "/soup friendly",
        "loud 0.25",
        "did you mean 'loud'",
        "there is no /what",
        "say where",
        "is there already",
    ):
        assert said in err
    assert (talk.weights, talk.messages) == (Weights("loud=0.25"), [])
    saved = json.loads(kept.read_text())
    assert [each["content"] for each in saved["messages"]] == ["hello", "user: hello"]
    assert (saved["weights"], saved["granted"]["granted"]) == ({"loud": "0.25"}, {"loud": "0.25"})


def test_ctrl_c_ends_the_answer_and_not_the_conversation(
    talk: Conversation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, pressed = Conversation.answer, list[str]()

    def pressing(self: Conversation, said: str) -> Iterator[str]:
        for part in real(self, said):
            yield part
            if said == "stop me" and not pressed:
                pressed.append(part)
                os.kill(os.getpid(), 2)

    monkeypatch.setattr(Conversation, "answer", pressing)
    type_(monkeypatch, "stop me", "go on")
    converse(talk)
    assert pressed
    assert "user: go on" in capsys.readouterr().out
    assert talk.messages[-2] == {"role": "user", "content": "go on"}


def test_a_refused_weight_changes_nothing(talk: Conversation) -> None:
    with pytest.raises(WeightError):
        talk.allow(Weights("nobody=1"))


def test_what_comes_through_a_pipe_stands_behind_the_prompt(tiny_base: Base, pico_store: Store, run: Run) -> None:
    words = (
        "chat",
        "--base",
        tiny_base.folder,
        "--store",
        pico_store.folder,
        "--max-new-tokens",
        "3",
        "--temperature",
        "0",
    )

    def piped(text: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from soupmix.cli import run; run()", *map(str, words), *more],
            input=text, capture_output=True, text=True, check=False,
        )  # fmt: skip

    together = piped("the sea\n", "Tell me of")
    assert together.returncode == 0, together.stderr
    assert together.stdout == run(*words, "Tell me of\n\nthe sea")[1] != ""
    empty = piped("")
    assert (empty.returncode, "say something" in empty.stderr) == (2, True)
