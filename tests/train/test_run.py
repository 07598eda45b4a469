"""`soupmix train` for real on a few prompts: workers, files that are reused, the same bytes again."""

import shutil
from pathlib import Path

import pytest

from soupmix.base import Base
from soupmix.errors import TrainingError
from soupmix.evaluate import training_prompts
from soupmix.files import sha256_file
from soupmix.train import TrainingPlan, TrainingRecipe, run


def test_an_unknown_pole_is_one_sentence(tiny_base: Base, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="pole 'rude' is not known; choose from elementary"):
        TrainingPlan(tiny_base, ("rude",), tuple(training_prompts()), tmp_path, TrainingRecipe())


def test_other_settings_never_meet_old_samples(tiny_base: Base, tmp_path: Path) -> None:
    prompts = tuple(training_prompts())
    folders = {
        TrainingPlan(tiny_base, ("concise",), prompts, tmp_path, TrainingRecipe()).samples,
        TrainingPlan(tiny_base, ("concise",), prompts, tmp_path, TrainingRecipe(seed=1)).samples,
        TrainingPlan(tiny_base, ("concise",), prompts[1:], tmp_path, TrainingRecipe()).samples,
        TrainingPlan(tiny_base, ("concise",), prompts, tmp_path, TrainingRecipe(), variants=3).samples,
    }
    assert len(folders) == 4
    assert TrainingPlan(tiny_base, ("expert",), prompts, tmp_path, TrainingRecipe(), jobs=7).samples in folders


@pytest.mark.slow
def test_a_run_is_resumed_and_repeated_exactly(smollm2: Base, tmp_path: Path) -> None:
    def train(folder: Path, jobs: int) -> tuple[dict[str, str], list[tuple[str, int, int]]]:
        seen: list[tuple[str, int, int]] = []
        plan = TrainingPlan(smollm2, ("concise",), tuple(training_prompts()[:10]), folder, TrainingRecipe(), jobs=jobs)
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
