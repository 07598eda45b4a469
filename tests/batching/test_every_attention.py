"""What a batch answers is what transformers generates of each row alone, whatever attention a model has."""

import queue
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from soupmix.backends import Delta, Limits, Request, Sampling
from soupmix.base import Base
from soupmix.batching import Batcher
from soupmix.engine import Engine
from soupmix.policy import Policy
from soupmix.store import Store
from tests.support.random_adapter import save_random_adapter

LENGTHS = (3, 11, 26, 40)  # windows of these models are 8 tokens, chunks of a prompt 16
SOUP = {"one": 0.6, "two": 0.3}
TOKENS = 8

RUNNING = ["llama3.2-tied", "gemma2", "gpt-oss", "mistral-v0.1", "deepseek-v3", "gpt-neox"]
PADDED = ["bloom", "lfm2", "mamba"]
SLOW_RUNNING = [
    "opt", "gpt2", "gemma3-text", "phi3", "phi4-mini", "minicpm3", "cohere2", "jetmoe", "olmo3", "exaone4", "gptj", "codegen",
    "gpt-bigcode", "diffllama", "llama4-text", "qwen3", "qwen3-moe", "mixtral", "gemma4-text", "phi2", "stablelm", "granite",
]  # fmt: skip
SLOW_PADDED = [
    "falcon-7b", "falcon-rw", "mpt", "doge", "gpt-neo", "xglm", "bamba", "falcon-h1", "granitemoehybrid", "qwen3-next",
    "qwen3.5-text",
]  # fmt: skip


BARE = {"falcon-7b", "falcon-rw"}  # whose layers are of a kind of their own


@dataclass
class Tried:
    """A model of a family with two adapters, and transformers beside it."""

    base: Base
    store: Store

    @cached_property
    def engine(self) -> Engine:
        return Engine.load(self.base, self.store)

    def plain(self, soup: Mapping[str, float]) -> Any:
        """The model as transformers loads it, with a soup merged into its weights in float64."""
        model = AutoModelForCausalLM.from_pretrained(self.base.folder, dtype=torch.float32).eval()
        for name, weight in soup.items():
            for path, f in self.store.load(name).modules.items():
                layer = model.get_submodule(path)
                delta = (weight * f.scaling * f.B.double() @ f.A.double()).float()
                layer.weight.data += delta.T if isinstance(layer, Conv1D) else delta
        return model

    def generated(self, soup: Mapping[str, float]) -> list[tuple[list[int], list[float]]]:
        """Token ids and log probabilities that transformers itself generates, row by row."""
        model, found = self.plain(soup), []
        for ids in self.prompts():
            given = torch.tensor([ids])
            with torch.inference_mode():
                out = model.generate(
                    input_ids=given,
                    attention_mask=torch.ones_like(given),
                    do_sample=False,
                    max_new_tokens=TOKENS,
                    pad_token_id=0,
                    eos_token_id=2,
                    output_logits=True,
                    return_dict_in_generate=True,
                )
            tokens = [token for token in out.sequences[0, len(ids) :].tolist() if token != 2]
            logprobs = [
                float(torch.log_softmax(each[0].float(), -1)[token])
                for each, token in zip(out.logits, tokens, strict=False)
            ]
            found.append((tokens, logprobs))
        return found

    def prompts(self) -> list[tuple[int, ...]]:
        draw = torch.Generator().manual_seed(3)
        return [tuple(torch.randint(5, 1000, (length,), generator=draw).tolist()) for length in LENGTHS]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory, family_base: Callable[[str], Base]) -> Callable[[str], Tried]:
    held: dict[str, Tried] = {}

    def make(name: str) -> Tried:
        if name not in held:
            folder, base = tmp_path_factory.mktemp("family"), family_base(name)
            store = Store(folder / "store", create=True)
            for number, adapter in enumerate(() if name in BARE else SOUP):
                save_random_adapter(base, folder / adapter, seed=number)
                store.add(folder / adapter, name=adapter, dimension=adapter, pole=adapter, base=base)
            held[name] = Tried(base, store)
        return held[name]

    return make


def _asked(
    batcher: Batcher, prompts: Sequence[tuple[int, ...]], soups: Sequence[Any]
) -> list[tuple[list[int], list[float]]]:
    """Everything at once, every prompt under every soup; answers end at different times."""
    heard: list[queue.Queue[Delta]] = []
    for number, (soup, prompt) in enumerate(product(soups, prompts)):
        heard.append(queue.Queue())
        how = Sampling(max_new_tokens=most(number))
        batcher.submit(Request(prompt, soup, how, logprobs=1), heard[-1].put)
    return [_told(each) for each in heard]


def most(number: int) -> int:
    """Tokens of an answer."""
    return TOKENS - 3 * number % 6


def _told(heard: "queue.Queue[Delta]") -> tuple[list[int], list[float]]:
    tokens, logprobs = [], []
    while True:
        delta = heard.get(timeout=60)
        assert delta.error is None, delta.error
        tokens += [each.id for each in delta.tokens]
        logprobs += [each.logprob for each in delta.tokens]
        if delta.finish:
            return tokens, logprobs


def check(it: Tried, loop: str) -> None:
    policy = Policy.open(tuple(it.store))
    with Batcher(it.engine, Limits(rows=5, length=160, waiting=64, chunk=16)) as batcher:
        assert batcher.loop.name == loop, batcher.loop.why
        found = _asked(
            batcher, it.prompts(), [policy.clamp({name: SOUP[name] for name in it.store.names}), policy.clamp({})]
        )
    expected = [*it.generated({name: SOUP[name] for name in it.store.names}), *it.generated({})]
    if it.store.names:
        assert expected[: len(LENGTHS)] != expected[len(LENGTHS) :], "the soup changes answers"
    for number, ((tokens, logprobs), (wanted, likely)) in enumerate(zip(found, expected, strict=True)):
        assert tokens == wanted[: most(number)], number
        assert logprobs == pytest.approx(likely[: most(number)], abs=2e-4), number


@pytest.mark.parametrize("name", RUNNING)
def test_the_running_batch_answers_as_transformers(tried: Callable[[str], Tried], name: str) -> None:
    check(tried(name), "running")


@pytest.mark.parametrize("name", PADDED)
def test_the_padded_loop_answers_as_transformers(tried: Callable[[str], Tried], name: str) -> None:
    check(tried(name), "padded")


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_RUNNING)
def test_the_running_batch_of_more_models(tried: Callable[[str], Tried], name: str) -> None:
    check(tried(name), "running")


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_PADDED)
def test_the_padded_loop_of_more_models(tried: Callable[[str], Tried], name: str) -> None:
    check(tried(name), "padded")
