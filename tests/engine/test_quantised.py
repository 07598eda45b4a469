"""Quantised bases at request time: the base as it is, the soup on top, and no row sees another."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from soupmix.backends import Limits, Request
from soupmix.base import Base, resolve
from soupmix.batching import Batcher
from soupmix.engine import Engine, Sampling
from soupmix.engine.layers import SoupLinear
from soupmix.engine.rows import BatchWeights
from soupmix.errors import BaseModelError
from soupmix.policy import Grant, Policy
from soupmix.store import Store
from tests.support.batcher_client import answer
from tests.support.quantised import PACKAGES, quantised_folder

IDS = torch.randint(5, 200, (4, 9), generator=torch.Generator().manual_seed(0))
MIXING = {"int8"}  # kinds that look at all tokens at once
QUICK = {"nf4-nested", "int8", "torchao-dynamic"}
TARGETS = {"calm": ("q_proj", "down_proj"), "loud": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj")}


@dataclass(frozen=True)
class Case:
    """A quantised base, the store of its adapters, and an engine of both in fp32."""

    kind: str
    base: Base
    store: Store
    engine: Engine

    def grant(self, **weights: float) -> Grant:
        return Policy.open(tuple(self.store)).clamp(weights)

    def transformers(self) -> torch.nn.Module:
        """The model without any of us."""
        how = {} if self.kind == "fp8" else {"device_map": {"": "cpu"}}
        made: torch.nn.Module = AutoModelForCausalLM.from_pretrained(self.base.folder, dtype="auto", **how).eval()
        return made


@pytest.fixture(
    scope="module",
    params=[kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in PACKAGES],
)
def case(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    session_cache: Path,
    tiny_adapter: Callable[..., Path],
) -> Case:
    kind: str = request.param
    if package := PACKAGES[kind]:
        pytest.importorskip(package)
    where = tmp_path_factory.mktemp(kind)
    base = resolve(quantised_folder(where / "base", kind, torch.float32), cache=session_cache)
    store = Store(where / "store", create=True)
    for seed, (name, targets) in enumerate(TARGETS.items()):
        folder = tiny_adapter(base=resolve(where / "plain", cache=session_cache), targets=targets, seed=seed)
        store.add(folder, dimension=name, pole=name, base=base)
    return Case(kind, base, store, Engine.load(base, store, fused=False))


def test_the_base_says_how_it_is_quantised(case: Case) -> None:
    names = {
        "nf4": "bitsandbytes nf4",
        "nf4-nested": "bitsandbytes nf4",
        "fp4": "bitsandbytes fp4",
        "int8": "bitsandbytes int8",
        "torchao-int8": "torchao Int8WeightOnlyConfig",
        "torchao-dynamic": "torchao Int8DynamicActivationInt8WeightConfig",
        "torchao-float8": "torchao Float8WeightOnlyConfig",
        "fp8": "FP8",
    }
    assert case.base.quantisation is not None
    assert case.base.quantisation.name == names[case.kind]
    assert case.base.layers().linear_shapes()["model.layers.0.mlp.down_proj"] == (64, 128)
    assert case.store.base_norm is None


def test_nobody_served_is_transformers_own_model_bit_for_bit(case: Case) -> None:
    with torch.inference_mode():
        expected = case.transformers()(IDS).logits
        served = case.engine.model(IDS).logits
    if case.kind in MIXING:  # token by token, where transformers looks at all of them
        torch.testing.assert_close(served, expected, rtol=0.02, atol=0.02)
    else:
        assert torch.equal(served, expected)


def test_a_row_of_nobody_is_the_bare_base_bit_for_bit(case: Case) -> None:
    parts = IDS.split(1 if case.engine.together == "alone" else len(IDS))
    with torch.inference_mode():
        bare = torch.cat([case.engine.model(ids).logits for ids in parts])
    mixed = case.engine.logits(IDS, [case.grant(), case.grant(calm=1), case.grant(), case.grant(loud=0.5)])
    assert torch.equal(mixed[[0, 2]], bare[[0, 2]])
    assert not torch.allclose(mixed[[1, 3]], bare[[1, 3]], rtol=1e-2, atol=1e-2)


def test_neighbours_change_no_bit_of_a_row(case: Case) -> None:
    """Whoever they are and whatever they say, as long as the batch is as large."""
    grants = [case.grant(calm=0.5, loud=0.25), case.grant()]
    other = torch.cat([IDS[:2], IDS[2:].flip(1) // 2])
    one = case.engine.logits(IDS, [*grants, case.grant(), case.grant(calm=1)])
    two = case.engine.logits(other, [*grants, case.grant(loud=1), case.grant(loud=1)])
    assert torch.equal(one[:2], two[:2])


def test_one_hot_is_that_adapter_alone_under_peft(case: Case) -> None:
    from peft import PeftModel

    for name in case.store.names:
        alone = PeftModel.from_pretrained(case.transformers(), str(case.store.path(name))).eval()
        with torch.inference_mode():
            expected = alone(IDS).logits
        served = case.engine.logits(IDS, [case.grant(**{name: 1})] * 4)
        near = 0.05 if case.kind in {*MIXING, "torchao-dynamic"} else 2e-3
        torch.testing.assert_close(served, expected, rtol=near, atol=near)


def test_a_layer_is_its_own_product_and_the_sum_of_deltas(case: Case) -> None:
    """Against float64, layer by layer: what a quantised product rounds, it rounds in the layers before."""
    weights = {"calm": 0.5, "loud": 0.75}
    bare = case.transformers()
    path = "model.layers.0.self_attn.q_proj"
    layer, own = case.engine.model.get_submodule(path), bare.get_submodule(path)
    assert isinstance(layer, SoupLinear)
    x = torch.randn(1, 64, generator=torch.Generator().manual_seed(1))
    delta = sum(
        weight * factors.scaling * factors.B.double() @ factors.A.double()
        for name, weight in weights.items()
        if (factors := case.store.load(name).modules.get(path))
    )
    batch = BatchWeights(case.engine.weights([case.grant(**weights)], "delta"))
    with torch.inference_mode(), case.engine.batch.serving(batch):
        served = layer(x)
        expected = own(x).double() + x.double() @ delta.T
    torch.testing.assert_close(served.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_running_batch_answers_as_each_person_alone(case: Case) -> None:
    grants = [case.grant(calm=1), case.grant(), case.grant(loud=0.5, calm=0.25)]
    prompts = ["why is the sky blue?", "hi", "tell me about tides and the moon"]
    sampling = Sampling(max_new_tokens=8)
    alone = [case.engine.complete([p], [g], sampling=sampling)[0].text for p, g in zip(prompts, grants, strict=True)]
    with Batcher(case.engine, Limits(rows=3, length=128, waiting=8, chunk=16)) as batcher:
        requests = [Request(case.engine.chat_tokens(p), g, sampling) for p, g in zip(prompts, grants, strict=True)]
        assert answer(batcher, requests) == alone


def test_fused_is_near(case: Case) -> None:
    fused = Engine.load(case.base, case.store)
    grants = [case.grant(calm=0.5), case.grant(), case.grant(loud=1), case.grant(calm=0.5, loud=0.5)]
    near = 0.05 if case.kind in {*MIXING, "torchao-dynamic"} else 1e-3
    torch.testing.assert_close(fused.logits(IDS, grants), case.engine.logits(IDS, grants), rtol=near, atol=near)


def test_a_kind_that_mixes_tokens_is_told(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "soupmix.engine"):
        Engine.load(case.base, None)
    assert ("Linear8bitLt layers look at all tokens at once" in caplog.text) == (case.kind in MIXING)


def test_another_dtype_than_it_was_saved_in_is_refused_where_it_cannot_be(case: Case) -> None:
    """bitsandbytes' checkpoints stay what they are, so it would be computed in another dtype than was asked for."""
    if case.kind in {"torchao-int8", "torchao-dynamic", "fp8"}:
        assert Engine.load(case.base, None, dtype="bf16").model.dtype == torch.bfloat16
        return
    with pytest.raises(
        BaseModelError, match=r"leave the dtype out|load the base in the dtype that it was saved in"
    ) as found:
        Engine.load(case.base, None, dtype="bf16")
    assert found.value.reason == "quantised"
