"""`soupmix chat` and `soupmix serve` in a real terminal: what is shown, and what keys do."""

import json
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from soupmix.base import Base, resolve
from soupmix.store import Store
from tests.support.terminal import CTRL_A, CTRL_C, CTRL_D, CTRL_P, terminal
from tests.support.tiny_model import save_tiny_model

MOST = 3000  # tokens of an answer: some seconds, in which Ctrl-C is pressed, on a machine that does much else too
PROMPT = r"\n> $"


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Base:
    """A base that says small letters and never ends: the first dimension is large everywhere, and speaks against the rest."""
    folder = save_tiny_model(tmp_path_factory.mktemp("talker") / "base", tied=False, positions=8192)
    model = AutoModelForCausalLM.from_pretrained(folder)
    letters = range(ord("a") - ord("!") + 5, ord("z") - ord("!") + 6)  # behind five marks, as the tokenizer sorts them
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 5.0
        silent = torch.ones(len(model.lm_head.weight), dtype=torch.bool)
        silent[list(letters)] = False
        model.lm_head.weight[silent] = 0.0
        model.lm_head.weight[silent, 0] = -10.0
    model.save_pretrained(folder)
    return resolve(folder, cache=session_cache)


@pytest.fixture(scope="module")
def where(
    tmp_path_factory: pytest.TempPathFactory, talker: Base, tiny_adapter: Callable[..., Path], session_cache: Path
) -> dict[str, str]:
    """Variables of the environment: the base, and a store with two adapters for it."""
    store = Store(tmp_path_factory.mktemp("talker-store"), create=True)
    for seed, name in enumerate(("calm", "loud")):
        store.add(tiny_adapter(seed=seed, scale=0.02, base=talker), name=name, dimension=name, pole=name, base=talker)
    data = tmp_path_factory.mktemp("talker-data")
    return {
        "SOUPMIX_BASE": str(talker.folder),
        "SOUPMIX_STORE": str(store.folder),
        "SOUPMIX_CACHE": str(session_cache),
        "SOUPMIX_DATA": str(data),
    }


def said(file: Path) -> list[str]:
    return [each["content"] for each in json.loads(file.read_text())["messages"]]


def test_a_conversation(where: dict[str, str], tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    with terminal("chat", "-w", "calm=0.5", "--max-new-tokens", MOST, **where) as there:
        opened = there.until(PROMPT)
        assert "calm 0.5" in opened
        assert "Ctrl-C stops an answer" in opened
        there.press("hello\r")
        there.until("hello\n[a-z]{4}")  # it streams: the rest is still to come
        there.press(CTRL_C)
        stopped = there.until(PROMPT)
        assert re.fullmatch(r"[a-z]*(\^C)?[a-z]*\n+> ", stopped), stopped
        there.press("/soup loud=.3\r")
        assert "loud 0.3" in there.until(PROMPT)
        there.press(f"why{CTRL_A}/\r")  # a line is edited
        assert "loud 0.3" in there.until(PROMPT)
        there.press(f"{CTRL_P}\r")  # and kept
        assert "loud 0.3" in there.until(PROMPT)
        there.press("never said")
        there.until("never said$")
        time.sleep(0.5)  # Python overlooks Ctrl-C, until the next key, while readline takes a key
        there.press(CTRL_C)
        there.until(PROMPT)
        there.press("go on\r")
        there.until(PROMPT)
        there.press(f"/save {first}\r")
        there.until(PROMPT)
        there.press("/reset\r")
        there.until(PROMPT)
        there.press(f"/save {second}\r")
        there.until(PROMPT)
        there.press(CTRL_D)
        assert there.end() == 0
    hello, cut, go_on, whole = said(first)
    assert (hello, go_on) == ("hello", "go on")
    assert len(cut) < MOST == len(whole)
    assert said(second) == []
    kept = (Path(where["SOUPMIX_DATA"]) / "chat_history").read_text()
    assert "hello\n/soup loud=.3\n/why\n" in kept
    assert "never said" not in kept


def test_lines_are_there_again_in_the_next_conversation(where: dict[str, str]) -> None:
    history = Path(where["SOUPMIX_DATA"]) / "chat_history"
    history.write_text("/help\n")
    with terminal("chat", "-w", "calm=0.5", **where) as there:
        there.until(PROMPT)
        there.press(f"{CTRL_P}\r")
        assert "/save FILE" in there.until(PROMPT)
        there.press(CTRL_D)
        assert there.end() == 0


def test_a_server_says_that_it_loads_then_where_the_page_is(where: dict[str, str], tmp_path: Path) -> None:
    words = ("serve", "--open", "--no-auth", "--port", "0", "--database", tmp_path / "x.db", "--length", "128")
    with terminal(*words, **where) as there:
        there.until("soupmix: loading the model")
        told = there.until(r"the page is at (http://127\.0\.0\.1:[0-9]+/), OpenAI's clients take http")
        address = re.findall(r"http://[0-9.:]+/", told)[0]
        with urllib.request.urlopen(address, timeout=100) as page:
            assert page.status == 200
            assert b"<title>" in page.read()
        there.press(CTRL_C)
        assert there.end() == 0
