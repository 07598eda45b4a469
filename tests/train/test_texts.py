"""The texts that a pole was trained on lie beside its adapter, and `soupmix evaluate --trained` reads them."""

from pathlib import Path

import pytest

from soupmix.base import Base
from soupmix.errors import EvaluationError
from soupmix.evaluate.trained import TEXTS, read_trained, trained_effects
from soupmix.files import sha256_file
from soupmix.train import POLES, GivenPairs, TrainingPlan, TrainingRecipe
from soupmix.train.examples import Example
from soupmix.train.finished import is_trained
from soupmix.train.sample import NEUTRAL
from soupmix.train.texts import write_texts
from tests.support.rust_answers import SAMPLES, TOPIC

PLAIN = next(each.text for each in SAMPLES[NEUTRAL.name] if each.variant == 0)


@pytest.fixture
def plan(tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingPlan:
    monkeypatch.setattr(TrainingPlan, "sampled", lambda *_, **__: SAMPLES)
    for name in ("concise", "elementary"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "training.json").write_text("{}")
    known = {name: POLES[name] for name in ("concise", "elementary")}
    return TrainingPlan(tiny_base, tuple(known), (TOPIC,), tmp_path, TrainingRecipe(), known=known)


def test_what_is_learned_is_read_as_the_ceiling(plan: TrainingPlan, tmp_path: Path) -> None:
    """From the folder of the training as it is, without a file made by hand."""
    learned = {pole: plan.examples(pole) for pole in plan.poles}
    assert all(learned.values())
    for pole, examples in learned.items():
        write_texts(plan, pole, examples, tmp_path / pole)
        assert is_trained(tmp_path / pole)
    _, texts = read_trained(tmp_path)
    assert [(each.pole, each.text) for each in texts] == [(p, e.chosen) for p in plan.poles for e in learned[p]]
    assert {(each.prompt, each.plain) for each in texts} == {(TOPIC.text, PLAIN)}
    found = trained_effects(*read_trained(tmp_path))
    assert found.counts == {pole: len(examples) for pole, examples in learned.items()}
    assert found.effects["concise", "words"].value < 0
    one, alone = read_trained(tmp_path / "concise" / TEXTS)
    assert alone == texts[: len(alone)]
    assert one == f"sha256:{sha256_file(tmp_path / 'concise' / TEXTS)}"


def test_mixtures_add_to_what_was_learned_before(plan: TrainingPlan, tmp_path: Path) -> None:
    """And the same work again writes the same."""
    start, end = tmp_path / "concise", tmp_path / "elementary"
    asked = ({"role": "user", "content": TOPIC.text},)
    write_texts(plan, "concise", [Example(asked, "Short.")], start)
    for _ in range(2):
        write_texts(plan, "concise", [Example(asked, "Shorter.")], end, before=start)
        _, texts = read_trained(end / TEXTS)
        assert [each.text for each in texts] == ["Short.", "Shorter."]


def test_what_somebody_gave_is_not_copied(plan: TrainingPlan, tmp_path: Path) -> None:
    asked = ({"role": "user", "content": "Why?"},)
    given = GivenPairs("pairs.jsonl", "0" * 64, (Example(asked, "Because.", place="line 1"),))
    of_somebody = TrainingPlan(
        plan.base,
        ("dry",),
        (),
        tmp_path,
        TrainingRecipe(),
        known={**POLES, "dry": POLES["concise"]},
        given={"dry": given},
    )
    write_texts(of_somebody, "dry", given.examples, tmp_path / "concise")
    assert not (tmp_path / "concise" / TEXTS).exists()


def test_a_folder_without_texts_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="0 folders in it have a trained") as caught:
        read_trained(tmp_path)
    assert caught.value.reason == "trained"
    (tmp_path / "concise").mkdir()
    (tmp_path / "concise" / TEXTS).symlink_to("/etc/hostname")
    with pytest.raises(EvaluationError) as caught:
        read_trained(tmp_path)
    assert caught.value.reason == "symlink"
