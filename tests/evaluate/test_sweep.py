"""Sweeps of the weight against transformers' own arithmetic on weights merged by PEFT."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.evaluate.promptset import neutral_paragraphs
from soupmix.evaluate.sweep import WEIGHTS, sweep
from soupmix.store import Store


def test_a_sweep_is_what_peft_and_transformers_say(plain: Engine, pico_store: Store, tiny_base: Base) -> None:
    found = {each.name: each for each in sweep(plain, pico_store, ["calm", "loud"], paragraphs=1)}
    assert [point.micro for point in found["calm"].weights] == list(WEIGHTS)
    assert found["loud"].digest == pico_store["loud"].digest
    ids = torch.tensor([plain.plain_tokens(neutral_paragraphs()[0])[:128]])
    base = AutoModelForCausalLM.from_pretrained(tiny_base.folder)
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base.folder), pico_store.path("calm"))
    with torch.no_grad():
        before, after = (model(ids).logits[0, :-1].log_softmax(-1) for model in (base, tuned.merge_and_unload()))
    lost = [-log_p.gather(-1, ids[0, 1:, None]).mean() for log_p in (before, after)]
    whole = found["calm"].weights[-1]
    assert whole.perplexity == pytest.approx(float((lost[1] - lost[0]).exp()), rel=1e-3)
    divergence = torch.nn.functional.kl_div(after, before, log_target=True, reduction="batchmean")
    assert whole.kl == pytest.approx(float(divergence), rel=1e-2)
    kls = [point.kl for point in found["calm"].weights]
    assert 0 < kls[0] < kls[-1]
