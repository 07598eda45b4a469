"""How far soups are from mixing their adapters, against float64 by transformers and PEFT."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.errors import EvaluationError
from soupmix.evaluate import Arm, Prompt, fidelity, kept
from soupmix.evaluate.effect import perplexity
from soupmix.evaluate.fidelity import FIDELITY, divergences
from soupmix.evaluate.judging import Judging
from soupmix.evaluate.samples import ArmSample, Keys
from soupmix.evaluate.sampling import Evaluation, opened
from soupmix.policy import Policy
from soupmix.store import Store
from soupmix.weights import Weights

PROMPT, ANSWER = Prompt("Why does iron rust?", "question", ("rust",)), "It meets water and air."
ARMS = (
    Arm("base", Weights({})),
    Arm("calm@1", Weights({"calm": 1})),
    Arm("calm+loud@0.5", Weights({"calm": "0.5", "loud": "0.5"})),
    Arm("mixed", Weights({"calm": 1}), way="mod"),
)


@pytest.fixture(scope="module")
def alone(tiny_base: Base, pico_store: Store) -> dict[str, Any]:
    from peft import PeftModel

    def bare() -> Any:
        return AutoModelForCausalLM.from_pretrained(tiny_base.folder).double().eval()

    found = {name: PeftModel.from_pretrained(bare(), str(pico_store.path(name))).double() for name in ("calm", "loud")}
    return {"": bare(), **found}


@pytest.mark.parametrize("weights", [{"calm": 0.3, "loud": 0.4}, {"calm": 1.0, "loud": 1.0}, {"calm": 0.5}])
def test_divergences_are_exact(
    plain: Engine, tiny_base: Base, pico_store: Store, alone: dict[str, Any], weights: dict[str, float]
) -> None:
    soup = AutoModelForCausalLM.from_pretrained(tiny_base.folder).double().eval()
    for name, weight in weights.items():
        for path, f in pico_store.load(name).modules.items():
            soup.get_submodule(path).weight.data += weight * f.scaling * f.B.double() @ f.A.double()
    before, after = plain.chat_tokens(PROMPT.text), plain.prompts.tokens(ANSWER)

    def log_p(model: Any) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = model(torch.tensor([[*before, *after]])).logits[0, len(before) - 1 : -1]
        return logits.log_softmax(-1)

    mod = log_p(alone[""]) * (1 - sum(weights.values()))
    for name, weight in weights.items():
        mod = mod + weight * log_p(alone[name])
    mod = mod.log_softmax(-1)
    expected = [(mod.exp() * (mod - log_p(other))).sum(-1) for other in (soup, alone[""])]
    arm = Arm("soup", Weights({name: str(weight) for name, weight in weights.items()}))
    found = divergences(plain, Policy.open(tuple(pico_store)), arm, PROMPT, ANSWER)
    torch.testing.assert_close(found.double(), torch.stack(expected), rtol=1e-3, atol=2e-6)
    assert float(found.mean(1).min()) > 1e-4


def test_one_adapter_at_full_weight_is_what_it_is_mixed_to(engine: Engine, pico_store: Store) -> None:
    found = divergences(engine, Policy.open(tuple(pico_store)), ARMS[1], PROMPT, ANSWER)
    assert found.shape == (2, len(engine.prompts.tokens(ANSWER)))
    assert float(found[0].abs().max()) < 1e-6
    assert float(found[1].min()) > 1e-4
    assert divergences(engine, Policy.open(tuple(pico_store)), ARMS[1], PROMPT, "").shape == (2, 0)


def test_what_the_first_excludes_adds_nothing() -> None:
    inf = torch.inf
    found = fidelity._divergence(torch.tensor([[-inf, 0.0], [-inf, 0.0]]), torch.tensor([[-inf, 0.0], [-1.0, -0.5]]))
    assert found.tolist() == [0.0, 0.5]


@pytest.fixture(scope="module")
def judging(tiny_base: Base, pico_store: Store) -> Judging:
    record = Evaluation(tiny_base, pico_store.folder, ARMS, (PROMPT, Prompt("Who?", "question", ("i",))), {}).record()
    return Judging(tiny_base, pico_store.folder, record)


@pytest.fixture(scope="module")
def samples(judging: Judging) -> list[ArmSample]:
    keys = Keys(judging.record)
    return [
        ArmSample(arm, prompt, "question", 0.7, 0, f"{arm.name} says so.", 4, True, keys.key(arm.name, prompt, 0.7))
        for prompt in (PROMPT.text, "Who?")
        for arm in ARMS
    ]


def test_sections_say_what_a_soup_is_true_to(
    judging: Judging, samples: list[ArmSample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = fidelity.fidelity(judging, samples, tmp_path)
    engine, policy = opened(judging.base, judging.store, None, judging.record.compiled)
    assert set(found["fidelity"]) == {"0.7"}
    assert set(found["fidelity"]["0.7"]) == {"calm@1", "calm+loud@0.5"}
    by_prompt = [
        divergences(engine, policy, each.arm, Prompt(each.prompt, "", ()), each.text)
        for each in samples
        if each.arm.name == "calm+loud@0.5"
    ]
    said = found["fidelity"]["0.7"]["calm+loud@0.5"]
    for place, name in enumerate(("kl_mod", "kl_base")):
        assert said[name]["value"] == pytest.approx(
            np.mean([float(each[place].mean()) for each in by_prompt]), rel=1e-4
        )
        assert said[name]["low"] <= said[name]["value"] <= said[name]["high"]
    assert said["tokens"] == sum(each.shape[1] for each in by_prompt)

    def surprise(**weights: str | int) -> float:
        return float(np.log(perplexity(engine, policy.clamp(Weights(weights)))))

    assert set(found["prose"]) == {"base", "calm@1", "calm+loud@0.5"}
    assert np.log(found["prose"]["base"]["perplexity"]["value"]) == pytest.approx(surprise(), abs=1e-4)
    (pair,) = found["connectivity"]
    assert pair["soup"] == "calm+loud@0.5"
    margin = surprise(calm="0.5", loud="0.5") - (surprise(calm=1) + surprise(loud=1)) / 2
    assert pair["margin"]["value"] == pytest.approx(margin, abs=1e-4)
    assert pair["margin"]["low"] <= pair["margin"]["value"] <= pair["margin"]["high"]

    monkeypatch.setattr(
        kept, "_made", lambda work, given, chunks, jobs: iter(()) if not chunks else pytest.fail("again")
    )
    assert fidelity.fidelity(judging, samples, tmp_path) == found
    few = fidelity.fidelity(judging, samples, tmp_path, first=1)
    assert few["fidelity"]["0.7"]["calm+loud@0.5"]["tokens"] == by_prompt[0].shape[1]


@pytest.mark.parametrize("name", ["prose.json", kept.path_of(Path(), PROMPT.text).name])
@pytest.mark.parametrize("damage", [b"{", b'{"x": {"y": NaN}}', b'{"x": null}'])
def test_what_is_damaged_is_one_sentence(
    judging: Judging,
    samples: list[ArmSample],
    tmp_path: Path,
    name: str,
    damage: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fidelity, "_of_prose", lambda given, arms: [{} for _ in arms])
    (tmp_path / FIDELITY).mkdir()
    (tmp_path / FIDELITY / name).write_bytes(damage)
    with pytest.raises(EvaluationError, match=r"is damaged: .*; remove it") as caught:
        fidelity.fidelity(judging, samples, tmp_path)
    assert caught.value.reason == "bad-fidelity"


def test_what_is_no_number_is_no_figure(
    judging: Judging, samples: list[ArmSample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values that somebody else wrote down may be any."""
    monkeypatch.setattr(fidelity, "_of_prose", lambda given, arms: [{"log_p_0": -1e308, "tokens_0": 1} for _ in arms])
    monkeypatch.setattr(fidelity, "_of_answers", lambda given, answers: [{"kl_mod": 1e308} for _ in answers])
    found = fidelity.fidelity(judging, samples, tmp_path)
    assert [each["perplexity"] for each in found["prose"].values()] == [None] * 3
    assert [each["margin"] for each in found["connectivity"]] == [None]
    assert list(found["fidelity"]["0.7"].values()) == [{"kl_mod": None, "kl_base": None, "tokens": 0}] * 2
