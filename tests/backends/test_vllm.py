"""The backend over vLLM, against a double of its server: what goes there, what comes back, and whom it does not trust."""

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from soupmix.backends import Delta, Limits, Request, Sampling
from soupmix.backends.local import LocalBackend
from soupmix.backends.vllm import VllmBackend
from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.errors import BaseModelError, Overloaded, SoupmixError
from soupmix.policy import Grant
from soupmix.store import Store
from soupmix.vllm_plugin.checking import Checker
from soupmix.vllm_plugin.row import FIELD
from soupmix.vllm_plugin.setup import read_setup
from tests.support.any_router import router
from tests.support.vllm_double import KEY, VllmDouble, double, open_setup

Granter = Callable[..., Grant]
LIMITS = Limits(rows=4, length=128, waiting=8)


@pytest.fixture(scope="module")
def checker(pico_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Checker:
    return Checker(read_setup(open_setup(tmp_path_factory.mktemp("setup"), pico_store)))


@pytest.fixture(scope="module")
def engine(tiny_base: Base, pico_store: Store) -> Engine:
    return Engine.load(tiny_base, pico_store, fused=False)


@pytest.fixture
def server(engine: Engine, checker: Checker) -> Iterator[VllmDouble]:
    with double(engine, checker) as made:
        yield made


@pytest.fixture
def backend(server: VllmDouble, tiny_base: Base, pico_store: Store) -> Iterator[VllmBackend]:
    with VllmBackend(server.url, KEY, tiny_base, tuple(pico_store), dtype="fp32", limits=LIMITS) as made:
        server.seen.clear()
        yield made


def told(backend: VllmBackend | LocalBackend, *requests: Request) -> list[list[Delta]]:
    heard: list[queue.Queue[Delta]] = [queue.Queue() for _ in requests]
    for request, each in zip(requests, heard, strict=True):
        backend.submit(request, each.put)
    found = []
    for each in heard:
        one = [each.get(timeout=60)]
        while one[-1].finish is None:
            one.append(each.get(timeout=60))
        found.append(one)
    return found


def test_it_answers_as_the_embedded_engine_does(backend: VllmBackend, engine: Engine, grant: Granter) -> None:
    requests = [
        Request(backend.tokens(said), grant(**weights), Sampling(max_new_tokens=8), stop=stop, logprobs=logprobs)
        for said in ("once upon", "why?")
        for weights in ({}, {"calm": 0.5}, {"plain": 0.9, "loud": 0.1})
        for stop, logprobs in (((), None), (("e",), 3))
    ]
    with LocalBackend(engine, replace(LIMITS, waiting=64)) as local:
        for request in requests:
            (here,), (there,) = told(local, request), told(backend, request)
            assert "".join(each.text for each in here) == "".join(each.text for each in there)
            for one, other in zip(here[-1:], there[-1:], strict=True):
                assert (one.finish, one.completion_tokens) == (other.finish, other.completion_tokens)
            one, other = ([token for each in deltas for token in each.tokens] for deltas in (here, there))
            assert [(each.id, each.data, len(each.likeliest)) for each in one] == [
                (each.id, each.data, len(each.likeliest)) for each in other
            ]
            assert [each.logprob for each in other] == pytest.approx([each.logprob for each in one], abs=1e-4)


def test_what_is_sent_names_nobody_and_says_nothing_of_them(
    backend: VllmBackend, server: VllmDouble, grant: Granter
) -> None:
    request = Request(backend.tokens("once"), grant(calm=0.5), Sampling(max_new_tokens=2), tenant="acme", person="eve")
    told(backend, request, replace(request, person="bob"), replace(request, grant=grant()))
    bare, soup, other = sorted(server.seen, key=lambda each: "vllm_xargs" in each)
    assert "eve" not in str(soup)
    assert "acme" not in str(soup)
    assert soup["vllm_xargs"].keys() == {FIELD}
    assert "vllm_xargs" not in bare
    assert len({each["cache_salt"] for each in server.seen}) == 3
    assert soup["prompt"] == list(request.prompt)
    assert other["cache_salt"] != soup["cache_salt"]


def test_a_salt_is_of_a_merge_and_a_person_and_of_nobody_twice(
    backend: VllmBackend, server: VllmDouble, grant: Granter
) -> None:
    one = Request(backend.tokens("once"), grant(calm=0.5), Sampling(max_new_tokens=1), person="eve")
    told(backend, one, one, replace(one, person=None), replace(one, person=None), replace(one, tenant="acme"))
    salts = [each["cache_salt"] for each in server.seen]
    assert len(set(salts)) == 4
    assert max(map(salts.count, salts)) == 2, "those of one person with one merge"


def test_it_knows_whom_it_asks(engine: Engine, checker: Checker, tiny_base: Base, pico_store: Store) -> None:
    held = tuple(pico_store)
    with double(engine, checker) as server, double(engine, checker, hooked=False) as plain:
        for url, key, adapters, reason in (
            (plain.url, KEY, held, "no-soups"),
            (server.url, KEY[::-1], held, "other-key"),
            (server.url, KEY, held[:2], "other-adapters"),
            ("http://127.0.0.1:9", KEY, held, "unreachable"),
        ):
            with pytest.raises(BaseModelError) as caught:
                VllmBackend(url, key, tiny_base, adapters, dtype="fp32", limits=LIMITS)
            assert caught.value.reason == reason


def test_rows_are_no_longer_than_the_servers(backend: VllmBackend) -> None:
    assert backend.limits.length == 64


def test_an_answer_that_breaks_off_is_an_error_and_not_a_short_answer(
    backend: VllmBackend, server: VllmDouble, grant: Granter
) -> None:
    server.failing = True
    (deltas,) = told(backend, Request(backend.tokens("once"), grant(calm=0.5), Sampling(max_new_tokens=4)))
    assert (deltas[-1].finish, len(deltas)) == ("error", 1)
    assert isinstance(deltas[-1].error, SoupmixError)
    assert deltas[-1].error.reason == "step-failed"


def test_what_the_server_refuses_is_said_with_its_reason(
    backend: VllmBackend, server: VllmDouble, grant: Granter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_key", KEY[::-1])
    (deltas,) = told(backend, Request(backend.tokens("once"), grant(calm=0.5), Sampling(max_new_tokens=4)))
    assert deltas[-1].error is not None
    assert (deltas[-1].finish, deltas[-1].error.reason) == ("error", "forged")
    (deltas,) = told(backend, Request(backend.tokens("once"), grant(), Sampling(max_new_tokens=4)))
    assert deltas[-1].finish == "length", "the base needs no row"


def test_whatever_a_server_sends_an_answer_ends_and_leaves_its_place(
    backend: VllmBackend, grant: Granter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(*_: object) -> None:
        raise IndexError("a list of log probabilities that is too short")

    monkeypatch.setattr(backend, "_accept", odd)
    (deltas,) = told(backend, Request(backend.tokens("once"), grant(), Sampling(max_new_tokens=4)))
    assert deltas[-1].error is not None
    assert (deltas[-1].finish, deltas[-1].error.reason) == ("error", "step-failed")
    assert (backend.state().waiting, backend.state().running) == (0, 0)


def test_replicas_behind_any_router_answer_as_one_and_one_that_goes_is_not_missed(
    engine: Engine, checker: Checker, tiny_base: Base, pico_store: Store, backend: VllmBackend, grant: Granter
) -> None:
    requests = [
        Request(backend.tokens(said), grant(calm=weight), Sampling(max_new_tokens=4), person=said)
        for said in ("once", "why?", "who")
        for weight in (0.25, 0.75)
    ]
    alone = [_text(each) for each in told(backend, *requests)]
    with ExitStack() as stack:
        stays = stack.enter_context(double(engine, checker))
        goes = stack.enter_context(double(engine, checker))
        url = stack.enter_context(router([("127.0.0.1", each.server_address[1]) for each in (stays, goes)]))
        held, limits = tuple(pico_store), replace(LIMITS, rows=8)
        over = stack.enter_context(VllmBackend(url, KEY, tiny_base, held, dtype="fp32", limits=limits))
        before = len(stays.seen), len(goes.seen)
        assert [_text(each) for each in told(over, *requests)] == alone
        assert (len(stays.seen) > before[0], len(goes.seen) > before[1]) == (True, True), "both had a share"
        goes.shutdown()
        goes.server_close()
        assert [_text(each) for each in told(over, *requests)] == alone


def _text(deltas: list[Delta]) -> str:
    assert deltas[-1].error is None, deltas[-1].error
    return "".join(each.text for each in deltas)


def test_a_server_that_is_not_there_for_a_moment_is_asked_again(
    engine: Engine, checker: Checker, tiny_base: Base, pico_store: Store, grant: Granter
) -> None:
    with double(engine, checker) as server:
        port = server.server_address[1]
        backend = VllmBackend(server.url, KEY, tiny_base, tuple(pico_store), dtype="fp32", limits=LIMITS)
    with backend:
        request = Request(backend.tokens("once"), grant(), Sampling(max_new_tokens=2))
        heard: queue.Queue[Delta] = queue.Queue()
        backend.submit(request, heard.put)
        time.sleep(0.3)
        assert heard.empty(), "nothing was sent yet, so nothing is lost"
        with double(engine, checker, port=port):
            found = [heard.get(timeout=60)]
            while found[-1].finish is None:
                found.append(heard.get(timeout=60))
    assert found[-1].error is None


def test_a_server_that_has_gone_is_told_with_what_to_do(
    engine: Engine,
    checker: Checker,
    tiny_base: Base,
    pico_store: Store,
    grant: Granter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("soupmix.backends.vllm._TRIES", 1)
    with double(engine, checker) as server:
        backend = VllmBackend(server.url, KEY, tiny_base, tuple(pico_store), dtype="fp32", limits=LIMITS)
    with backend:
        (deltas,) = told(backend, Request(backend.tokens("once"), grant(), Sampling(max_new_tokens=2)))
    error = deltas[-1].error
    assert isinstance(error, Overloaded)
    assert error.reason == "unreachable"
    assert "took no connection" in str(error)
    assert "ask again" in str(error)
