"""A running batch whose steps are compiled answers as the engine does, in all modes, with neighbours that end in an error."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from soupmix.backends import Limits, Request, Sampling
from soupmix.base import Base, resolve
from soupmix.batching import Batcher
from soupmix.engine import Engine
from soupmix.policy import Grant, Policy
from soupmix.store import Store
from tests.support.batcher_client import answer, ask

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler here")

SMALL = Limits(rows=3, length=256, chunk=16)
WORDS = ["one two three", "a longer prompt than the step's part of sixteen tokens", "four", "five six"]


@pytest.fixture(scope="module")
def compiled(tiny_base: Base, pico_store: Store) -> Engine:
    return Engine.load(tiny_base, pico_store, compiled=True)


@pytest.mark.parametrize("mode", ["full", "answer"])
@pytest.mark.parametrize("method", ["delta", "factor"])
def test_answers_are_those_of_the_engine(
    compiled: Engine, plain: Engine, grant: Callable[..., Grant], mode: str, method: str
) -> None:
    people, few = [grant(calm=1), grant(), grant(loud=0.5, plain=0.5), grant(calm=0.3)], Sampling(max_new_tokens=9)
    with Batcher(compiled, SMALL, method=method) as batcher:
        assert "steps are compiled for" in batcher.state().why
        asked = [
            Request(compiled.chat_tokens(words), who, few, mode=mode)  # type: ignore[arg-type]
            for words, who in zip(WORDS, people, strict=True)
        ]
        found = answer(batcher, asked)
    for engine in (plain, compiled):
        alone = engine.complete(WORDS, people, sampling=few, mode=mode, method=method)  # type: ignore[arg-type]
        assert found == [each.text for each in alone]


def test_a_row_that_is_not_finite_ends_alone_and_leaves_nothing(
    tmp_path: Path, session_cache: Path, tiny_model: Callable[..., Path]
) -> None:
    base = resolve(tiny_model(tmp_path / "untied", tied=False), cache=session_cache)
    engine, few, nobody = Engine.load(base, None, compiled=True), Sampling(max_new_tokens=9), Policy.open(()).clamp({})
    poison = 99
    assert poison not in [token for words in WORDS for token in engine.chat_tokens(words)]
    expected = [each.text for each in engine.complete(WORDS, [nobody] * 4, sampling=few)]
    with torch.inference_mode():
        engine.model.model.embed_tokens.weight[poison] = torch.nan
    with Batcher(engine, SMALL) as batcher:
        given = ((poison,) * 40, engine.chat_tokens(WORDS[0]), (7, poison))
        ends = [each.wait()[-1] for each in [ask(batcher, Request(tokens, nobody, few)) for tokens in given]]
        assert [each.error and each.error.reason for each in ends] == ["not-finite", None, "not-finite"]
        found = answer(batcher, [Request(engine.chat_tokens(words), nobody, few) for words in WORDS])
    assert found == expected
