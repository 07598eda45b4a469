"""A batch over a backend that is none of ours: it needs what the protocol names."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from soupmix.backends import Limits, Message, Tool
from soupmix.errors import BaseModelError, SoupmixError
from tests.support.batch_shop import Shop, chat, mixed, plain
from tests.support.echo_backend import EchoBackend


class EchoShop(Shop):
    def backend(self, limits: Limits) -> EchoBackend:  # type: ignore[override]
        return EchoBackend(limits)


def test_a_batch_needs_nothing_but_the_protocol(shop: Shop, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [chat(0, "hi", max_tokens=50, soup={"weights": {"calm": 0.9}}), plain(1, ["once", "twice"])]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert EchoShop(shop.engine, shop.policy).work(source, out)
    first, second = (json.loads(line)["response"]["body"] for line in out.read_text().splitlines())
    assert first["choices"][0]["message"]["content"] == "user: hi\n"
    assert first["soup"]["granted"] == {"calm": "0.5"}
    assert [each["text"] for each in second["choices"]] == ["once", "twice"]


class StoppedShop(Shop):
    def backend(self, limits: Limits) -> EchoBackend:  # type: ignore[override]
        made = EchoBackend(limits)
        made.close()
        return made


def test_a_backend_that_stopped_before_a_line_was_taken_is_said_as_at_any_other_time(
    shop: Shop, tmp_path: Path
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(chat(0)) + "\n")
    with pytest.raises(SoupmixError, match="start the batch again") as caught:
        StoppedShop(shop.engine, shop.policy).work(source, tmp_path / "out.jsonl")
    assert caught.value.reason == "stopped"


def test_every_line_gets_its_status_whoever_answers(shop: Shop, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    content, statuses = mixed(60, seed=3)
    source.write_bytes(content)
    assert EchoShop(shop.engine, shop.policy).work(source, out)
    assert [json.loads(line)["response"]["status_code"] for line in out.read_text().splitlines()] == statuses


class TemplateShop(Shop):
    """A template that asks too much for what one line says."""

    def backend(self, limits: Limits) -> EchoBackend:  # type: ignore[override]
        made = EchoBackend(limits)
        tokens = made.tokens

        def read(said: str | Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
            if "loop" in str(said):
                raise BaseModelError("the chat template took more than 5 seconds", reason="template-limit")
            return tokens(said, tools)

        made.tokens = read  # type: ignore[method-assign]
        return made


@pytest.mark.parametrize("done", [0, 2, 3])
def test_a_line_for_which_the_template_asks_too_much_fails_alone(shop: Shop, tmp_path: Path, done: int) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(
        "".join(json.dumps(chat(number, said)) + "\n" for number, said in enumerate(("hi", "loop", "ho")))
    )
    greedy = TemplateShop(shop.engine, shop.policy)
    seen: list[int] = []
    assert greedy.work(source, out, stopping=lambda: bool(done) and len(seen) >= done, advance=seen.append) or done
    if done:
        assert greedy.work(source, out) or out.exists()
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert [each["response"]["status_code"] for each in results] == [200, 503, 200]
    assert results[1]["error"]["code"] == "template-limit"


class BrokenShop(Shop):
    """A template that does not compile."""

    def backend(self, limits: Limits) -> EchoBackend:  # type: ignore[override]
        made = EchoBackend(limits)
        tokens = made.tokens

        def read(said: str | Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
            if not isinstance(said, str):
                raise BaseModelError("the chat template does not compile", reason="bad-template")
            return tokens(said, tools)

        made.tokens = read  # type: ignore[method-assign]
        return made


def test_a_template_that_does_not_compile_ends_a_batch_before_it_begins(shop: Shop, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [plain(0), plain(1), chat(2)]
    source.write_text("".join(json.dumps(each) + "\n" for each in lines))
    done: list[int] = []
    with pytest.raises(BaseModelError, match="does not compile") as caught:
        BrokenShop(shop.engine, shop.policy).work(source, out, advance=done.append)
    assert (caught.value.reason, done, out.exists()) == ("bad-template", [], False)
    source.write_text("".join(json.dumps(each) + "\n" for each in lines[:2]))
    assert BrokenShop(shop.engine, shop.policy).work(source, tmp_path / "plain.jsonl")
