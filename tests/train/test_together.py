"""Training in mixtures, against autograd on merged weights in float64; frozen adapters, the same bytes, going on."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy, kl_div
from transformers import DynamicCache

from soupmix.base import Base, load_model, load_tokenizer, resolve
from soupmix.engine import Engine
from soupmix.errors import TrainingError
from soupmix.modes import MODES
from soupmix.store import Adapter
from soupmix.store.importing import read_adapter
from soupmix.train import together
from soupmix.train.checkpoint import KeptSteps
from soupmix.train.examples import Example
from soupmix.train.mixtures import SoupExample
from soupmix.train.souplayers import TrainedSoup
from soupmix.train.together import SoupRecipe, TrainingRow, fit_soup, prose_gradients, soup_gradients
from tests.support.random_adapter import save_random_adapter
from tests.support.tiny_model import CHAT_TEMPLATE, save_tiny_model

NAMES = ("brief", "kind", "plain")
Factors = dict[str, Tensor]


def rows(bare: int = 0) -> list[TrainingRow]:
    return [
        TrainingRow([5, 9, 11, 30], [40, 41, 42], 0, bare, [0.5, 0.75, 0.0]),
        TrainingRow([7, 8], [50, 51, 52, 53, 54, 1], 2, min(bare, 1), [1.0, 0.0, 0.25]),
    ]


@pytest.fixture(scope="module")
def adapters(tiny_base: Base, tiny_adapter: Callable[..., Path]) -> dict[str, Adapter]:
    """Of different ranks and scalings, the second on attention only."""
    made = {
        "brief": tiny_adapter(rank=4, alpha=8, seed=1),
        "kind": tiny_adapter(rank=2, alpha=6, seed=2, targets=("q_proj", "v_proj")),
        "plain": tiny_adapter(rank=3, alpha=3, seed=3),
    }
    shapes = tiny_base.layers().shapes()
    return {name: Adapter(name, name, tiny_base.digest, read_adapter(path, shapes)) for name, path in made.items()}


def factors_of(adapters: Mapping[str, Adapter]) -> Factors:
    return {
        f"{name}|{path}|{side}": getattr(factors, side).double().requires_grad_()
        for name, adapter in adapters.items()
        for path, factors in adapter.modules.items()
        for side in "AB"
    }


def merged(model: Any, adapters: Mapping[str, Adapter], factors: Factors, weights: list[float]) -> dict[str, Tensor]:
    """The weights of the model with W + sum w s B A in them."""
    found = dict(model.named_parameters())
    for weight, name in zip(weights, NAMES, strict=True):
        for path, held in adapters[name].modules.items():
            delta = factors[f"{name}|{path}|B"] @ factors[f"{name}|{path}|A"]
            found[f"{path}.weight"] = found[f"{path}.weight"] + weight * held.scaling * delta
    return found


def loss_of(model: Any, row: TrainingRow, weights: dict[str, Tensor]) -> Tensor:
    """Summed over the learned tokens of one row, computed without padding."""
    ids = torch.tensor([row.prompt + row.answer])
    cache, begin = DynamicCache(config=model.config), row.bare
    if begin:
        model(ids[:, :begin], cache=cache, use_cache=True)
    logits = functional_call(model, weights, (ids[:, begin:],), {"cache": cache, "use_cache": True}).logits
    first = len(row.prompt) + row.skip
    return cross_entropy(logits[0, first - 1 - begin : -1], ids[0, first:], reduction="sum")


@pytest.mark.parametrize("bare", [0, 1, 3], ids=lambda bare: f"{bare} tokens on the base")
def test_the_gradient_of_a_mixture_is_that_of_the_merged_delta(
    tiny_base: Base, adapters: dict[str, Adapter], bare: int
) -> None:
    model = load_model(tiny_base.folder, torch.float64)
    factors = factors_of(adapters)
    learned = sum(len(row.answer) - row.skip for row in rows(bare))
    losses = [loss_of(model, row, merged(model, adapters, factors, row.weights)) for row in rows(bare)]
    total = sum(losses, torch.zeros(())) / learned
    total.backward()  # type: ignore[no-untyped-call]

    soup = TrainedSoup(load_model(tiny_base.folder, torch.float64), adapters, NAMES)
    assert soup_gradients(soup, rows(bare)) == pytest.approx(float(total.detach()), abs=1e-12)
    found = soup.parameters()
    assert found.keys() == factors.keys()
    for name, parameter in found.items():
        assert parameter.grad is not None
        assert factors[name].grad is not None
        torch.testing.assert_close(parameter.grad, factors[name].grad, rtol=1e-9, atol=1e-12)
    assert any(float(each.grad.abs().max()) > 1e-4 for each in found.values() if each.grad is not None)


REPEATING = [
    TrainingRow([5, 9, 11], [40, 41, 40, 42, 41, 40], 0, 0, [0.5, 0.75, 0.0]),
    TrainingRow([7], [50, 50, 51, 50], 1, 0, [1.0, 0.0, 0.25]),
]


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_what_was_said_before_is_made_unlikely_where_it_is_not_said_again(
    tiny_base: Base, adapters: dict[str, Adapter], share: float
) -> None:
    """Welleck et al. 2019, equation 5, word by word in float64."""
    model, factors = load_model(tiny_base.folder, torch.float64), factors_of(adapters)
    learned = sum(len(row.answer) - row.skip for row in REPEATING)
    total = torch.zeros(())
    for row in REPEATING:
        weights = merged(model, adapters, factors, row.weights)
        logits = functional_call(model, weights, (torch.tensor([row.prompt + row.answer]),)).logits[0]
        for place, token in list(enumerate(row.answer))[row.skip :]:
            chances = logits[len(row.prompt) + place - 1].softmax(-1)
            total = total - chances[token].log()
            for other in set(row.answer[:place]) - {token}:
                total = total - share * (1 - chances[other]).log()
    (total / learned).backward()  # type: ignore[no-untyped-call]

    soup = TrainedSoup(load_model(tiny_base.folder, torch.float64), adapters, NAMES)
    assert soup_gradients(soup, REPEATING, share) == pytest.approx(float(total.detach()) / learned, abs=1e-12)
    for name, parameter in soup.parameters().items():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, factors[name].grad, rtol=1e-9, atol=1e-12)


def test_the_frozen_are_active_and_get_no_gradient(tiny_base: Base, adapters: dict[str, Adapter]) -> None:
    every = TrainedSoup(load_model(tiny_base.folder, torch.float64), adapters, NAMES)
    one = TrainedSoup(load_model(tiny_base.folder, torch.float64), adapters, ["kind"])
    assert soup_gradients(one, rows()) == soup_gradients(every, rows())
    assert {name.split("|")[0] for name in one.parameters()} == {"kind"}
    for name, parameter in one.parameters().items():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, every.parameters()[name].grad)
    frozen = [each for each in one.model.parameters() if not each.requires_grad]
    assert all(each.grad is None for each in frozen)


def test_the_bare_base_reads_what_it_reads_when_an_answer_is_made(
    tiny_base: Base, adapters: dict[str, Adapter]
) -> None:
    opening = "<|assistant|>\n"
    base = replace(tiny_base, chat_template=CHAT_TEMPLATE.replace("<|assistant|>", opening))
    engine, tokenizer = Engine.load(base, None), load_tokenizer(base.folder, base.chat_template)
    soup = TrainedSoup(load_model(tiny_base.folder, torch.float64), adapters, NAMES)
    for mode in MODES:
        recipe = SoupRecipe(mode=mode)
        row = together._row(tokenizer, examples(1)[0], recipe, soup)
        assert tuple(row.prompt) == engine.chat_tokens("number 0?")
        assert row.bare == engine.bare(tuple(row.prompt), mode)
    assert tokenizer.decode(row.prompt[row.bare :]) == opening


@pytest.mark.parametrize("bare", [0, 2])
def test_an_adapter_of_the_output_layer_learns(tmp_path: Path, bare: int) -> None:
    base = resolve(save_tiny_model(tmp_path / "untied", tied=False), cache=tmp_path / "cache")
    folder = save_random_adapter(base, tmp_path / "head", layers=["lm_head", "model.layers.0.mlp.up_proj"])
    held = {"head": Adapter("head", "head", base.digest, read_adapter(folder, base.layers().shapes()))}
    soup = TrainedSoup(load_model(base.folder, torch.float64), held, ["head"])
    made = [TrainingRow([5, 9, 11], [40, 41], 0, bare, [0.5]), TrainingRow([5, 9, 11, 7], [42], 0, bare, [1.0])]
    loss = soup_gradients(soup, made)
    alone = [soup_gradients(soup, [row]) * len(row.answer) for row in made]
    assert loss == pytest.approx(sum(alone) / 3, abs=1e-12)
    assert all(each.grad is not None and each.grad.abs().max() > 0 for each in soup.parameters().values())


def examples(count: int) -> list[SoupExample]:
    mixtures: list[dict[str, float]] = [{"brief": 1.0}, {"brief": 0.5, "kind": 0.5}, {"kind": 0.75, "plain": 1.0}]
    return [SoupExample(Example(f"number {n}?", f"aaaa {n} bbbb"), mixtures[n % 3]) for n in range(count)]


RECIPE = SoupRecipe(batch=2, learning_rate=1e-2)
PROSE = [f"{n} " + "the sea lies still and nobody is here to see how still it lies; " * 6 for n in range(5)]


def trained(
    base: Base, adapters: dict[str, Adapter], folder: Path, **more: Any
) -> tuple[dict[str, Tensor], list[float]]:
    return fit_soup(base, adapters, ["brief", "kind"], examples(12), PROSE, RECIPE, KeptSteps(folder, "w" * 64), **more)


def test_a_training_that_is_stopped_goes_on_with_the_same_bytes(
    tiny_base: Base, adapters: dict[str, Adapter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "_KEEP_EVERY", 2)
    whole, losses = trained(tiny_base, adapters, tmp_path / "whole")
    assert len(losses) == 6
    assert losses[-1] < losses[0]

    def stop(step: int, _steps: int) -> None:
        seen.append(step)
        if step == 5 and not resumed:
            raise KeyboardInterrupt

    seen: list[int] = []
    resumed = False
    with pytest.raises(KeyboardInterrupt):
        trained(tiny_base, adapters, tmp_path / "stopped", tell=stop)
    resumed = True
    again, more = trained(tiny_base, adapters, tmp_path / "stopped", tell=stop)
    assert seen == [1, 2, 3, 4, 5, 5, 6]
    assert more == losses
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    start = factors_of(adapters)
    assert all(not torch.equal(whole[name].double(), start[name].detach()) for name in whole)


def test_only_what_was_written_for_this_work_is_believed(tmp_path: Path) -> None:
    tensors, losses = {"a|b|A": torch.ones(3, 2)}, [1.0, 0.5]
    mine = KeptSteps(tmp_path, "a" * 64)
    mine.save(tensors, losses)
    mine.save(tensors, [*losses, 0.25])
    found, told = mine.load(tensors)
    assert torch.equal(found["a|b|A"], tensors["a|b|A"])
    assert told == [1.0, 0.5, 0.25]
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert KeptSteps(tmp_path, "a" * 24 + "b" * 40).load(tensors) == ({}, [])
    (file,) = tmp_path.glob("*.safetensors")
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + b"\x01", b""):
        file.write_bytes(damaged)
        assert mine.load(tensors) == ({}, [])
    file.write_bytes(whole)
    assert mine.load(tensors)[1] == told
    (record,) = tmp_path.glob("*.json")
    for text in (b"", b"null", b"[" * 100_000, *(record.read_bytes().replace(b"0.25", each) for each in BAD_LOSSES)):
        record.write_bytes(text)
        assert mine.load(tensors) == ({}, [])


BAD_LOSSES = (b'"x"', b'"nan"', b'"inf"')
OTHERS: dict[str, Factors] = {
    "another shape": {"a|b|A": torch.ones(1)},
    "another type": {"a|b|A": torch.ones(3, 2).half()},
    "another name": {"a|b|B": torch.ones(3, 2)},
    "nothing": {},
    "more": {"a|b|A": torch.ones(3, 2), "a|b|B": torch.ones(3, 2)},
    "a file that fills the memory": {"a|b|A": torch.ones(3, 2), "more": torch.ones(5 << 20)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_kept_of_other_factors_is_not_believed(tmp_path: Path, name: str) -> None:
    kept = KeptSteps(tmp_path, "a" * 64)
    kept.save(OTHERS[name], [1.0])
    assert kept.load({"a|b|A": torch.ones(3, 2)}) == ({}, [])


def test_more_steps_than_there_are_are_not_believed(
    tiny_base: Base, adapters: dict[str, Adapter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "_KEEP_EVERY", 2)

    def stop(step: int, _steps: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tiny_base, adapters, tmp_path, tell=stop)
    kept = KeptSteps(tmp_path, "w" * 64)
    soup = TrainedSoup(load_model(tiny_base.folder, torch.bfloat16), adapters, ["brief", "kind"])
    like = together._state(soup.parameters(), torch.optim.AdamW(soup.parameters().values()))
    tensors, losses = kept.load(like)
    assert len(losses) == 4
    kept.save(tensors, losses * 2)
    assert len(trained(tiny_base, adapters, tmp_path)[1]) == 6


def test_a_loss_that_is_no_number_ends_it(
    tiny_base: Base, adapters: dict[str, Adapter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "soup_gradients", lambda *_: float("nan"))
    with pytest.raises(TrainingError, match="the loss of step 1 is nan") as refusal:
        trained(tiny_base, adapters, tmp_path)
    assert refusal.value.reason == "not-finite"


def test_too_few_mixtures_are_one_sentence(tiny_base: Base, adapters: dict[str, Adapter], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="1 examples of mixtures are too few for a batch of 2"):
        fit_soup(tiny_base, adapters, ["kind"], examples(1), PROSE, RECIPE, KeptSteps(tmp_path, "w" * 64))


@pytest.mark.parametrize("hold", [1.0, 0.25])
def test_the_gradient_on_prose_is_that_of_the_divergence_from_the_base(
    tiny_base: Base, adapters: dict[str, Adapter], hold: float
) -> None:
    model, factors = load_model(tiny_base.folder, torch.float64), factors_of(adapters)
    passages = torch.tensor([[5, 9, 11, 30, 7], [40, 41, 42, 43, 44]])
    made = [*rows(), TrainingRow([5], [6], 0, 0, [0.1, 0.1, 0.1])]
    total = torch.zeros(())
    for passage, row in zip(passages, (made[0], made[1]), strict=True):  # both are fuller than the third
        merged_weights = merged(model, adapters, factors, row.weights)
        found = functional_call(model, merged_weights, (passage[None],)).logits[0].log_softmax(-1)
        base = model(passage[None]).logits[0].log_softmax(-1).detach()
        total = total + kl_div(found, base, log_target=True, reduction="sum") / passages.numel()
    (hold * total).backward()  # type: ignore[no-untyped-call]

    soup = TrainedSoup(load_model(tiny_base.folder, torch.float64), adapters, NAMES)
    told = prose_gradients(soup, passages, [made[2], made[0], made[1]], hold)
    assert told == pytest.approx(float(total.detach()), abs=1e-12)
    assert told > 1e-3
    for name, parameter in soup.parameters().items():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, factors[name].grad, rtol=1e-9, atol=1e-12)


def test_what_is_held_stays_nearer_to_the_base(tiny_base: Base, adapters: dict[str, Adapter], tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_base.folder, tiny_base.chat_template)
    others = ["and then the hills were green and the rain came down all night " * 8]
    passage = torch.tensor([tokenizer(others[0], add_special_tokens=False)["input_ids"][:64]])
    found = {}
    for hold in (0.0, 8.0):
        recipe = replace(RECIPE, hold=hold)
        kept = KeptSteps(tmp_path / str(hold), "w" * 64)
        tensors, _ = fit_soup(tiny_base, adapters, ["brief", "kind"], examples(12), PROSE, recipe, kept)
        soup = TrainedSoup(load_model(tiny_base.folder, torch.float64), adapters, ["brief", "kind"])
        for name, parameter in soup.parameters().items():
            parameter.data.copy_(tensors[name])
        found[hold] = prose_gradients(soup, passage, [TrainingRow([5], [6], 0, 0, [0.7, 0.7, 0.0])], 1.0)
    assert found[8.0] < 0.8 * found[0.0]


def test_prose_is_asked_for_only_where_soups_are_held_to_it(
    tiny_base: Base, adapters: dict[str, Adapter], tmp_path: Path
) -> None:
    def fit(prose: list[str], hold: float) -> dict[str, Tensor]:
        recipe, kept = replace(RECIPE, hold=hold), KeptSteps(tmp_path / str(len(prose)), "w" * 64)
        return fit_soup(tiny_base, adapters, ["kind"], examples(2), prose, recipe, kept)[0]

    with pytest.raises(TrainingError, match="none of 1 plain answers has 64 tokens") as refusal:
        fit(["too short"], 1.0)
    assert refusal.value.reason == "few-pairs"
    bare, beside = fit([], 0.0), fit(PROSE, 0.0)
    assert all(torch.equal(bare[name], beside[name]) for name in bare)
