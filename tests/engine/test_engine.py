"""Laws of the engine: every row is its own person, whatever sits beside it."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from soupmix.base import Base
from soupmix.engine import Engine, Sampling
from soupmix.engine.rows import BatchWeights, LoadedAdapters
from soupmix.errors import AdapterError, PolicyError, RecipeError
from soupmix.policy import Grant, Policy
from soupmix.policy.documents import Document
from soupmix.store import Store

IDS = torch.randint(5, 200, (4, 9), generator=torch.Generator().manual_seed(0))
PROMPTS = ["why is the sky blue?", "hi", "tell me about tides and the moon", "what is rust?"]
Granter = Callable[..., Grant]


def bare_model(base: Base) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(base.folder).eval()


def test_nobody_served_is_transformers_own_model_bit_for_bit(plain: Engine, tiny_base: Base, grant: Granter) -> None:
    with torch.inference_mode():
        expected = bare_model(tiny_base)(IDS).logits
        assert torch.equal(plain.model(IDS).logits, expected)
    assert torch.equal(plain.logits(IDS, [grant()] * 4), expected)


def test_a_row_of_nobody_is_the_bare_base_bit_for_bit(engine: Engine, tiny_base: Base, grant: Granter) -> None:
    with torch.inference_mode():
        bare = engine.model(IDS).logits
    mixed = engine.logits(IDS, [grant(), grant(calm=1), grant(), grant(loud=0.5)])
    assert torch.equal(mixed[[0, 2]], bare[[0, 2]])
    assert not torch.equal(mixed[[1, 3]], bare[[1, 3]])
    torch.testing.assert_close(bare, bare_model(tiny_base)(IDS).logits, rtol=1e-5, atol=1e-5)


def test_one_hot_is_that_adapter_alone_under_peft(
    engine: Engine, tiny_base: Base, pico_store: Store, grant: Granter
) -> None:
    from peft import PeftModel

    for name in pico_store.names:
        alone = PeftModel.from_pretrained(bare_model(tiny_base), str(pico_store.path(name))).eval()
        with torch.inference_mode():
            expected = alone(IDS).logits
        torch.testing.assert_close(engine.logits(IDS, [grant(**{name: 1})] * 4), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["delta", "factor"])
def test_rows_do_not_see_each_other(engine: Engine, grant: Granter, method: str) -> None:
    grants = [grant(calm=1), grant(), grant(loud=0.5, plain=0.25), grant(calm=0.3, loud=0.3, plain=0.3)]
    together = engine.logits(IDS, grants, method=method)
    for row in range(4):
        alone = engine.logits(IDS[row : row + 1], [grants[row]], method=method)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-5)
    order = [2, 0, 3, 1]
    permuted = engine.logits(IDS[order], [grants[i] for i in order], method=method)
    torch.testing.assert_close(permuted, together[order], rtol=1e-5, atol=1e-5)


def test_delta_is_the_sum_of_dense_deltas(engine: Engine, tiny_base: Base, pico_store: Store, grant: Granter) -> None:
    weights = {"calm": 0.5, "loud": 0.75, "plain": 0.125}
    dense = bare_model(tiny_base).double()
    for name, weight in weights.items():
        for path, f in pico_store.load(name).modules.items():
            dense.get_submodule(path).weight.data += weight * f.scaling * f.B.double() @ f.A.double()
    with torch.inference_mode():
        expected = dense(IDS).logits
    torch.testing.assert_close(engine.logits(IDS, [grant(**weights)] * 4).double(), expected, rtol=1e-4, atol=1e-4)


def test_batched_generation_is_each_row_alone(engine: Engine, grant: Granter) -> None:
    grants = [grant(calm=1), grant(), grant(loud=1), grant(plain=0.5)]
    together = engine.complete(PROMPTS, grants, sampling=Sampling(max_new_tokens=24))
    alone = [
        engine.complete([p], [g], sampling=Sampling(max_new_tokens=24))[0] for p, g in zip(PROMPTS, grants, strict=True)
    ]
    assert together == alone
    assert len({c.text for c in engine.complete([PROMPTS[0]] * 4, grants, sampling=Sampling(max_new_tokens=24))}) > 1


def test_greedy_is_what_transformers_generates(engine: Engine, tiny_base: Base, grant: Granter) -> None:
    model, tokenizer = bare_model(tiny_base), engine.tokenizer
    user = {"role": "user", "content": "why?"}
    talks = [
        [user],
        [{"role": "system", "content": "be brief"}, user],
        [user, {"role": "assistant", "content": "because"}, user],
    ]
    texts = [tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False) for talk in talks]
    talks.append([user, {"role": "assistant", "content": "I think"}])  # an answer that has begun is continued
    texts.append(texts[0] + "I think")
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    ids = batch["input_ids"]
    out = model.generate(input_ids=ids, attention_mask=batch["attention_mask"], max_new_tokens=24, do_sample=False)
    expected = [tokenizer.decode(row, skip_special_tokens=True) for row in out[:, ids.shape[1] :]]
    assert engine.generate(talks, [grant()] * 4, max_new_tokens=24) == expected


def test_sampling_is_decided_by_the_seed_alone(engine: Engine, grant: Granter) -> None:
    grants = [grant(calm=1), grant(), grant(loud=1), grant(plain=0.5)]
    heat = {"max_new_tokens": 16, "temperature": 1.5}
    first = engine.generate(PROMPTS, grants, **heat, seed=3)
    assert engine.generate(PROMPTS, grants, **heat, seed=3) == first
    assert engine.generate(PROMPTS, grants, **heat, seed=4) != first
    assert engine.generate(PROMPTS[2:], grants[2:], **heat, seed=5) == first[2:]  # row i draws from seed + i


def test_rows_that_finish_leave_without_changing_the_others(engine: Engine, grant: Granter) -> None:
    grants = [grant(calm=w / 8) for w in range(8)]
    hot = [Sampling(max_new_tokens=48, temperature=3.0, top_k=0, seed=seed) for seed in range(0, 800, 8)]
    tried = ((sampling.seed, engine.complete(["x"] * 8, grants, sampling=sampling)) for sampling in hot)
    seed, made = next((seed, made) for seed, made in tried if {c.finished for c in made} == {True, False})
    single = [
        engine.complete(["x"], [g], sampling=Sampling(48, 3.0, 0, 1.0, seed + i))[0] for i, g in enumerate(grants)
    ]
    assert made == single


def test_a_failed_batch_leaves_nobody_behind(engine: Engine, grant: Granter) -> None:
    bare = engine.logits(IDS, [grant()] * 4)
    with pytest.raises((IndexError, RuntimeError)):
        engine.logits(torch.full((4, 3), 10**6), [grant(calm=1)] * 4)
    with torch.inference_mode():
        assert torch.equal(engine.model(IDS).logits, bare)


def test_threads_do_not_mix_their_people(engine: Engine, grant: Granter) -> None:
    people = [grant(calm=1), grant(loud=1), grant(plain=1), grant()] * 3
    alone = [engine.generate(["hi"], [each], max_new_tokens=12) for each in people]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: engine.generate(["hi"], [each], max_new_tokens=12), people))
    assert together == alone
    assert len({text for (text,) in alone}) > 1


def test_a_thread_that_would_wait_for_itself_is_told(engine: Engine, grant: Granter) -> None:
    served = BatchWeights(engine.weights([grant(calm=1)], "delta"))
    with engine.batch.serving(served):
        with pytest.raises(RuntimeError, match="this thread serves a batch already"):
            engine.generate(["hi"], [grant()], max_new_tokens=2)
        assert engine.batch.has_soup
    assert engine.generate(["hi"], [grant()], max_new_tokens=2)


def test_what_users_get_wrong(
    engine: Engine, grant: Granter, tiny_base: Base, tmp_path: Path, tiny_adapter: Callable[..., Path]
) -> None:
    with pytest.raises(RecipeError, match="2 prompts need as many grants, not 1"):
        engine.generate(["a", "b"], [grant()])
    for wrong in (("hi", grant()), ("hi", [grant()] * 2), (["hi"], grant())):
        with pytest.raises(RecipeError, match=r"as in generate\(\[prompt\], \[grant\]\)"):
            engine.generate(*wrong)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="prompt 0 is empty"):
        engine.generate([""], [grant()])
    with pytest.raises(TypeError, match=r"ask Policy.clamp"):
        engine.generate(["a"], [{"calm": 1.0}])  # type: ignore[list-item]
    with pytest.raises(RecipeError, match="temperature = -1 is not allowed"):
        engine.generate(["a"], [grant()], temperature=-1)
    with pytest.raises(RecipeError, match="choose one of delta, factor"):
        engine.generate(["a"], [grant()], method="ties")
    other = Store(tmp_path / "other", create=True)
    other.add(tiny_adapter(seed=99), name="calm", dimension="d", pole="p", base=tiny_base)
    foreign = Policy.open(tuple(other)).clamp({"calm": 1})
    with pytest.raises(AdapterError, match="load the engine with the store that the policy approved"):
        engine.generate(["a"], [foreign])


def test_factor_needs_equal_ranks(tiny_base: Base, tmp_path: Path, tiny_adapter: Callable[..., Path]) -> None:
    store = Store(tmp_path / "store", create=True)
    store.add(tiny_adapter(rank=2, seed=1), name="a", dimension="a", pole="a", base=tiny_base)
    store.add(tiny_adapter(rank=4, seed=2), name="b", dimension="b", pole="b", base=tiny_base)
    engine = Engine.load(tiny_base, store)
    grant = Policy.open(tuple(store)).clamp({"a": 0.5})
    with pytest.raises(RecipeError, match=r"not so in 'model.layers.0.self_attn.q_proj'; use method 'delta'"):
        engine.generate(["hello"], [grant], method="factor")


def test_an_engine_holds_each_adapter_once(pico_store: Store) -> None:
    adapters = [pico_store.load(name) for name in pico_store.names]
    for more in (replace(adapters[0], name="twin"), replace(adapters[1], name=adapters[0].name), adapters[0]):
        with pytest.raises(AdapterError, match="once, under one name") as caught:
            LoadedAdapters.of([*adapters, more])
        assert caught.value.reason == "same-adapter"


def policy_of(store: Store, *rules: dict[str, Any]) -> Policy:
    digests = {entry.name: entry.digest for entry in store}
    approved = [{"name": name, "digest": digests[name]} for name in ("calm", "plain")]
    document = {
        "tier": "organisation",
        "issuer": "acme",
        "version": "1",
        "rules": [{"rule": "approve", "adapters": approved}, *rules],
    }
    return Policy.assemble([("acme.yaml", Document.model_validate(document))], store)


AT_MOST = {"rule": "bounds", "adapter": "calm", "at_most": "0.25"}
REQUIRED = {"rule": "require", "adapter": "calm", "at_least": "0.8"}


def served(engine: Engine, weights: list[list[float]]) -> torch.Tensor:
    """Logits under raw weights, past every grant: what is left is the kernels' last line."""
    with torch.inference_mode(), engine.batch.serving(BatchWeights(torch.tensor(weights))):
        result: torch.Tensor = engine.model(input_ids=IDS).logits
    return result


def test_the_kernels_hold_the_policys_upper_bounds_whatever_weights_come(tiny_base: Base, pico_store: Store) -> None:
    narrow = Engine.load(tiny_base, pico_store, policy=policy_of(pico_store, AT_MOST))
    wide = Engine.load(tiny_base, pico_store)
    assert narrow.adapters.names == ("calm", "loud", "plain")
    greedy = [[1.0, 0, 0], [0, 1, 0], [0, 0, 7], [0.2, 0, 0]]
    held = [[0.25, 0, 0], [0, 0, 0], [0, 0, 1], [0.2, 0, 0]]
    torch.testing.assert_close(served(narrow, greedy), served(wide, held), rtol=1e-5, atol=1e-5)


def test_the_kernels_last_line_only_lowers(tiny_base: Base, pico_store: Store) -> None:
    """A policy that requires .8 of calm never makes .8 of what was not granted, and leaves nobody's row the bare base."""
    strict, wide = (
        Engine.load(tiny_base, pico_store, policy=policy, fused=False)
        for policy in (policy_of(pico_store, REQUIRED), None)
    )
    assert policy_of(pico_store, REQUIRED).bounds()["calm"] == (800_000, 1_000_000)
    weights = [[0.0, 0, 1], [0.3, 0, 0], [-0.5, 0, 0], [0, 0, 0]]
    torch.testing.assert_close(
        served(strict, weights), served(wide, [[0, 0, 1], [0.3, 0, 0], [0, 0, 0], [0, 0, 0]]), rtol=1e-5, atol=1e-5
    )


def test_an_engine_takes_the_grants_of_its_own_policy_alone(tiny_base: Base, pico_store: Store, grant: Granter) -> None:
    policy = policy_of(pico_store, REQUIRED)
    engine = Engine.load(tiny_base, pico_store, policy=policy)
    own, foreign = policy.clamp({"calm": 1}), grant()
    assert engine.generate(["hi"], [own], max_new_tokens=2)
    for ask in (
        lambda: engine.generate(["hi", "hi"], [own, foreign]),
        lambda: engine.logits(IDS, [foreign] * 4),
        lambda: engine.generate(["hi"], [policy_of(pico_store, AT_MOST).clamp({})]),
    ):
        with pytest.raises(
            PolicyError, match=r"is of policy sha256:\S+, but the engine was loaded under sha256:"
        ) as found:
            ask()
        assert found.value.reason == "other-policy"
    again = policy_of(pico_store, REQUIRED)  # read anew, and the same
    assert engine.logits(IDS, [again.clamp({"calm": 1})] * 4).shape[0] == 4


def test_layers_that_share_an_input_are_computed_once_and_nothing_stale_is_taken(plain: Engine, engine: Engine) -> None:
    attention = engine.model.model.layers[0].self_attn
    x, other = torch.randn(2, 3, 32), torch.randn(2, 3, 32)
    with torch.inference_mode():
        fresh = plain.model.model.layers[0].self_attn
        for order in ((x, x, other), (x, other, x), (x, x, x), (other, x, x)):
            for name, given in zip(("q_proj", "k_proj", "v_proj"), order, strict=True):
                got, expected = getattr(attention, name)(given), getattr(fresh, name)(given)
                torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        for _ in range(2):  # the same layer twice on the same tensor
            torch.testing.assert_close(attention.q_proj(x), fresh.q_proj(x), rtol=1e-5, atol=1e-5)


def test_what_was_computed_for_one_person_is_never_handed_to_another(tiny_base: Base, pico_store: Store) -> None:
    engine = Engine.load(tiny_base, pico_store)
    attention, x = engine.model.model.layers[0].self_attn, torch.randn(2, 3, 32)
    one, other = (BatchWeights(torch.eye(3)[[each]]) for each in (0, 2))
    with torch.inference_mode():
        with engine.batch.serving(other):
            expected = attention.k_proj(x)
            attention.q_proj(x), attention.v_proj(x)
        with engine.batch.serving(one):
            attention.q_proj(x)  # a forward that broke off here leaves k and v behind
        with engine.batch.serving(other):
            assert torch.equal(attention.k_proj(x), expected)
        attention.q_proj(x)
        with ThreadPoolExecutor(1) as pool:  # nor to another thread
            assert pool.submit(lambda: attention.q_proj.group._outputs.left).result() == {}
            assert attention.q_proj.group._outputs.left.keys() == {1, 2}


def test_what_is_printed_is_one_line(engine: Engine, tiny_base: Base) -> None:
    assert re.fullmatch(r"<Engine of tiny-llama\S* in float32 on cpu, 3 adapters: calm, loud, plain>", repr(engine))
    assert repr(Engine.load(tiny_base, None)).endswith("no adapters>")
