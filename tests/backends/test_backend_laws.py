"""What every backend must do, whatever computes behind it: the embedded engine, vLLM, and the double that says prompts back."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from soupmix.backends import Backend, Delta, Limits, Request, Sampling
from soupmix.backends.local import LocalBackend
from soupmix.backends.vllm import VllmBackend
from soupmix.base import Base
from soupmix.batching import LoopName
from soupmix.engine import Engine
from soupmix.errors import Overloaded, PolicyError, RecipeError
from soupmix.policy import Grant, Policy
from soupmix.policy.recorded import read_record
from soupmix.store import Store
from soupmix.vllm_plugin.checking import Checker
from soupmix.vllm_plugin.setup import read_setup
from tests.support.echo_backend import EchoBackend
from tests.support.vllm_double import double, open_setup
from tests.support.vllm_real import needs_vllm, real_vllm, small_base, small_store

Granter = Callable[..., Grant]
Opener = Callable[[], AbstractContextManager[Backend]]
LIMITS = Limits(rows=4, length=64, waiting=8)
TALK = [{"role": "user", "content": "why?"}]


REAL = pytest.param("real vllm", marks=[pytest.mark.slow, needs_vllm])


@pytest.fixture(scope="module", params=["local", "padded", "echo", "vllm", REAL])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def served(
    kind: str, tiny_base: Base, pico_store: Store, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Base, Store]:
    if kind != "real vllm":
        return tiny_base, pico_store
    folder = tmp_path_factory.mktemp("real")
    base = small_base(folder)
    return base, small_store(folder, base)


@pytest.fixture(scope="module")
def opened(kind: str, served: tuple[Base, Store], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opener]:
    base, store = served
    if kind == "echo":
        yield lambda: EchoBackend(LIMITS)
        return
    if kind == "real vllm":
        with real_vllm(base, store, LIMITS) as (url, key):
            yield lambda: VllmBackend(url, key, base, tuple(store), dtype="fp32", limits=LIMITS)
        return
    engine = Engine.load(base, store)
    if kind == "vllm":
        setup = read_setup(open_setup(tmp_path_factory.mktemp("setup"), store))
        with double(engine, Checker(setup)) as server:
            yield lambda: VllmBackend(server.url, setup.key, base, tuple(store), dtype="fp32", limits=LIMITS)
        return
    loop: LoopName = "padded" if kind == "padded" else "running"
    yield lambda: LocalBackend(engine, LIMITS, loop=loop)


@pytest.fixture
def grant(served: tuple[Base, Store]) -> Granter:
    policy = Policy.open(tuple(served[1]))
    return lambda **weights: policy.clamp(weights)


@pytest.fixture(scope="module")
def backend(opened: Opener) -> Iterator[Backend]:
    with opened() as made:
        yield made


def told(backend: Backend, request: Request) -> list[Delta]:
    heard: queue.Queue[Delta] = queue.Queue()
    backend.submit(request, heard.put)
    found = [heard.get(timeout=60)]
    while found[-1].finish is None:
        found.append(heard.get(timeout=60))
    return found


def test_a_backend_that_cannot_be_made_leaves_no_thread(tiny_base: Base, pico_store: Store) -> None:
    engine, before = Engine.load(tiny_base, pico_store), threading.active_count()
    with pytest.raises(RecipeError, match="is not known"):
        LocalBackend(engine, LIMITS, method="median")
    assert threading.active_count() == before


def test_a_vocabulary_may_be_that_of_the_text_part_of_a_model(
    tiny_base: Base, pico_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(tiny_base, pico_store)
    config = engine.model.config
    nested = {name: value for name, value in vars(config).items() if name != "vocab_size"}
    nested["get_text_config"] = lambda *_, **__: config
    monkeypatch.setattr(engine.model, "config", SimpleNamespace(**nested))
    with LocalBackend(engine, LIMITS) as backend:
        assert backend.vocabulary.size == config.vocab_size


def test_tokens_are_of_the_vocabulary(backend: Backend) -> None:
    for said in ("", "once upon a time", "naïve 😀", TALK):
        tokens = backend.tokens(said)
        assert all(0 <= token < backend.vocabulary.size for token in tokens)
        if isinstance(said, str):
            assert len(said) <= len(tokens) * backend.vocabulary.longest


def test_an_answer_that_has_begun_stands_behind_its_conversation(backend: Backend) -> None:
    before = backend.tokens(TALK)
    after = backend.tokens([*TALK, {"role": "assistant", "content": "as"}])
    assert after[: len(before)] == before
    assert len(after) > len(before)


def test_an_answer_is_told_to_its_end_and_counted(backend: Backend, grant: Granter) -> None:
    prompt, most = backend.tokens("once upon"), 5
    for logprobs in (None, 0):
        before = backend.state().generated_tokens
        deltas = told(backend, Request(prompt, grant(calm=0.5), Sampling(max_new_tokens=most), logprobs=logprobs))
        assert [each.finish for each in deltas[:-1]] == [None] * (len(deltas) - 1)
        last = deltas[-1]
        assert (last.finish, last.error) in (("length", None), ("stop", None))
        assert last.prompt_tokens == len(prompt)
        assert last.completion_tokens <= most
        assert (last.completion_tokens == most) == (last.finish == "length")
        counts = [each.completion_tokens for each in deltas]
        assert counts == sorted(counts)
        assert sum(len(each.tokens) for each in deltas) == (0 if logprobs is None else last.completion_tokens)
        assert backend.state().generated_tokens >= before + last.completion_tokens
    assert "".join(each.text for each in deltas)


def test_an_identity_is_of_a_grant_and_a_tenant(backend: Backend, grant: Granter) -> None:
    made = [backend.identity(grant(calm=weight), "delta", tenant) for weight in (0, 0.5) for tenant in ("", "acme")]
    assert len({*made}) == 4
    assert made[0] == backend.identity(grant(), "delta")


def test_what_cannot_be_answered_is_refused_before_anything_is_told(backend: Backend, grant: Granter) -> None:
    good = Request(backend.tokens("once"), grant(calm=0.5), Sampling(max_new_tokens=5))
    read: Any = read_record(grant(calm=0.5).to_dict())
    for bad, error, reason in (
        (replace(good, prompt=()), RecipeError, "empty-prompt"),
        (replace(good, sampling=Sampling(max_new_tokens=LIMITS.length)), RecipeError, "too-long"),
        (replace(good, method="none"), RecipeError, "method"),
        (replace(good, grant=read), PolicyError, "not-granted"),
    ):
        heard: list[Delta] = []
        with pytest.raises(error) as caught:
            backend.submit(bad, heard.append)
        assert (caught.value.reason, heard) == (reason, [])


def test_a_cancelled_answer_ends(backend: Backend, grant: Granter) -> None:
    heard: queue.Queue[Delta] = queue.Queue()
    ticket = backend.submit(Request(backend.tokens("once"), grant(), Sampling(max_new_tokens=40)), heard.put)
    ticket.cancel()
    while (delta := heard.get(timeout=60)).finish is None:
        pass
    assert delta.finish in ("cancelled", "stop", "length")
    ticket.cancel()


def test_a_backend_that_is_closed_takes_nothing_and_says_so(opened: Opener, grant: Granter) -> None:
    with opened() as backend:
        request = Request(backend.tokens("once"), grant(), Sampling(max_new_tokens=3))
        backend.check_room()
        assert backend.state().alive
        heard: queue.Queue[Delta] = queue.Queue()
        backend.submit(request, heard.put)
        backend.close(drain=60)
        assert [*heard.queue][-1].finish in ("stop", "length"), "what ran was let end"
        assert not backend.state().alive
        for act in (backend.check_room, lambda: backend.submit(request, heard.put)):
            with pytest.raises(Overloaded) as caught:
                act()
            assert caught.value.reason == "draining"
