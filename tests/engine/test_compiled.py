"""Steps that are compiled compute what transformers computes, for every family that is said to be known; others are refused."""

import copy
import mmap
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import soupmix_kernels
from soupmix.backends import Limits, Sampling
from soupmix.base import Base
from soupmix.batching import Batcher
from soupmix.batching.answer import WeightedJob
from soupmix.batching.schedule import Scheduler
from soupmix.batching.slotted import SlottedLoop
from soupmix.engine import Engine
from soupmix.engine.compiled import EngineStep, StepChoice, step_for
from soupmix.engine.layers import BaseLinear
from soupmix.errors import BaseModelError
from soupmix.policy import Policy
from soupmix.store import Store
from tests.support.families import FAMILIES, Family
from tests.support.random_adapter import save_random_adapter

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler here")

SLOW = pytest.mark.slow
KNOWN = [
    "llama3.2-tied",
    "qwen3",
    "granite",
    "gemma2, capped",
    "gemma3-text, capped",
    *(
        pytest.param(name, marks=SLOW)
        for name in ("llama-bias", "llama3", "qwen2.5", "mistral-v0.1", "gemma", "phi3", "phi4-mini", "smollm3")
    ),
]
UNKNOWN = ["olmo3", *(pytest.param(name, marks=SLOW) for name in ("gpt2", "mixtral"))]
SOUPS: list[dict[str, float]] = [{"one": 0.6, "two": 0.3}, {}, {"two": 1.0}]
TEXTS = [list(range(3, 23)), [5, 7, 11], [400, 401, 402, 17, 30, 8]]


def store_of(base: Base, folder: Path) -> Store:
    store = Store(folder / "store", create=True)
    for seed, name in enumerate(("one", "two")):
        adapter = save_random_adapter(base, folder / name, seed=seed)
        store.add(adapter, name=name, dimension=name, pole=name, base=base)
    return store


def stepwise(engine: Engine, store: Store, tokens: int = 4) -> list[Tensor]:
    """Logits behind the prompt and behind each of the next likeliest tokens of every text, from one running batch."""
    policy, limits = Policy.open(store), Limits(rows=3, length=40, chunk=9)
    loop, scheduler, found = SlottedLoop(engine, limits, "delta"), Scheduler[WeightedJob](limits), list[list[Tensor]]()
    jobs = []
    for number, text in enumerate(TEXTS):
        (weights,) = engine.weights([policy.clamp(SOUPS[number])], "delta")
        jobs.append(WeightedJob(person=str(number), merge=str(number), prompt=tuple(text), weights=weights))
        scheduler.add(jobs[-1])
        found.append([])
    while any(len(each) < tokens for each in found):
        plan = scheduler.plan()
        logits = iter(loop.logits(plan))
        scheduler.computed(plan)
        for feed in plan.feeds:
            if feed.complete:
                found[jobs.index(feed.job)].append(next(logits))
                feed.job.answer.append(FORCED[len(found[jobs.index(feed.job)])])
    return [torch.stack(each[:tokens]) for each in found]


FORCED = [0, 33, 44, 55, 66, 77, 88, 99, 111, 222, 333, 444]


def truth(base: Base, store: Store, number: int, tokens: int = 4) -> Tensor:
    """transformers in float64, the soup merged into its weights."""
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float64).eval()
    for name, weight in SOUPS[number].items():
        for path, factors in store.load(name).modules.items():
            delta = weight * factors.scaling * factors.B.double() @ factors.A.double()
            model.get_submodule(path).weight.data += delta
    ids = torch.tensor([[*TEXTS[number], *FORCED[1:tokens]]])
    with torch.inference_mode():
        logits: Tensor = model(ids).logits[0, -tokens:]
    return logits


def off(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("family", KNOWN)
def test_a_step_computes_what_transformers_computes(
    family: str, family_base: Callable[[str], Base], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    like_llama = FAMILIES["llama3.2-tied"].settings
    monkeypatch.setitem(FAMILIES, "gemma", Family("gemma", {**like_llama, "head_dim": 32}))
    caps = {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 0.3}  # low enough to tell
    for name in ("gemma2", "gemma3-text"):
        kind = FAMILIES[name]
        monkeypatch.setitem(FAMILIES, f"{name}, capped", Family(kind.kind, {**kind.settings, **caps}))
    base = family_base(family)
    store = store_of(base, tmp_path)
    for dtype, times in (("fp32", 3.0), ("bf16", 1.5)):
        ways = {compiled: Engine.load(base, store, dtype=dtype, compiled=compiled) for compiled in (True, False)}
        assert ways[True].step.library is not None, ways[True].step
        mine, theirs = (stepwise(each, store) for each in ways.values())
        for number, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            expected = truth(base, store, number)
            assert off(one, expected) <= max(times * off(other, expected), 2e-6), (dtype, number)
    with Batcher(ways[True]) as batcher:
        assert "it computes what transformers computes; steps are compiled for" in batcher.state().why


def test_weights_lie_behind_each_other_and_nowhere_else(tiny_base: Base, pico_store: Store) -> None:
    """In large pages, in the order of reading; embeddings that are the output layer's weights stay those."""
    engine = Engine.load(tiny_base, pico_store, dtype="bf16", compiled=True)
    bases = [each.base for each in engine._groups.values() if isinstance(each.base, BaseLinear)]
    before, embedding = [each.held.clone() for each in bases], engine.model.get_input_embeddings().weight
    tied, was = embedding.data_ptr() == bases[-1].held.data_ptr(), embedding.data.clone()
    engine.step.in_slots(1, 8)
    places = [each.held.data_ptr() for each in bases]
    assert all(torch.equal(each.held, one) for each, one in zip(bases, before, strict=True))
    assert torch.equal(embedding.data, was)
    assert tied == (embedding.data_ptr() == places[-1])
    sizes = [-(-each.numel() * each.element_size() // 64) * 64 for each in before]
    if hasattr(mmap, "MADV_HUGEPAGE"):
        assert [end - start for start, end in pairwise(places)] == sizes[:-1]
    engine.step.in_slots(1, 8)
    assert [each.held.data_ptr() for each in bases] == places


@pytest.mark.parametrize("mode", ["full", "answer"])
def test_an_engine_answers_by_compiled_steps(
    mode: str, tiny_base: Base, pico_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts in parts, rows that leave, one answer at a time: always the same bits, and torch's answers in fp32."""
    policy, texts = Policy.open(pico_store), ["one two three four five six seven", "eight", "nine ten", "a", "b c d e"]
    grants = [policy.clamp(each) for each in ({"calm": 1.0}, {}, {"loud": 0.5, "plain": 0.5}, {"calm": 0.3}, {})]
    how: Any = {"sampling": Sampling(max_new_tokens=24, temperature=0.9), "mode": mode}
    answers = {}
    for compiled in (True, False):
        engine = Engine.load(tiny_base, pico_store, dtype="fp32", compiled=compiled)
        assert (engine.step.library is not None) is compiled
        monkeypatch.setattr("soupmix.engine.slot_rows._CHUNK", 7 if compiled else 512)
        answers[compiled] = engine.complete(texts, grants, **how)
        if compiled:
            monkeypatch.setattr(type(engine.model), "forward", None)  # nobody asks torch
            assert engine.complete(texts, grants, **how, batch_size=2) == answers[True]
            alone = [
                engine.complete([text], [grant], **how, streams=[n])[0]
                for n, (text, grant) in enumerate(zip(texts, grants, strict=True))
            ]
            assert alone == answers[True]
            parts = engine.stream(texts[0], grants[0], mode=mode, max_new_tokens=24, temperature=0.9)  # type: ignore[arg-type]
            assert "".join(parts) == answers[True][0].text
            monkeypatch.undo()
    assert answers[True] == answers[False]


def test_an_engine_whose_compiled_steps_compute_something_else_answers_by_torch(
    tiny_base: Base, pico_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = Policy.open(pico_store).clamp({})
    right = Engine.load(tiny_base, pico_store).complete(["one two"], [nobody], sampling=Sampling(max_new_tokens=9))
    engine = Engine.load(tiny_base, pico_store, compiled=True)
    monkeypatch.setattr("soupmix.engine.described._angles", lambda rotary, n, size: (torch.ones(1, n, size // 2),) * 2)
    assert engine.complete(["one two"], [nobody], sampling=Sampling(max_new_tokens=9)) == right
    assert "torch computes the steps: the compiled one was tried, and over slots" in engine.step.why


@pytest.mark.parametrize("family", UNKNOWN)
def test_of_others_torch_computes_the_steps(family: str, family_base: Callable[[str], Base]) -> None:
    engine = Engine.load(family_base(family), None, compiled=True)
    assert engine.step.library is None
    assert engine.step.why.startswith(
        "torch computes the steps: a compiled step knows Gemma, Gemma2, Gemma3, Granite, "
    )


@pytest.fixture(scope="module")
def llama(family_base: Callable[[str], Base]) -> Any:
    return AutoModelForCausalLM.from_pretrained(family_base("llama3.2-tied").folder, dtype=torch.float32)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m.half(), "of fp32 or bf16"),
        (lambda m: m.model.layers[1].register_module("extra", torch.nn.Identity()), "no layer with extra"),
        (
            lambda m: m.model.layers[0].self_attn.register_module("sinks", torch.nn.Identity()),
            "no attention with sinks",
        ),
        (lambda m: m.model.layers[0].register_forward_hook(lambda *_: None), "a forward of its own"),
        (lambda m: setattr(m.model.layers[0].self_attn, "is_causal", False), "what comes after it"),
        (lambda m: setattr(m.model.rotary_emb, "rope_type", "dynamic"), "angles that change"),
    ],
)
def test_what_it_does_not_know_is_said(llama: Any, change: Callable[[Any], Any], why: str) -> None:
    changed = copy.deepcopy(llama)
    change(changed)
    step = step_for(changed, "cpu", fused=True)
    assert step.library is None
    assert why in step.why


def test_whoever_asks_first_a_step_is_tried_once() -> None:
    """cached_property has no lock in Python 3.12 and newer: two first calls would both try, and pack all weights twice."""
    step, tried = EngineStep(None, {}, Any, StepChoice(Any, "compiled")), []

    def trial() -> str:
        tried.append(threading.get_ident())
        time.sleep(0.05)
        return "it is wrong"

    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(lambda _: (step.settle(trial), step.library)[1], range(4)))
    assert (len(tried), seen) == (1, [None] * 4)
    assert "it is wrong" in step.why


def test_it_is_switched_off(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "for the CPU and layers that may be computed together" in step_for(llama, "cpu", fused=False).why
    monkeypatch.setenv("SOUPMIX_KERNELS", "torch")
    assert step_for(llama, "cpu", fused=True).why == "torch computes the steps: SOUPMIX_KERNELS=torch says so"


def test_a_step_that_computes_something_else_is_found_out(
    tiny_base: Base, pico_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then torch computes, from weights in the layout that suits it, and the batch says so."""
    engine = Engine.load(tiny_base, pico_store, compiled=True)
    engine.model.model.layers[1].self_attn.scaling *= 2
    engine.model.model.layers[0].self_attn.scaling *= 2
    monkeypatch.setattr("soupmix.engine.described._angles", lambda rotary, n, size: (torch.ones(1, n, size // 2),) * 2)
    with Batcher(engine) as batcher:
        assert batcher.loop.name == "running"
        assert (
            "torch computes the steps: the compiled one was tried, and over slots its answers are"
            in batcher.state().why
        )
    assert engine.step.library is None


def layers(engine: Engine) -> list[BaseLinear]:
    return [each.base for each in engine._groups.values() if isinstance(each.base, BaseLinear)]


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_steps_are_those_of_the_weights_it_stands_for(
    dtype: str, family_base: Callable[[str], Base], tmp_path: Path
) -> None:
    """By compiled steps bit for bit, and by torch for a whole prompt."""
    base = family_base("llama3.2-tied")
    store = store_of(base, tmp_path)
    few, plain = Engine.load(base, store, dtype=dtype), Engine.load(base, store, dtype="bf16", compiled=True)
    for held, each in zip(layers(few), layers(plain), strict=True):
        assert held.blocks is not None
        assert each.weight is not None
        assert not torch.equal(held.blocks.decoded(), each.weight[:, : each.inputs])
        each.weight = soupmix_kernels.wide_weight(held.blocks.decoded())
    for mine, theirs in zip(stepwise(few, store), stepwise(plain, store), strict=True):
        assert torch.equal(mine, theirs)
    grant, ids = Policy.open(store).clamp({"one": 0.6}), torch.arange(3, 23)[None]
    assert torch.equal(few.logits(ids, [grant]), plain.logits(ids, [grant]))


def test_it_says_what_it_is(tiny_base: Base, pico_store: Store) -> None:
    few, plain = (Engine.load(tiny_base, pico_store, dtype=each, compiled=True) for each in ("int8", "bf16"))
    nobody = Policy.open(pico_store).clamp({})
    assert "in int8 on cpu" in repr(few)
    assert few.step.why.endswith("from weights in int8")
    assert few.identity(nobody, "delta") != plain.identity(nobody, "delta")
    assert few.base_identity() != plain.base_identity()
    with Batcher(few) as batcher:
        assert "it computes what transformers computes; steps are compiled for" in batcher.state().why
    assert few.complete(["one two"], [nobody], sampling=Sampling(max_new_tokens=5))[0].tokens == 5


def test_weights_are_held_once(tiny_base: Base) -> None:
    for each in layers(Engine.load(tiny_base, None, dtype="int8")):
        assert each.weight is None
        assert each.blocks is not None


def test_without_compiled_steps_it_is_refused(
    tiny_base: Base, family_base: Callable[[str], Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    for base, how, why in (
        (family_base("gpt2"), {}, "a compiled step knows"),
        (tiny_base, {"fused": False}, "may be computed together"),
    ):
        with pytest.raises(BaseModelError, match=rf"asked for in int8.*{why}.*leave the dtype out") as refused:
            Engine.load(base, None, dtype="int8", **how)
        assert refused.value.reason == "not-compiled"
    monkeypatch.setenv("SOUPMIX_KERNELS", "torch")
    with pytest.raises(BaseModelError, match="SOUPMIX_KERNELS=torch says so"):
        Engine.load(tiny_base, None, dtype="int4")


def test_where_the_trial_fails_torch_computes_from_the_same_weights(
    tiny_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, ids = Engine.load(tiny_base, None, dtype="int8"), torch.tensor([[3, 4, 5, 6]])
    nobody = Policy.open(()).clamp({})
    expected = engine.logits(ids, [nobody])
    engine.step.check("it differs")
    assert engine.step.library is None
    assert all(each.blocks is None for each in layers(engine))
    torch.testing.assert_close(engine.logits(ids, [nobody]).float(), expected, rtol=0.02, atol=0.02)
