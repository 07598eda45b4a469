"""`--chat-template FILE`: conversations are read by it, it is told by its digest, and it is a file like any other."""

import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from soupmix.base import Base
from soupmix.engine import Engine, Sampling
from soupmix.policy import Policy
from soupmix.store import Store
from tests.support.batch_shop import chat

Run = Callable[..., tuple[int, str, str]]
TEXT = "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jinja"
    path.write_text(TEXT)
    return path


def test_a_chat_is_read_by_it(run: Run, tiny_base: Base, pico_store: Store, template: Path) -> None:
    words = ("chat", "why?", "--base", tiny_base.folder, "--store", pico_store.folder, "--max-new-tokens", 12)
    words += ("--temperature", 1, "--seed", 3)
    own, given = run(*words), run(*words, "--chat-template", template)
    assert given[0] == 0
    assert f"sha256:{sha256(TEXT.encode()).hexdigest()}" in given[2]
    assert given[1] != own[1]
    engine = Engine.load(tiny_base.with_chat_template(template), pico_store)
    sampling = Sampling(max_new_tokens=12, temperature=1, seed=3)
    (alone,) = engine.complete(["why?"], [Policy.open(pico_store).clamp({})], sampling=sampling)
    assert given[1] == alone.text.strip() + "\n"
    assert engine.chat_tokens("why?") == engine.plain_tokens("why?<|end|>")


def test_it_is_part_of_what_a_batch_and_a_base_are(
    run: Run, tiny_base: Base, pico_store: Store, template: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps(chat(0)) + "\n")
    words = (
        "batch",
        source,
        out,
        "--base",
        tiny_base.folder,
        "--store",
        pico_store.folder,
        "--model",
        "tiny",
        "--force",
    )
    lines = []
    for more in ((), ("--chat-template", template), ()):
        assert run(*words, "--max-new-tokens", 4, "--temperature", 0, *more)[0] == 0
        lines.append(json.loads(out.read_text()))
    assert lines[0] == lines[2]
    assert lines[0]["id"] != lines[1]["id"]
    given = tiny_base.with_chat_template(template)
    assert (given.digest, given.files_digest()) != (tiny_base.digest, tiny_base.files_digest())
    assert given.digest == tiny_base.digest
    code, _, said = run("batch", source, template, *words[3:], "--chat-template", template)
    assert (code, template.read_text()) == (1, TEXT), said


@pytest.mark.parametrize("fault", ["missing", "folder", "pipe", "link", "huge", "latin", "broken"])
def test_what_is_no_template_is_refused_in_a_sentence(
    run: Run, tiny_base: Base, pico_store: Store, tmp_path: Path, fault: str
) -> None:
    path, other = tmp_path / "bad.jinja", tmp_path / "other.jinja"
    other.write_text(TEXT)
    {
        "missing": lambda: None,
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(other),
        "huge": lambda: path.write_bytes(b" " * ((1 << 20) + 1)),
        "latin": lambda: path.write_bytes(b"\xe9{{ messages }}"),
        "broken": lambda: path.write_text("{% for %}"),
    }[fault]()
    code, out, said = run(
        "chat", "why?", "--base", tiny_base.folder, "--store", pico_store.folder, "--chat-template", path
    )
    assert (code, out) == (1, "")
    assert said.splitlines()[-1].startswith("soupmix: ")
    assert "Traceback" not in said
