"""Laws of a batch: a result for every line in its place, and the same bytes whatever ran beside it, before it or after it."""

import itertools
import json
import logging
import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion

from soupmix.batch import Defaults
from soupmix.batch.journal import journal_path
from soupmix.batching.runner import Runner
from soupmix.engine import Engine, Sampling
from soupmix.errors import RecipeError, SoupmixError
from soupmix.policy import Policy
from tests.support.batch_shop import DEFAULTS, Shop, chat, mixed, plain
from tests.support.kind_of_base import base_with
from tests.support.tokenizer_kinds import KINDS

ADULT = {"attributes": {"audience": "adult"}}


def results(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_bytes().splitlines()]


def answered(shop: Shop, tmp_path: Path, *lines: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert shop.work(path, out, force=True, **options)
    return results(out)


@pytest.mark.parametrize("seed", range(4))
def test_every_line_of_any_mixture_has_its_result_in_its_place(shop: Shop, tmp_path: Path, seed: int) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    data, statuses = mixed(60, seed)
    path.write_bytes(data)
    assert shop.work(path, out)
    found = results(out)
    assert [each["response"]["status_code"] for each in found] == statuses
    for number, each in enumerate(found):
        assert each["custom_id"] in (f"c{number}", "x" if statuses[number] == 400 else None, None)
        assert (each["custom_id"] is None) <= (statuses[number] == 400)
        assert (each["error"] is None) == (statuses[number] == 200)
        if each["error"]:
            assert each["response"]["body"]["error"]["code"] == each["error"]["code"] != ""
    assert len({each["id"] for each in found}) == len(found)
    assert not list(tmp_path.glob("*.part"))


def test_the_same_bytes_whatever_ran_beside_it(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(mixed(60, 7)[0])
    made = []
    for rows in (1, 3, 8, 32):
        assert shop.work(path, tmp_path / f"{rows}.jsonl", rows=rows)
        made.append((tmp_path / f"{rows}.jsonl").read_bytes())
    assert len(set(made)) == 1


@pytest.mark.parametrize("seed", range(3))
def test_the_same_bytes_however_often_it_was_stopped(shop: Shop, tmp_path: Path, seed: int) -> None:
    path, out, rng = tmp_path / "in.jsonl", tmp_path / "out.jsonl", random.Random(seed)
    path.write_bytes(mixed(60, seed)[0])
    assert shop.work(path, tmp_path / "whole.jsonl", rows=5)
    seen: list[int] = []
    for enough in sorted(rng.sample(range(1, 60), 6)):
        with pytest.raises(_Halt):
            shop.work(path, out, rows=rng.randrange(1, 9), advance=partial(_halt_at, enough, seen))
        assert not out.exists()
    assert shop.work(path, out, rows=rng.randrange(1, 9), advance=seen.append)
    assert seen == list(range(1, 61))
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


class _Halt(Exception):
    """The process ends here."""


def _halt_at(enough: int, seen: list[int], done: int) -> None:
    seen.append(done)
    if done >= enough:
        raise _Halt


def test_it_stops_when_it_is_told_to_and_keeps_what_there_is(shop: Shop, tmp_path: Path) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(chat(n, max_tokens=9)) + "\n" for n in range(40)))
    seen: list[int] = []
    assert not shop.work(path, out, rows=2, stopping=lambda: len(seen) >= 5, advance=seen.append)
    assert 5 <= len(seen) < 40
    assert not out.exists()
    assert shop.work(path, out, advance=seen.append)
    assert seen == list(range(1, 41))


def test_an_input_that_changes_meanwhile_makes_no_output(shop: Shop, tmp_path: Path) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(chat(n)) + "\n" for n in range(10)))
    with pytest.raises(RecipeError, match="changed while it was answered") as caught:
        shop.work(path, out, advance=lambda done: path.write_text(path.read_text() + " ") and None)
    assert caught.value.reason == "batch-changed"
    assert not out.exists()


def test_a_step_that_fails_costs_only_those_in_it(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, steps = Runner.step, itertools.count()

    def failing(self: Runner, plan: Any) -> Any:
        if next(steps) == 5:
            raise RuntimeError("out of memory")
        return real(self, plan)

    monkeypatch.setattr(Runner, "step", failing)
    monkeypatch.setattr(logging.getLogger("soupmix.batching.batcher"), "disabled", True)
    found = answered(shop, tmp_path, *(chat(n, max_tokens=3, n=2) for n in range(12)), rows=2)
    statuses = [each["response"]["status_code"] for each in found]
    assert 1 <= statuses.count(503) <= 2
    assert statuses.count(200) == 12 - statuses.count(503)
    assert {each["error"]["code"] for each in found if each["error"]} == {"step-failed"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_engine_ends_the_batch_and_not_the_results(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(chat(n, max_tokens=3)) + "\n" for n in range(12)))
    real, steps = Runner.step, itertools.count()

    def dying(self: Runner, plan: Any) -> Any:
        if next(steps) == 10:
            raise SystemExit  # which ends the thread; what else a step raises ends its answers alone
        return real(self, plan)

    with monkeypatch.context() as patched:
        patched.setattr(Runner, "step", dying)
        with pytest.raises(SoupmixError, match="start the batch again") as caught:
            shop.work(path, out, rows=2)
    assert caught.value.reason == "stopped"
    assert 0 < len(journal_path(out).read_bytes().splitlines()) < 12
    assert shop.work(path, out, rows=2)
    assert shop.work(path, tmp_path / "whole.jsonl")
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_long_answer_holds_nobody_up_but_keeps_its_place(shop: Shop, tmp_path: Path) -> None:
    seen: list[int] = []
    lines = [chat(0, max_tokens=90), *(chat(n, max_tokens=2) for n in range(1, 30))]
    found = answered(shop, tmp_path, *lines, rows=4, advance=seen.append)
    assert [each["custom_id"] for each in found] == [f"c{n}" for n in range(30)]
    assert seen == list(range(1, 31))


def test_answers_are_those_of_the_engine(shop: Shop, tmp_path: Path) -> None:
    weights = [{"calm": 0.4}, {}, {"plain": 1.0}, {"calm": 0.2, "loud": 0.7}, {"calm": 1.0}]
    lines = [
        chat(n, f"tell {n}", soup={"weights": each, **ADULT}, max_tokens=20, temperature=temperature, top_k=40)
        for n, (each, temperature) in enumerate(itertools.product(weights, (0.0, 0.8)))
    ]
    found = answered(shop, tmp_path, *lines, defaults=Defaults("tiny", seed=100))
    for n, (each, line) in enumerate(zip(found, lines, strict=True)):
        body = line["body"]
        grant = shop.policy.clamp(body["soup"]["weights"], audience="adult")
        sampling = Sampling(20, temperature=body["temperature"], seed=100 + n)
        (alone,) = shop.engine.complete([body["messages"]], [grant], sampling=sampling)
        answer = each["response"]["body"]
        assert answer["choices"][0]["message"]["content"] == alone.text
        assert answer["usage"]["completion_tokens"] == alone.tokens
        assert answer["soup"]["granted"] == grant.granted.decimals()
        assert answer["soup"]["explanation"] == grant.explain()


@pytest.mark.parametrize("name", ["sources", "self", "requested", "weights", "attributes"])
def test_no_attribute_is_taken_for_an_argument(shop: Shop, tmp_path: Path, name: str) -> None:
    odd = {"weights": {"calm": 0.4}, "attributes": {name: "explicit"}}
    found = answered(shop, tmp_path, chat(0, max_tokens=1), chat(1, soup=odd), chat(2, max_tokens=1))
    assert [each["response"]["status_code"] for each in found] == [200, 400, 200]
    assert found[1]["error"]["code"] == "unknown-attribute"


def test_a_line_may_bring_its_own_seed(shop: Shop, tmp_path: Path) -> None:
    hot = {"temperature": 2.0, "top_k": 0, "max_tokens": 12}
    lines = [chat(0, seed=2, **hot), chat(1, **hot), chat(2, **hot), chat(3, seed=2, **hot)]
    first, second, third, fourth = (
        each["response"]["body"]["choices"][0]["message"]["content"] for each in answered(shop, tmp_path, *lines)
    )
    assert first == third == fourth != second


def test_several_answers_come_in_order_each_from_its_own_stream(shop: Shop, tmp_path: Path) -> None:
    hot = {"temperature": 2.0, "top_k": 0, "max_tokens": 12, "seed": 5}
    (both,) = answered(shop, tmp_path, plain(0, ["one", "two"], n=2, **hot))
    choices = both["response"]["body"]["choices"]
    assert [each["index"] for each in choices] == [0, 1, 2, 3]
    alone = answered(shop, tmp_path, *(plain(n, "one" if n < 2 else "two", **{**hot, "seed": 5 + n}) for n in range(4)))
    assert [each["text"] for each in choices] == [each["response"]["body"]["choices"][0]["text"] for each in alone]


def test_openais_own_client_reads_the_answers(shop: Shop, tmp_path: Path) -> None:
    soup = {"weights": {"calm": 0.9}}
    talk, text = answered(
        shop,
        tmp_path,
        chat(0, soup=soup, logprobs=True, top_logprobs=2, max_tokens=3),
        plain(1, [70, 80], logprobs=2, max_tokens=3, stop=["~"]),
    )
    read = ChatCompletion.model_validate(talk["response"]["body"], strict=True)
    assert read.choices[0].logprobs is not None
    assert len(read.choices[0].logprobs.content or ()) == 3 == read.usage.completion_tokens  # type: ignore[union-attr]
    Completion.model_validate(text["response"]["body"], strict=True)
    told = talk["response"]["body"]["soup"]
    assert (told["requested"], told["granted"], told["clamped"]) == ({"calm": "0.9"}, {"calm": "0.5"}, True)
    assert told["policy"] == {"digest": shop.policy.digest, "open": False, "signed": False}
    assert told["obligations"] == ["disclose personalisation"]
    assert "not too calm" in told["explanation"]


def test_what_is_so_of_the_whole_batch_no_line_can_contradict(shop: Shop, tmp_path: Path) -> None:
    defaults = Defaults("tiny", attributes={"audience": "minor"}, sources="stored", max_tokens=2)
    loud = {"weights": {"loud": 0.5}}
    found = answered(
        shop,
        tmp_path,
        chat(0, soup=loud),
        chat(1, soup={**loud, "attributes": {"audience": "adult"}}),
        chat(2, soup={"attributes": {"audience": "minor", "purpose": "play"}, "sources": "stored"}),
        chat(3, soup={"sources": "explicit"}),
        defaults=defaults,
    )
    assert [each["response"]["status_code"] for each in found] == [403, 400, 200, 400]
    assert found[2]["response"]["body"]["soup"]["attributes"] == {"audience": "minor", "purpose": "play"}


def test_grants_and_refusals_are_on_record_before_they_are_used(shop: Shop, tmp_path: Path) -> None:
    seen: list[Any] = []
    soups = [
        {"weights": {"calm": 0.9}},
        {"weights": {"loud": 1}, "attributes": {"audience": "minor"}},
        {"weights": {"x": 1}},
    ]
    lines = [chat(n, soup=soup, user="anna" if n else None) for n, soup in enumerate(soups)]
    answered(shop, tmp_path, *lines, append=seen.append)
    assert [(each.event, each.person, each.reason) for each in seen] == [
        ("grant", "the shop", None),
        ("refusal", "anna", "refused-by-rule"),
        ("refusal", "anna", "unknown-adapter"),
    ]
    assert seen[0].granted == shop.policy.clamp({"calm": 0.9}).granted
    assert seen[0].binding == ("organisation/acme/gently",)


def test_what_cannot_be_recorded_is_not_answered(shop: Shop, tmp_path: Path) -> None:
    def full(_entry: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        answered(shop, tmp_path, chat(0), append=full)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_system_prompt_is_for_chats_that_have_none(shop: Shop, tmp_path: Path) -> None:
    own = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "why?"}]
    options = {"defaults": Defaults("tiny", system="be brief", max_tokens=8, temperature=0.0)}
    given, said = answered(shop, tmp_path, chat(0), chat(1, messages=own), **options)
    (bare,) = answered(shop, tmp_path, chat(0), defaults=DEFAULTS)
    count = [each["response"]["body"]["usage"]["prompt_tokens"] for each in (given, said, bare)]
    assert count[0] == count[1] > count[2]
    assert given["response"]["body"]["choices"] == said["response"]["body"]["choices"]


def test_a_base_without_a_chat_template_fails_chats_alone(tmp_path: Path, session_cache: Path) -> None:
    tokenizer = KINDS["llama"]()
    tokenizer.chat_template = None
    engine = Engine.load(base_with(tokenizer, tmp_path / "base", session_cache), None)
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in (chat(0), plain(1, "the cat"), chat(2))))
    assert Shop(engine, Policy.open(())).work(source, out)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [each["response"]["status_code"] for each in found] == [400, 200, 400]
    assert found[0]["error"]["code"] == "no-template"


def test_a_line_says_where_its_soup_acts_or_the_batch_does(shop: Shop, tmp_path: Path) -> None:
    soups = [{"weights": {"calm": 0.5}, **more} for more in ({}, {"mode": "answer"}, {"mode": "full"}, {"mode": None})]
    lines = [chat(number, "why is the sky blue?", soup=soup) for number, soup in enumerate(soups)]
    grant = shop.policy.clamp({"calm": 0.5})
    alone = {
        mode: shop.engine.complete(["why is the sky blue?"], [grant], sampling=Sampling(max_new_tokens=6), mode=mode)[
            0
        ].text  # type: ignore[arg-type]
        for mode in ("full", "answer")
    }
    for default, wanted in (("full", ["full", "answer", "full"]), ("answer", ["answer", "answer", "full"])):
        made = answered(shop, tmp_path, *lines, defaults=replace(DEFAULTS, mode=default))  # type: ignore[arg-type]
        bodies = [each["response"]["body"] for each in made]
        assert [each["choices"][0]["message"]["content"] for each in bodies[:3]] == [alone[mode] for mode in wanted]
        assert [each["soup"].get("mode", "full") for each in bodies[:3]] == wanted
        assert len({each["soup"]["merge"] for each in bodies[:3]}) == 2
        assert bodies[3]["error"]["message"].startswith("body.soup.mode: must be 'full' or 'answer'")
