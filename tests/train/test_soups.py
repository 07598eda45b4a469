"""The stage of mixtures: from adapters of a store to folders that a store takes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from soupmix.base import Base
from soupmix.errors import AdapterError, TrainingError
from soupmix.evaluate.trained import TEXTS, read_trained
from soupmix.files import strict_json
from soupmix.store import Store
from soupmix.train import POLES, SoupRecipe, TrainingPlan, TrainingRecipe, run
from soupmix.train.effects import adapter_card
from soupmix.train.mixtures import SoupArm
from soupmix.train.soups import fit_mixtures, soup_works
from tests.support.rust_answers import SAMPLES, TOPIC

NAMES = ("concise", "elementary", "friendly")
RECIPE = SoupRecipe(examples=8, batch=4, learning_rate=1e-2, response_tokens=24)


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, tiny_adapter: Callable[..., Path]) -> Store:
    store = Store(tmp_path_factory.mktemp("beside") / "store", create=True)
    for number, name in enumerate(NAMES):
        made = {"training": {"method": [number]}} if name == "concise" else {}
        store.add(tiny_adapter(rank=2, seed=number), dimension=f"d{number}", pole=name, base=tiny_base, **made)
    return store


@pytest.fixture
def plan(tiny_base: Base, beside: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingPlan:
    monkeypatch.setattr(TrainingPlan, "sampled", lambda *_, **__: SAMPLES)
    return TrainingPlan(tiny_base, NAMES, (TOPIC,), tmp_path, TrainingRecipe(), soup=RECIPE, beside=beside.folder)


def fitted(plan: TrainingPlan, trained: tuple[str, ...]) -> int:
    """How many steps it took."""
    steps: list[int] = []
    fit_mixtures(plan, trained, lambda step, _: steps.append(step))
    return len(steps)


def test_a_set_is_trained_once_and_can_be_added_to_a_store(plan: TrainingPlan, beside: Store, tmp_path: Path) -> None:
    assert plan.mixed == NAMES
    assert plan.started == set(NAMES)
    assert soup_works(plan) == [NAMES]
    assert [fitted(plan, NAMES), fitted(plan, NAMES)] == [2, 0]
    texts = {name: (tmp_path / name / TEXTS).read_bytes() for name in NAMES if (tmp_path / name / TEXTS).exists()}
    assert texts  # of mixtures of one pole at full weight
    assert read_trained(tmp_path)[1]
    store = Store(tmp_path / "store", create=True)
    for name in NAMES:
        config = (tmp_path / name / "adapter_config.json").read_bytes()
        assert config == (beside.path(name) / "adapter_config.json").read_bytes()
        entry = store.add(tmp_path / name, dimension=name, pole=name, base=plan.base)
        assert entry.digest != beside[name].digest
    (tmp_path / "concise" / "adapter_model.safetensors").write_bytes(b"damaged")
    assert [fitted(plan, NAMES), fitted(plan, NAMES)] == [2, 0]


def test_one_at_a_time_the_others_stay_as_they_are(plan: TrainingPlan, tmp_path: Path) -> None:
    frozen: SoupArm = "frozen"
    alone = replace(plan, poles=("friendly",), soup=replace(RECIPE, arm=frozen))
    assert soup_works(alone) == [("friendly",)]
    assert soup_works(replace(alone, poles=NAMES)) == [(name,) for name in NAMES]
    assert fitted(alone, ("friendly",)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["friendly"]


def test_apart_there_are_more_examples_of_one_pole_each(plan: TrainingPlan) -> None:
    apart: SoupArm = "apart"
    assert fitted(replace(plan, soup=replace(RECIPE, arm=apart)), NAMES) > 2


def test_another_recipe_does_not_believe_what_is_there(plan: TrainingPlan) -> None:
    assert fitted(plan, NAMES) == 2
    assert fitted(replace(plan, soup=replace(RECIPE, mode="answer")), NAMES) == 2
    assert fitted(replace(plan, soup=replace(RECIPE, seed=1)), NAMES) == 2


def test_between_before_and_after_is_a_share_of_the_way(plan: TrainingPlan, beside: Store, tmp_path: Path) -> None:
    assert fitted(plan, NAMES) == 2
    after = {name: load_file(tmp_path / name / "adapter_model.safetensors") for name in NAMES}
    for share, steps in ((0.25, 2), (0.75, 0)):  # what training leads to is kept
        part = replace(plan, interpolation=share, folder=tmp_path / "part")
        assert [fitted(part, NAMES), fitted(part, NAMES)] == [steps, 0]
        for name in NAMES:
            before = load_file(beside.path(name) / "adapter_model.safetensors")
            found = load_file(part.folder / name / "adapter_model.safetensors")
            assert found.keys() == after[name].keys() == before.keys()
            for key, each in found.items():
                wanted = before[key].double() + share * (after[name][key].double() - before[key].double())
                torch.testing.assert_close(each.double(), wanted, rtol=2**-8, atol=1e-6)
            record = strict_json((part.folder / name / "training.json").read_bytes())
            card = adapter_card(POLES[name], record, {}, None, plan.base)
            assert f"of the way from before to after it, {share}" in card
            assert f"--interpolate {share}" in card
    assert sorted(path.name for path in part.folder.iterdir()) == [*NAMES, "work"]
    with pytest.raises(TrainingError, match="more than 0 and at most 1"):
        replace(plan, interpolation=0.0)


def test_given_examples_are_not_mixed(plan: TrainingPlan) -> None:
    with pytest.raises(TrainingError, match="examples that are given do not say what 'friendly' is in a mixture"):
        replace(plan, given={"friendly": None})


def test_the_record_holds_what_the_store_said_and_the_card_does_not_read_it(plan: TrainingPlan, tmp_path: Path) -> None:
    fitted(plan, NAMES)
    for name, before in zip(NAMES, ({"method": [0]}, {}, {}), strict=True):
        record = strict_json((tmp_path / name / "training.json").read_bytes())
        assert record["before"] == before
        card = adapter_card(POLES[name], record, {}, None, plan.base)
        assert "- begun as it was in a store" in card
        assert "- in mixtures: 8 of concise, elementary, friendly, all of them learning; 2 steps of 4" in card


def test_a_store_of_another_base_is_refused_before_any_work(plan: TrainingPlan) -> None:
    with pytest.raises(AdapterError, match="train with the base that they are for") as refusal:
        replace(plan, base=replace(plan.base, digest="sha256:" + "0" * 64))
    assert refusal.value.reason == "wrong-base"


def test_adapters_are_those_that_the_manifest_means(plan: TrainingPlan, beside: Store) -> None:
    file = beside.path("elementary") / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(AdapterError) as refusal:
            fitted(plan, NAMES)
    finally:
        file.write_bytes(whole)
    assert refusal.value.reason == "digest-mismatch"


def test_who_is_in_no_mixture_is_known(plan: TrainingPlan) -> None:
    assert plan.unmixed == ()
    few = replace(plan, poles=("friendly",), known={"friendly": POLES["friendly"]})
    assert few.unmixed == ("concise", "elementary")


def test_a_store_beside_has_a_part_in_mixtures_only(plan: TrainingPlan) -> None:
    with pytest.raises(TrainingError, match="say how they are trained"):
        run(replace(plan, soup=None), progress=lambda *_: None)
