"""The same server over vLLM, by a double of it and (slow) a real one: the same answers, grants, refusals and records as here."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from soupmix.audit import read_records
from soupmix.backends import Limits
from soupmix.backends.local import LocalBackend
from soupmix.backends.vllm import VllmBackend
from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.store import Store
from soupmix.vllm_plugin.checking import Checker
from soupmix.vllm_plugin.setup import read_setup
from tests.support.serving import MODEL, POLICY, Running
from tests.support.vllm_double import KEY, double, open_setup
from tests.support.vllm_real import needs_vllm, real_vllm, small_base, small_store

Start = Callable[..., AbstractContextManager[Running]]
SAID = [{"role": "user", "content": "hi"}]
LIMITS = Limits(rows=8, length=128, waiting=32)


@pytest.fixture(scope="module", params=["double", pytest.param("real", marks=[pytest.mark.slow, needs_vllm])])
def both(
    request: pytest.FixtureRequest,
    start: Start,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_base: Base,
    pico_store: Store,
) -> Iterator[tuple[Running, Running]]:
    """A server over the embedded engine, and one over vLLM."""
    folder = tmp_path_factory.mktemp("setup")
    document = folder / "acme.yaml"
    document.write_text(POLICY)
    base, store = tiny_base, pico_store
    if request.param == "real":
        base = small_base(folder)
        store = small_store(folder, base)
    with ExitStack() as stack:
        if request.param == "real":
            url, key = stack.enter_context(real_vllm(base, store, LIMITS, [document]))
        else:
            checker = Checker(read_setup(open_setup(folder, store, documents=[document])))
            url, key = stack.enter_context(double(Engine.load(base, store), checker, length=128)).url, KEY
        over = partial(VllmBackend, url, key, base, tuple(store), dtype="fp32", limits=LIMITS)
        here = partial(LocalBackend.open, base, store, dtype="fp32", limits=LIMITS)
        policies: Callable[[], tuple[Path, ...]] = lambda: (document,)  # noqa: E731
        local, vllm = (start(policies=policies, store=store, backend=backend) for backend in (here, over))
        yield stack.enter_context(local), stack.enter_context(vllm)


ASKED: dict[str, dict[str, Any]] = {
    "base": {},
    "soup": {"soup": {"weights": {"calm": 0.5, "loud": 0.3}}},
    "clamped": {"soup": {"weights": {"loud": 0.9}, "attributes": {"audience": "minor"}}},
    "refused": {"soup": {"weights": {"plain": 0.9}, "attributes": {"purpose": "support"}}},
    "unknown": {"soup": {"weights": {"nobody": 1}}},
    "logprobs": {"logprobs": True, "top_logprobs": 2, "soup": {"weights": {"plain": 0.4}}},
    "stop": {"stop": ["e", "a"], "soup": {"weights": {"calm": 0.2}}},
    "several": {"n": 2, "soup": {"weights": {"calm": 1}}},
    "factor": {"soup": {"weights": {"calm": 1}, "method": "factor"}},
}


@pytest.mark.parametrize("name", ASKED)
def test_an_answer_is_the_same_whoever_computes_it(both: tuple[Running, Running], name: str) -> None:
    body = {"model": MODEL, "messages": SAID, "temperature": 0, "max_tokens": 6, "user": "eve", **ASKED[name]}
    found = []
    for server in both:
        with server.http() as http:
            answer = http.post("/v1/chat/completions", json=body)
        said = answer.json()
        told = [_without_numbers(each) for each in said.get("choices", [])]
        soup, usage = said.get("soup", {}), said.get("usage", {})
        usage.pop("prompt_tokens_details", None)  # what was cached depends on who asked before
        soup.pop("merge", None)  # each server salts it with a secret of its own
        found.append((answer.status_code, told, usage, soup, said.get("error")))
    assert found[0] == found[1]


def _without_numbers(choice: dict[str, Any]) -> dict[str, Any]:
    """Log probabilities to three digits: they come from two ways to compute the same."""
    for each in (choice.get("logprobs") or {}).get("content") or []:
        for one in (each, *each.get("top_logprobs", [])):
            one["logprob"] = round(one["logprob"], 3)
    return choice


def test_streams_profiles_and_records_are_the_same(both: tuple[Running, Running]) -> None:
    texts, records = [], []
    for server in both:
        with server.http() as http:
            made = http.post("/v1/soups", json={"weights": {"calm": 0.7}}).json()
            client = server.openai()
            stream = client.chat.completions.create(
                model=made["model"],
                messages=SAID,
                max_tokens=5,
                temperature=0,
                stream=True,
            )
            texts.append("".join(each.choices[0].delta.content or "" for each in stream if each.choices))
        audit = server.state.audit
        assert audit is not None
        said = [each for _, each in read_records(audit.folder)]
        records.append([[each.get(name) for name in ("event", "granted", "reason")] for each in said])
    assert texts[0] == texts[1]
    assert records[0] == records[1] != []
