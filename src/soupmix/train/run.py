"""The whole of `soupmix train`: sample, choose, fit. Every finished piece of work is a file: a stopped run goes on."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

from soupmix.base import Base
from soupmix.errors import TrainingError
from soupmix.evaluate.effect import Contrast
from soupmix.evaluate.promptset import Prompt
from soupmix.evaluate.workers import Progress, as_finished, loaded_engine, workers
from soupmix.files import canonical_json, digest_parts, new_folder, sha256_file, write_file
from soupmix.policy import Policy
from soupmix.replacing import plain_names
from soupmix.scratch import sweep
from soupmix.train.fit import TrainingRecipe, fit
from soupmix.train.pairs import FRAMED_POOLS, Pair, choose_pairs
from soupmix.train.poles import POLES
from soupmix.train.sample import NEUTRAL, Chunk, chunks, read_samples, sample_chunk

__all__ = ["TrainingPlan", "left_out_contrasts", "run"]

_WRITTEN = {"adapter_config.json", "adapter_model.safetensors", "training.json", "effect.json", "README.md"}
_LEFT_OUT_EVERY = 11  # prompts that no adapter is trained on, for the teacher-forced margin


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What to train.

    Attributes:
        base: the model. poles: which. prompts: what to ask. folder: where adapters (one folder a pole) and work go.
        recipe: how. pairs: at most this many per pole. variants: answers sampled per prompt. jobs: worker processes.
    """

    base: Base
    poles: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    folder: Path
    recipe: TrainingRecipe
    pairs: int = 128
    variants: int = 2
    jobs: int = 2

    def __post_init__(self) -> None:
        for name in self.poles:
            if name not in POLES:
                raise TrainingError(f"pole '{name}' is not known; choose from {', '.join(POLES)}", reason="pole")

    @property
    def samples(self) -> Path:
        """Folder of the samples; named by all that decides them, so that other settings never meet old samples."""
        systems = json.dumps({name: [POLES[name].systems, POLES[name].cap] for name in sorted(POLES)})
        parts = {
            "base": self.base.digest,
            "files": self.base.files_digest(),
            "prompts": json.dumps([p.text for p in self.prompts]),
            "seed": str(self.recipe.seed),
            "systems": systems,
            "variants": str(self.variants),
        }
        return self.folder / "work" / f"samples-{digest_parts('soupmix samples', parts)[:12]}"


def run(plan: TrainingPlan, *, progress: Progress) -> dict[str, Path]:
    """Train every pole of the plan; return pole -> folder of its adapter.

    What an earlier run with the same settings has finished is taken as it is.

    Args:
        progress: called with ("sampling" or "training", done, total).

    Raises:
        TrainingError: a pole has too few usable pairs (reason "few-pairs"), or a worker process was ended from outside
            ("worker-lost").
        OutputError: a folder cannot be written, or holds something else than an earlier adapter.
    """
    plan.samples.mkdir(parents=True, exist_ok=True)
    names = sorted({name for pole in plan.poles for name in _pools(pole)})
    todo = chunks(names, len(plan.prompts), variants=plan.variants, seed=plan.recipe.seed)
    left = [chunk for chunk in todo if not (plan.samples / chunk.file).exists()]
    progress("sampling", len(todo) - len(left), len(todo))
    with _swept(plan), workers(plan.jobs) as pool:
        done = len(todo) - len(left)
        for _ in as_finished(pool, _sample, [(plan.base, chunk, plan.prompts, plan.samples) for chunk in left]):
            progress("sampling", done := done + 1, len(todo))
        progress("training", 0, len(plan.poles))
        for count, _ in enumerate(as_finished(pool, _fit, [(plan, pole) for pole in plan.poles]), start=1):
            progress("training", count, len(plan.poles))
    return {pole: plan.folder / pole for pole in plan.poles}


@contextmanager
def _swept(plan: TrainingPlan) -> Iterator[None]:
    """Workers that are ended leave temporaries behind."""
    try:
        yield
    finally:
        for folder in (plan.samples, plan.folder):
            sweep(folder)


def left_out_contrasts(plan: TrainingPlan, pole: str, most: int = 16) -> list[Contrast]:
    """At most `most` contrasts of a pole on prompts that it is not trained on, for the teacher-forced margin."""
    return [pair.contrast for pair in _pairs(plan, pole, most, left_out=True)]


def _pools(pole: str) -> set[str]:
    """Which samples a pole needs: the plain ones, and its dimension's own or those that its frame is woven around."""
    same = [p.name for p in POLES.values() if p.dimension == POLES[pole].dimension and p.frame is None]
    return {NEUTRAL, *(FRAMED_POOLS if POLES[pole].frame else same)}


def _pairs(plan: TrainingPlan, pole: str, most: int, *, left_out: bool) -> list[Pair]:
    samples = {
        name: [s for s in read_samples(plan.samples, name) if (s.prompt % _LEFT_OUT_EVERY == 0) is left_out]
        for name in _pools(pole)
    }
    return choose_pairs(POLES[pole], plan.prompts, samples, most)


def _sample(base: Base, chunk: Chunk, prompts: Sequence[Prompt], folder: Path) -> None:
    sample_chunk(loaded_engine(base, None), Policy.open(()).clamp({}), chunk, prompts, folder)


def _fit(plan: TrainingPlan, pole: str) -> None:
    pairs = _pairs(plan, pole, plan.pairs, left_out=False)
    wanted = _identity(plan, pole, pairs)
    sweep(plan.folder, pole)
    record = plan.folder / pole / "training.json"
    if record.exists() and json.loads(record.read_bytes()).get("identity") == wanted:
        return
    with new_folder(plan.folder / pole, force=True, own=_is_trained) as folder:
        summary = fit(plan.base, pairs, plan.recipe, folder)
        tensors = sha256_file(folder / "adapter_model.safetensors")
        training = {**summary, "identity": wanted, "base": plan.base.digest, "pole": pole, "tensors_sha256": tensors}
        write_file(folder / "training.json", canonical_json(training))


def _is_trained(folder: Path) -> bool:
    """Whether a folder holds an earlier adapter of this command and nothing else."""
    present = plain_names(folder)
    return present is not None and "training.json" in present and present <= _WRITTEN


def _identity(plan: TrainingPlan, pole: str, pairs: Sequence[Pair]) -> str:
    parts = {
        "base": plan.base.digest,
        "files": plan.base.files_digest(),
        "pole": pole,
        "recipe": json.dumps(asdict(plan.recipe)),
    }
    texts = {f"pair-{i}": "\0".join(astuple(pair.contrast)) for i, pair in enumerate(pairs)}
    return digest_parts("soupmix training", {**parts, **texts})
