"""The real vLLM, in an environment of its own: `make test-vllm`. Soups are held against the dense merge in transformers."""

import json
import queue
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from soupmix.backends import Delta, Limits, Request, Sampling
from soupmix.backends.vllm import VllmBackend
from soupmix.base import Base
from soupmix.errors import SoupmixError
from soupmix.policy import Policy
from soupmix.store import Store
from soupmix.vllm_plugin.row import FIELD, SoupRow
from tests.support.vllm_real import needs_vllm, real_vllm, small_base, small_store, vllm_python

pytestmark = [pytest.mark.slow, needs_vllm]

LIMITS = Limits(rows=64, length=256, waiting=512)
PEOPLE: Sequence[Mapping[str, float]] = (
    {"calm": 0.5, "loud": 0.3},
    {"plain": 0.9},
    {"calm": 0.2, "plain": 0.35},
    {"loud": 1.0},
)
TOKENS = 12
PROMPTS = [f"{first} {second}?" for first in ("why", "how", "who said", "tell me of", "where is") for second in
           ("the sea", "a cat", "rain", "gold")]  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return small_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, base: Base) -> Store:
    return small_store(tmp_path_factory.mktemp("store"), base)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Path:
    approved = [{"name": each.name, "digest": each.digest} for each in store]
    path = tmp_path_factory.mktemp("policy") / "org.yaml"
    rules = [{"rule": "approve", "adapters": approved, "id": "a"}]
    path.write_text(json.dumps({"tier": "organisation", "issuer": "A", "version": "1", "rules": rules}))
    return path


@pytest.fixture(scope="module")
def policy(store: Store, document: Path) -> Policy:
    return Policy.load(document, adapters=store)


@pytest.fixture(scope="module")
def server(base: Base, store: Store, document: Path) -> Iterator[tuple[str, bytes]]:
    chunked = ["--max-num-batched-tokens", "128"]  # so that prompts come in several steps
    with real_vllm(base, store, LIMITS, [document], chunked) as found:
        yield found


@pytest.fixture(scope="module")
def backend(server: tuple[str, bytes], base: Base, store: Store) -> Iterator[VllmBackend]:
    with VllmBackend(*server, base, tuple(store), dtype="fp32", limits=LIMITS) as made:
        yield made


def answers(backend: VllmBackend, requests: Sequence[Request]) -> list[list[int]]:
    heard: list[queue.Queue[Delta]] = [queue.Queue() for _ in requests]
    for request, each in zip(requests, heard, strict=True):
        backend.submit(replace(request, logprobs=0), each.put)
    found = []
    for each in heard:
        deltas = [each.get(timeout=300)]
        while deltas[-1].finish is None:
            deltas.append(each.get(timeout=300))
        assert deltas[-1].error is None, deltas[-1].error
        found.append([token.id for delta in deltas for token in delta.tokens])
    return found


class Merged:
    """The oracle: W + sum w_k s_k B_k A_k in transformers, greedily."""

    def __init__(self, base: Base, store: Store) -> None:
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_pretrained(base.folder)
        self.weights = {name: each.clone() for name, each in self.model.state_dict().items()}
        self.store = store

    def answer(self, prompt: Sequence[int], granted: Mapping[str, float]) -> list[int]:
        import torch

        self.model.load_state_dict(self.weights)
        for name, weight in granted.items():
            for path, factors in self.store.load(name).modules.items():
                self.model.get_submodule(path).weight.data += weight * factors.scaling * (factors.B @ factors.A)
        ids = torch.tensor([list(prompt)])
        made = self.model.generate(ids, max_new_tokens=TOKENS, do_sample=False, eos_token_id=1, pad_token_id=0)
        found: list[int] = made[0, len(prompt) :].tolist()
        return found[: found.index(1)] if 1 in found else found


def test_soups_are_the_dense_merge_and_rows_beside_them_the_base(
    backend: VllmBackend, base: Base, store: Store, policy: Policy
) -> None:
    oracle, how = Merged(base, store), Sampling(max_new_tokens=TOKENS)
    prompts = [backend.tokens(each) for each in PROMPTS]
    grants = [policy.clamp(each) for each in (*PEOPLE, {})]
    asked = [(prompt, grant) for prompt in prompts for grant in grants]
    found = answers(backend, [Request(prompt, grant, how) for prompt, grant in asked])
    wanted = {}
    for grant in grants:  # one merge after the other
        wanted.update({(p, grant): oracle.answer(p, grant.granted.floats()) for p in prompts})
    assert found == [wanted[prompt, grant] for prompt, grant in asked]
    soups = [each for each, (_, grant) in zip(found, asked, strict=True) if grant.granted]
    bare = [each for each, (_, grant) in zip(found, asked, strict=True) if not grant.granted]
    assert not any(one in bare for one in soups[:8]), "they are not the base"


def test_sixty_four_people_that_nobody_has_seen_are_answered_at_once(backend: VllmBackend, policy: Policy) -> None:
    prompt, how = backend.tokens("once upon a time"), Sampling(max_new_tokens=6)
    people = [policy.clamp({"calm": n / 64, "plain": 1 - n / 64}) for n in range(64)]
    requests = [Request(prompt, grant, how, person=f"p{n}") for n, grant in enumerate(people)]
    together = answers(backend, requests)
    assert together[::9] == [answers(backend, [each])[0] for each in requests[::9]], "as each of them alone"
    assert len({tuple(each) for each in together}) > 3


def test_a_prefix_is_found_again_by_its_person_alone(
    server: tuple[str, bytes], backend: VllmBackend, policy: Policy
) -> None:
    prompt, how = backend.tokens("a long story " * 14), Sampling(max_new_tokens=4)  # a block has 128 tokens on the CPU
    request = Request(prompt, policy.clamp({"plain": 0.9}), how, person="eve")
    hits = []
    for each in (request, request, replace(request, person="bob"), replace(request, grant=policy.clamp({"calm": 0.9}))):
        before = _hits(server[0])
        answers(backend, [each])
        hits.append(_hits(server[0]) - before)
    assert hits[0] == hits[2] == hits[3] == 0
    assert hits[1] > 0


def _hits(url: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(each.split()[-1]) for each in lines if each.startswith("vllm:prefix_cache_hits_total"))


def test_weights_that_nobody_granted_are_refused(
    server: tuple[str, bytes], backend: VllmBackend, policy: Policy, store: Store
) -> None:
    url, key = server
    held, prompt = [(each.name, each.digest) for each in store], list(backend.tokens("once"))
    row = SoupRow.of(policy.clamp({"calm": 0.5}), held, "s")
    loud = row.model_copy(update={"weights": (5_000_000, 0, 0)})

    def ask(text: object, salt: str | None = "s", tokens: Sequence[int] = prompt) -> tuple[int, str]:
        body = {
            "model": backend._model,
            "prompt": list(tokens),
            "max_tokens": 1,
            "vllm_xargs": {FIELD: text},
            "cache_salt": salt,
        }
        answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
        return answer.status_code, answer.json().get("error", {}).get("message", "")

    assert ask(row.seal(key, prompt)) == (200, "")
    for text, salt, tokens, reason in (
        (row.seal(key[::-1], prompt), "s", prompt, "forged"),
        (row.seal(key, prompt), "s", [*prompt, 5], "forged"),
        (row.seal(key, prompt), "other", prompt, "other-salt"),
        (row.seal(key, prompt), None, prompt, "other-salt"),
        (loud.seal(key, prompt), "s", prompt, "not-granted"),
        ("calm=5", "s", prompt, "bad-row"),
        (7, "s", prompt, "bad-row"),
    ):
        status, message = ask(text, salt, tokens)
        assert (status, message.rpartition("[")[2]) == (400, f"{reason}]"), message


def test_nobody_learns_of_people_or_adapters_from_the_server(server: tuple[str, bytes]) -> None:
    models = httpx.get(f"{server[0]}/v1/models").json()["data"]
    assert len(models) == 1
    assert "calm" not in httpx.get(f"{server[0]}/metrics").text


NGRAM = '{"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}'


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--enable-lora"], "stock LoRA"), (["--speculative-config", NGRAM], "speculative")],
)
def test_vllm_does_not_start_with_what_soups_do_not_go_together_with(
    base: Base, store: Store, document: Path, arguments: list[str], said: str
) -> None:
    opened = real_vllm(base, store, LIMITS, [document], arguments)
    with pytest.raises(SoupmixError, match=said) as caught, opened:
        pass
    assert caught.value.reason == "vllm-failed"


def test_the_environment_is_as_it_was_meant() -> None:
    code = "import vllm, torch; print(vllm.__version__, torch.__version__, torch.version.cuda)"
    done = subprocess.run([str(vllm_python()), "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0.32.0 2.13.0+cpu None"
