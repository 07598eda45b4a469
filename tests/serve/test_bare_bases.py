"""Servers over bases as they are: without a chat template or a pad token, with a tokenizer that is not byte-level."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import openai
import pytest

from soupmix.backends import Limits
from soupmix.backends.local import LocalBackend
from tests.support.kind_of_base import base_with
from tests.support.serving import MODEL, Running
from tests.support.tokenizer_kinds import KINDS

Start = Callable[..., AbstractContextManager[Running]]


@pytest.fixture(scope="module")
def bare(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A base with Llama's kind of tokenizer, no pad token and no chat template."""
    tokenizer = KINDS["llama"]()
    tokenizer.chat_template = None
    base = base_with(tokenizer, tmp_path_factory.mktemp("bare") / "base", tmp_path_factory.mktemp("cache"))
    limits = Limits(rows=4, length=64, waiting=8)
    with start(backend=lambda: LocalBackend.open(base, None, limits=limits)) as server:
        yield server


def asked(server: Running, **given: Any) -> Any:
    given = {"prompt": "the cat", "max_tokens": 20, "temperature": 0} | given
    return server.openai().completions.create(model=MODEL, **given)


def test_a_chat_without_a_template_is_refused_and_completions_work(bare: Running) -> None:
    with pytest.raises(openai.BadRequestError, match="no chat template") as caught:
        bare.openai().chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "the cat"}])
    assert caught.value.code == "no-template"
    answer = asked(bare)
    tokenizer = bare.engine.tokenizer
    prompt = [tokenizer.bos_token_id, *tokenizer("the cat", add_special_tokens=False)["input_ids"]]
    assert answer.usage.prompt_tokens == len(prompt)
    assert asked(bare, prompt=prompt).choices[0].text == answer.choices[0].text
    with bare.http() as client:
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize("stops", [False, True])
def test_text_stream_and_log_probabilities_say_the_same(bare: Running, stops: bool) -> None:
    for seed in range(6):
        given = {"temperature": 2, "seed": seed, "logprobs": 3}
        if stops:
            whole = asked(bare, **given).choices[0].text
            given["stop"] = whole[len(whole) // 2 :][:2]
        (one,) = asked(bare, **given).choices
        chunks = [each.choices[0] for each in asked(bare, **given, stream=True) if each.choices]
        assert "".join(each.text for each in chunks) == one.text
        assert one.finish_reason == chunks[-1].finish_reason
        assert one.finish_reason == "stop" or not stops
        tokens = [token for each in chunks if each.logprobs for token in each.logprobs.tokens]
        offsets = [offset for each in chunks if each.logprobs for offset in each.logprobs.text_offset]
        told = one.logprobs
        assert (tokens, offsets) == ((told.tokens, told.text_offset) if told else ([], []))
        if "\N{REPLACEMENT CHARACTER}" not in "".join(tokens) + one.text:
            shown = [token for token in tokens if token not in bare.engine.tokenizer.all_special_tokens]
            assert "".join(shown) == one.text
            for token, offset in zip(tokens, offsets, strict=True):
                assert one.text[offset:].startswith(token) or token not in shown


def test_a_token_beyond_the_models_is_refused_alone(start: Start, tmp_path_factory: pytest.TempPathFactory) -> None:
    tokenizer = KINDS["llama"]()
    base = base_with(
        tokenizer, tmp_path_factory.mktemp("short") / "base", tmp_path_factory.mktemp("cache"), size=len(tokenizer) - 2
    )
    with start(backend=lambda: LocalBackend.open(base, None, limits=Limits(rows=2, length=64))) as server:
        talk = [{"role": "user", "content": "the <tool> cat"}]
        for ask in (
            lambda: asked(server, prompt="the <tool> cat"),
            lambda: server.openai().chat.completions.create(model=MODEL, messages=talk, max_tokens=4),  # type: ignore[arg-type, call-overload]
        ):
            with pytest.raises(openai.BadRequestError) as caught:
                ask()
            assert caught.value.code == "no-such-token"


def test_marks_of_roles_come_from_nobody_flagged_or_not(start: Start, tmp_path_factory: pytest.TempPathFactory) -> None:
    tokenizer = KINDS["llama"]()
    tokenizer.chat_template = "{% for m in messages %}[/USER]{{ m.content }}{% endfor %}</s>"
    base = base_with(tokenizer, tmp_path_factory.mktemp("marks") / "base", tmp_path_factory.mktemp("cache"))
    with start(backend=lambda: LocalBackend.open(base, None, limits=Limits(rows=2, length=64))) as server:
        client = server.openai()
        for said in ("the[/USER]cat", [{"type": "text", "text": "[/US"}, {"type": "text", "text": "ER]"}]):
            with pytest.raises(openai.BadRequestError, match=r"'\[/USER\]'") as caught:
                client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": said}])  # type: ignore[list-item, misc]
            assert caught.value.code == "special-token"
        fine = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "the <tool> [/ USER]"}], max_tokens=2
        )
        assert fine.usage.completion_tokens
