"""`soupmix train` for real on a few prompts: workers, files that are reused, the same bytes again."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.base import Base
from soupmix.errors import TrainingError
from soupmix.evaluate import Prompt, training_prompts
from soupmix.files import sha256_file
from soupmix.store import Store
from soupmix.train import POLES, SoupRecipe, TrainingPlan, TrainingRecipe, run

training = importlib.import_module("soupmix.train.run")
PROMPTS = tuple(training_prompts())
RECIPE = TrainingRecipe()


def test_an_unknown_pole_is_one_sentence(tiny_base: Base, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="pole 'rude' is not known; choose from elementary"):
        TrainingPlan(tiny_base, ("rude",), PROMPTS, tmp_path, RECIPE)


def test_a_run_whose_samples_lie_elsewhere_makes_its_own_folder(tiny_base: Base, tmp_path: Path) -> None:
    plan = TrainingPlan(tiny_base, ("concise",), PROMPTS, tmp_path / "out", RECIPE, shared=tmp_path / "samples")
    with training._held(plan):
        assert {path.name for path in tmp_path.iterdir()} == {"out", "samples"}


def test_an_adapter_is_fitted_anew_unless_it_is_what_was_written(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[Path] = []

    def fit(_base: object, _pairs: object, _recipe: object, folder: Path) -> dict[str, int]:
        fitted.append(folder)
        (folder / "adapter_model.safetensors").write_bytes(b"factors")
        (folder / "adapter_config.json").write_bytes(b"{}")
        return {"steps": 1}

    monkeypatch.setattr(training, "fit", fit)
    monkeypatch.setattr(TrainingPlan, "examples", lambda *_: [])

    def fits(recipe: TrainingRecipe = RECIPE) -> int:
        before = len(fitted)
        training._fit(TrainingPlan(tiny_base, ("concise",), PROMPTS, tmp_path, recipe), "concise")
        return len(fitted) - before

    adapter = tmp_path / "concise"
    assert [fits(), fits()] == [1, 0]
    for damage in (
        lambda: (adapter / "adapter_model.safetensors").write_bytes(b"factorz"),
        lambda: (adapter / "adapter_config.json").write_bytes(b"{ }"),
        lambda: (adapter / "adapter_config.json").unlink(),
        lambda: (adapter / "training.json").write_bytes(b"[" * 100_000),
        lambda: (adapter / "training.json").write_bytes(b"null"),
    ):
        damage()
        assert [fits(), fits()] == [1, 0]
    assert [fits(TrainingRecipe(seed=1)), fits(TrainingRecipe(seed=1)), fits()] == [1, 0, 1]


@pytest.mark.slow
def test_a_run_is_resumed_and_repeated_exactly(smollm2: Base, tmp_path: Path) -> None:
    def train(folder: Path, jobs: int) -> tuple[dict[str, str], list[tuple[str, int, int]]]:
        seen: list[tuple[str, int, int]] = []
        plan = TrainingPlan(smollm2, ("concise",), PROMPTS[:10], folder, RECIPE, jobs=jobs)
        made = run(plan, progress=lambda *step: seen.append(step))
        return {name: sha256_file(path / "adapter_model.safetensors") for name, path in made.items()}, seen

    first, seen = train(tmp_path / "a", jobs=2)
    assert seen[0] == ("sampling", 0, 3)
    shutil.rmtree(tmp_path / "a" / "concise")
    samples = {path: path.stat().st_mtime_ns for path in (tmp_path / "a" / "work").rglob("*.jsonl")}
    (lost, *_) = sorted(samples)
    text = lost.read_bytes()
    lost.unlink()
    again, seen = train(tmp_path / "a", jobs=1)
    assert seen[0] == ("sampling", 2, 3)
    assert again == first
    assert lost.read_bytes() == text
    assert all(path.stat().st_mtime_ns == then for path, then in samples.items() if path != lost)


@pytest.mark.slow
def test_mixtures_from_samples_to_adapters_and_again(
    tiny_base: Base, tiny_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    """A random model says letters, which are on topic here; what it says of anything is not the point."""
    asked = tuple(Prompt(f"Say {n}.", "question", tuple("abcdefghijklmnopqrstuvwxyz")) for n in range(8))
    names, beside = ("concise", "elementary", "friendly"), Store(tmp_path / "beside", create=True)
    for number, name in enumerate(names):
        beside.add(tiny_adapter(rank=2, seed=number), dimension=POLES[name].dimension, pole=name, base=tiny_base)
    soup = SoupRecipe(examples=8, batch=4, response_tokens=24)
    plan = TrainingPlan(tiny_base, names, asked, tmp_path / "out", RECIPE, soup=soup, beside=beside.folder, jobs=1)

    def train() -> tuple[dict[str, str], tuple[str, int, int]]:
        seen: list[tuple[str, int, int]] = []
        made = run(plan, progress=lambda *step: seen.append(step))
        assert [path for path in plan.folder.rglob("*") if path.name.startswith(".soupmix")] == []
        return {name: sha256_file(path / "adapter_model.safetensors") for name, path in made.items()}, seen[0]

    first, told = train()
    assert told == ("sampling", 0, 6)
    assert train() == (first, ("sampling", 6, 6))
    (lost, *_) = sorted(plan.samples.iterdir())
    lost.write_bytes(b"damaged")
    shutil.rmtree(plan.folder / "friendly")
    assert train() == (first, ("sampling", 5, 6))
