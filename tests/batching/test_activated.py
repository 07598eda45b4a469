"""Activated soups in the running batch: what PEFT computes, and a prompt of which nothing is anybody's but what was asked."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from soupmix.backends import Limits, Request
from soupmix.base import Base
from soupmix.batching import Batcher
from soupmix.engine import Engine, Sampling
from soupmix.errors import RecipeError
from soupmix.policy import Grant
from soupmix.store import Store
from tests.support.activated import Activated
from tests.support.batcher_client import answer, ask

Granter = Callable[..., Grant]
SMALL = Limits(rows=5, length=256, waiting=64, chunk=16)  # so that a part of a prompt ends anywhere
WORDS = ["why is the sky blue?", "hi", "tell me about tides and the moon, at some length, please" * 2, "what is rust?"]


@pytest.fixture(params=["running", "padded"])
def batcher(request: pytest.FixtureRequest, plain: Engine) -> Iterator[Batcher]:
    with Batcher(plain, SMALL, loop=request.param) as made:
        yield made


def test_tokens_have_the_probabilities_that_peft_gives_them(
    batcher: Batcher, tiny_base: Base, pico_store: Store, grant: Granter
) -> None:
    """Rows of both modes, of other lengths and soups, that join and leave while others run."""
    engine, draw = batcher.engine, random.Random(0)
    soups = [{"calm": 1.0}, {"calm": 0.5, "loud": 0.75}, {"plain": 0.75, "loud": 0.25}]
    oracles = [Activated(tiny_base, pico_store, each) for each in soups]
    prompts = [*(engine.chat_tokens(each) for each in WORDS), engine.plain_tokens("as it stands"), (7,)]
    rows = [(draw.choice(prompts), draw.randrange(3), mode) for mode in ("full", "answer") * 12]
    pending = [
        ask(
            batcher,
            Request(ids, grant(**soups[soup]), Sampling(max_new_tokens=6 + n % 5), mode=mode, logprobs=3),  # type: ignore[arg-type]
        )
        for n, (ids, soup, mode) in enumerate(rows)
    ]
    for n, ((ids, soup, mode), each) in enumerate(zip(rows, pending, strict=True)):
        told = [token for delta in each.wait() for token in delta.tokens]
        said, logprobs = oracles[soup].greedy(ids, engine.bare(ids, mode), 6 + n % 5)  # type: ignore[arg-type]
        assert [token.id for token in told] == said[: len(told)], (n, mode)
        for token, wanted in zip(told, logprobs, strict=False):
            found = torch.tensor([likely[3] for likely in token.likeliest])
            torch.testing.assert_close(found, wanted.topk(3).values, rtol=0, atol=2e-4)


def test_a_row_is_what_the_engine_makes_of_it(engine: Engine, grant: Granter) -> None:
    few, modes = Sampling(max_new_tokens=8, temperature=0.8, seed=5), ["answer", "full", "answer", "answer"]
    who = [grant(calm=0.5), grant(loud=0.5), grant(), grant(calm=0.25, plain=0.5)]
    alone = [
        engine.complete([words], [each], sampling=few, mode=mode)[0].text  # type: ignore[arg-type]
        for words, each, mode in zip(WORDS, who, modes, strict=True)
    ]
    requests = [
        Request(engine.chat_tokens(words), each, few, mode=mode)  # type: ignore[arg-type]
        for words, each, mode in zip(WORDS, who, modes, strict=True)
    ]
    with Batcher(engine, SMALL) as batcher:
        assert answer(batcher, requests) == alone


def held(engine: Engine, requests: list[Request], limits: Limits = SMALL) -> list[torch.Tensor]:
    """What lies in the slots after these requests: keys and values of each attention [slots, heads, tokens, size]."""
    with Batcher(engine, limits) as batcher:
        answer(batcher, requests)
        slots = batcher._runner._loop._slots  # type: ignore[attr-defined]
        return [each.clone() for each in (*slots._keys, *slots._values)]


def test_nothing_personal_is_in_what_is_computed_of_a_prompt(engine: Engine, tiny_base: Base, grant: Granter) -> None:
    """Whatever the weights are, its keys and values are those of the bare base, bit for bit; behind it they are not."""
    ids = engine.chat_tokens(WORDS[2])
    bare = engine.bare(ids, "answer")
    request = Request(ids, grant(), Sampling(max_new_tokens=2), mode="answer")
    nobody = held(engine, [request])
    for who in (grant(calm=1), grant(loud=0.3), grant(calm=0.3, loud=0.3, plain=0.3)):
        found = list(zip(held(engine, [replace(request, grant=who)]), nobody, strict=True))
        assert all(torch.equal(one[0, :, :bare], base[0, :, :bare]) for one, base in found)
        assert not all(torch.equal(one[0, :, : len(ids)], base[0, :, : len(ids)]) for one, base in found)
    full = held(engine, [replace(request, grant=grant(calm=1), mode="full")])
    assert not torch.equal(full[0][0, :, :bare], nobody[0][0, :, :bare]), "a soup on the prompt would show"
    without = Engine.load(
        tiny_base, None, fused=engine.model.model.layers[0].self_attn.q_proj.group.base._packed is not None
    )
    for found, base in zip(nobody, held(without, [request]), strict=True):
        assert torch.equal(found[0, :, :bare], base[0, :, :bare])


def test_nor_does_a_neighbour_show_in_it(engine: Engine, grant: Granter) -> None:
    """In the steps in which a prompt is computed others run in full mode, each with soups of their own."""
    ids, other = engine.chat_tokens(WORDS[0]), engine.chat_tokens(WORDS[3])
    bare, few = engine.bare(ids, "answer"), Sampling(max_new_tokens=3)
    limits = replace(SMALL, chunk=256)
    found = [
        held(
            engine,
            [Request(other, who, few), Request(ids, grant(calm=0.4), few, mode="answer"), Request(other, who, few)],
            limits,
        )
        for who in (grant(loud=1), grant(plain=0.7))
    ]
    for one, two in zip(*found, strict=True):
        assert torch.equal(one[1, :, :bare], two[1, :, :bare])
        assert not torch.equal(one[0, :, :bare], two[0, :, :bare])


def test_a_prompt_is_computed_once_for_a_person_whatever_the_weights_are(engine: Engine, grant: Granter) -> None:
    ids, few = engine.chat_tokens(WORDS[2]), Sampling(max_new_tokens=2)
    bare = engine.bare(ids, "answer")
    asked = [
        (grant(calm=0.5), "acme", "ann", "answer", 0),
        (grant(loud=0.5), "acme", "ann", "answer", bare),
        (grant(), "acme", "ann", "answer", bare),
        (grant(calm=0.5), "acme", "ann", "full", 0),
        (grant(loud=0.5), "acme", "ann", "answer", len(ids) - 1),
        (grant(), "acme", "ann", "full", 0),
        (grant(calm=0.5), "acme", "bob", "answer", 0),
        (grant(calm=0.5), "zeta", "ann", "answer", 0),
        (grant(calm=0.5), "acme", None, "answer", 0),
        (grant(calm=0.5), "acme", None, "answer", 0),
    ]
    with Batcher(engine, Limits(rows=16, length=256, waiting=64, chunk=16)) as batcher:
        for who, tenant, person, mode, cached in asked:
            before = batcher.state().prompt_tokens
            request = Request(ids, who, few, mode=mode, tenant=tenant, person=person)  # type: ignore[arg-type]
            assert ask(batcher, request).wait()[-1].cached_tokens == cached, (tenant, person, mode)
            assert batcher.state().prompt_tokens - before == len(ids) - cached, "what time would tell"


def test_an_answer_goes_on_as_it_would_have(batcher: Batcher, grant: Granter) -> None:
    """What has begun of an answer is a part of it."""
    engine, who = batcher.engine, grant(calm=0.75, loud=0.25)
    ids = engine.chat_tokens(WORDS[0])

    def said(prompt: tuple[int, ...], most: int) -> list[int]:
        request = Request(prompt, who, Sampling(max_new_tokens=most), mode="answer", logprobs=0)
        return [token.id for delta in ask(batcher, request).wait() for token in delta.tokens]

    whole = said(ids, 16)
    assert len(whole) == 16
    begun = (*ids, *whole[:6])
    assert engine.bare(begun, "answer") == engine.bare(ids, "answer")
    assert [*whole[:6], *said(begun, 10)] == whole


def test_earlier_answers_are_read_by_the_base(batcher: Batcher, grant: Granter) -> None:
    """The soup's keys and values of an answer are not those of the next turn's prompt."""
    engine, talk, ten = batcher.engine, [{"role": "user", "content": WORDS[0]}], Sampling(max_new_tokens=10)
    for who in (grant(calm=1), grant(calm=1), grant(loud=1), grant()):
        request = Request(engine.chat_tokens(talk), who, ten, mode="answer", person="ann")
        deltas = ask(batcher, request).wait()
        text = "".join(delta.text for delta in deltas)
        assert text == engine.complete([talk], [who], sampling=ten, mode="answer")[0].text
        if len(talk) > 1 and batcher.loop.name == "running":
            assert deltas[-1].cached_tokens == engine.bare(engine.chat_tokens(talk[:-2]), "answer")
        talk += [{"role": "assistant", "content": text}, {"role": "user", "content": "and?"}]


def test_what_the_operator_declares_is_computed_once_for_all_people_and_weights(engine: Engine, grant: Granter) -> None:
    def prompt(said: str) -> tuple[int, ...]:
        return engine.chat_tokens([{"role": "system", "content": "be kind"}, {"role": "user", "content": said}])

    shared, few = prompt("x")[:9], Sampling(max_new_tokens=4)
    rows: list[tuple[str | None, str, dict[str, float], int]] = [
        ("ann", "acme", {"calm": 0.5}, 0),
        ("bob", "acme", {"loud": 0.5}, 9),
        (None, "acme", {}, 9),
        ("eve", "zeta", {"calm": 0.5}, 0),
    ]
    with Batcher(engine, Limits(rows=12, length=256, waiting=64, chunk=64)) as batcher:
        batcher.share(shared)
        batcher.share(prompt("secret"))  # reaches into what runs on the soup: nothing of it goes on
        for number, (person, tenant, weights, cached) in enumerate(rows):
            said = ["my pin is 4711", "my pin is 4712", "my pin", "my pin is 4711"][number]
            who = grant(**weights)
            request = Request(prompt(said), who, few, mode="answer", tenant=tenant, person=person)
            deltas = ask(batcher, request).wait()
            assert deltas[-1].cached_tokens == cached, "and not a token of what is behind it"
            talk = [{"role": "system", "content": "be kind"}, {"role": "user", "content": said}]
            assert (
                "".join(delta.text for delta in deltas)
                == engine.generate([talk], [who], mode="answer", max_new_tokens=4)[0]
            )
        full = Request(prompt("my pin"), grant(calm=0.5), few, tenant="acme", person="fay")
        assert ask(batcher, full).wait()[-1].cached_tokens == 0, "no soup goes on from the base"
        assert ask(batcher, replace(full, person="gus")).wait()[-1].cached_tokens == 9, "but from itself"
        for person in ("hal", "ida"):
            request = Request(prompt("secret"), grant(calm=0.5), few, mode="answer", tenant="acme", person=person)
            assert ask(batcher, request).wait()[-1].cached_tokens == 9


def test_64_people_under_one_declared_beginning_compute_it_once(engine: Engine, grant: Granter) -> None:
    opening = tuple(5 + number % 200 for number in range(100))
    draw = random.Random(1)
    few = Sampling(max_new_tokens=3)
    requests = [
        Request(
            (*opening, 9 + number, 8, 7),
            grant(calm=round(draw.random() / 2, 3), loud=round(draw.random() / 2, 3)),
            few,
            mode="answer",
            person=f"{number}",
        )
        for number in range(64)
    ]
    with Batcher(engine, Limits(rows=64, length=128, waiting=64, chunk=512)) as batcher:
        batcher.share(opening)
        found = answer(batcher, requests)
        computed = batcher.state().prompt_tokens
        assert computed <= 512 + 64 * 3, "of what begins in one step some is computed twice"
    with Batcher(engine, Limits(rows=8, length=128, waiting=64, chunk=512)) as batcher:
        assert answer(batcher, [replace(each, person=None) for each in requests]) == found


@pytest.mark.parametrize("wrong", ["prompt", None, 3, "Answer"])
def test_a_mode_that_is_none_is_refused_at_once(batcher: Batcher, grant: Granter, wrong: Any) -> None:
    with pytest.raises(RecipeError, match="is not known; choose one of full, answer") as caught:
        ask(batcher, Request((5, 6), grant(), Sampling(max_new_tokens=1), mode=wrong))
    assert caught.value.reason == "mode"
