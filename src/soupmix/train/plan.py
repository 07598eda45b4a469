"""What a training run does, and by what its pieces of work are known when a stopped run goes on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from soupmix.base import Base
from soupmix.errors import AdapterError, TrainingError
from soupmix.evaluate.effect import Contrast
from soupmix.evaluate.promptset import Prompt
from soupmix.files import digest_parts
from soupmix.store import Store
from soupmix.train.examples import Example, examples_digest
from soupmix.train.fit import TrainingRecipe
from soupmix.train.given import GivenPairs
from soupmix.train.judges import scores_of
from soupmix.train.pairs import choose_pairs
from soupmix.train.poles import POLES, Pole, joint_pools, opposite, pools_of
from soupmix.train.sample import Chunk, Manner, Sample, SampleSource, chunks, read_samples
from soupmix.train.together import SoupRecipe
from soupmix.weights import check_name

__all__ = ["TrainingPlan", "fit_identity"]

WORK = "work"
_LEFT_OUT_EVERY = 11  # prompts, or given examples, that no adapter is trained on


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What to train.

    Attributes:
        base: the model. poles: which. prompts: what to ask. folder: where adapters (one folder a pole) and work go.
        recipe: how. pairs: at most this many examples per pole; None: all. variants: answers sampled per prompt.
        jobs: worker processes. known: poles by name, those of the plan among them.
        given: pole -> examples that somebody gave; the others are sampled.
        soup: how they are trained in mixtures afterwards; None: each is trained alone.
        beside: folder of a store whose adapters are in the mixtures too; those that the plan trains begin as they are there.
        interpolation: how far adapters go from where mixtures found them to where these led, more than 0 and at most 1. Factors
            before and after are weighed so, as Wortsman et al. 2022 (WiSE-FT) weigh a model before and after fine-tuning.
        shared: folder of samples, where several runs have them together; None: below `folder`.
    """

    base: Base
    poles: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    folder: Path
    recipe: TrainingRecipe
    pairs: int | None = 128
    variants: int = 2
    jobs: int = 2
    known: Mapping[str, Pole] = field(default_factory=lambda: POLES)
    given: Mapping[str, GivenPairs] = field(default_factory=dict)
    soup: SoupRecipe | None = None
    beside: Path | None = None
    interpolation: float = 1.0
    shared: Path | None = None

    def __post_init__(self) -> None:
        if not 0 < self.interpolation <= 1:
            raise TrainingError(
                f"an interpolation of {self.interpolation:g} is asked for; it is more than 0 and at most 1",
                reason="method",
            )
        self._check_beside()
        for name in self.poles:
            if name not in self.known:
                raise TrainingError(
                    f"pole '{name}' is not known; choose from {', '.join(self.known)}, or give --pairs or --poles",
                    reason="pole",
                )
            for word in (name, self.known[name].dimension):
                check_name(word)
            if self.soup is not None and name in self.given:
                raise TrainingError(
                    f"examples that are given do not say what '{name}' is in a mixture, so it is trained alone: leave out "
                    "--together and --with",
                    reason="pole",
                )
            if name == WORK:
                raise TrainingError(
                    f"no pole can be called '{WORK}': the folder of that name is for samples", reason="pole"
                )

        for name in self.soup.more if self.soup is not None else ():
            if name not in self.mixed:
                raise TrainingError(
                    f"pole '{name}' cannot be in more mixtures, as it is in none; choose from {', '.join(self.mixed)}",
                    reason="pole",
                )

    def _check_beside(self) -> None:
        """Before hours of work, and not after them."""
        for entry in Store(self.beside) if self.beside else ():
            if entry.base_digest != self.base.digest:
                raise AdapterError(
                    f"the adapters of {self.beside} were trained on {entry.base} ({entry.base_digest}), but "
                    f"'{self.base.name}' is {self.base.digest}; train with the base that they are for",
                    reason="wrong-base",
                )

    @property
    def samples(self) -> Path:
        """Folder of the samples, one file a chunk."""
        return self.shared or self.folder / WORK / "samples"

    @property
    def arms(self) -> Path:
        """Folder of what was measured."""
        return self.folder / WORK / "arms"

    def chunks(self, poles: Sequence[str]) -> list[Chunk]:
        """What has to be sampled for these poles."""
        source = SampleSource(self.base, self.prompts, self.variants, self.recipe.seed)
        return chunks(source, {pool for pole in poles if pole not in self.given for pool in self._pools(pole)})

    def mixture_chunks(self) -> list[Chunk]:
        """What has to be sampled for mixtures: in the manner of each of their poles, and of every two."""
        source = SampleSource(self.base, self.prompts, self.variants, self.recipe.seed)
        pools = {pool for name in self.mixed for pool in self._pools(name)}
        return chunks(source, pools | joint_pools([self.known[name] for name in self.mixed]))

    def _pools(self, pole: str) -> set[Manner]:
        return pools_of(self.known[pole], self.known.values())

    @property
    def started(self) -> frozenset[str]:
        """The poles that begin as they are in the store beside."""
        return frozenset(self.poles) & frozenset(Store(self.beside).names if self.beside else ())

    @property
    def unmixed(self) -> tuple[str, ...]:
        """Adapters of the store beside that are in no mixture, as nothing says what they mean there."""
        return tuple(name for name in (Store(self.beside).names if self.beside else ()) if name not in self.known)

    @property
    def mixed(self) -> tuple[str, ...]:
        """The poles of mixtures: those that are trained, and those of the store beside that are described."""
        there = Store(self.beside).names if self.beside else ()
        return tuple(sorted({*self.poles, *(name for name in there if name in self.known)}))

    def examples(self, pole: str) -> list[Example]:
        """What a pole is trained on, best first where they were chosen.

        Raises:
            TrainingError: samples are missing (reason "samples-missing").
        """
        return self._examples(pole, left_out=False)[: self.pairs]

    def held_back(self, pole: str) -> list[Example]:
        """The first 16 pairs of a pole that it is not trained on."""
        return [each for each in self._examples(pole, left_out=True) if each.rejected][:16]

    def left_out(self, pole: str) -> list[Contrast]:
        """Contrasts of a pole that it is not trained on, for the teacher-forced margin."""
        return [each.contrast for each in self.held_back(pole)]

    def _examples(self, pole: str, *, left_out: bool) -> list[Example]:
        if pole in self.given:
            numbered = enumerate(self.given[pole].examples)
            return [each for number, each in numbered if (number % _LEFT_OUT_EVERY == 0) is left_out]
        found = self.sampled(self.chunks([pole]), left_out=left_out)
        about = self.known[pole]
        other = opposite(about, self.known.values())
        judged = [each for each in (about, other) if each and each.judge]
        scores = {each.name: scores_of(each, self.base, self.prompts, found) for each in judged}
        return [pair.example for pair in choose_pairs(about, self.prompts, found, other, scores)]

    def sampled(self, of: Sequence[Chunk], *, left_out: bool = False) -> dict[str, list[Sample]]:
        """Name of a pool -> its samples for the prompts that are trained on, or for those that are left out.

        Raises:
            TrainingError: samples are missing (reason "samples-missing").
        """
        found: dict[str, list[Sample]] = {}
        for chunk in of:
            mine = (each for each in _sampled(self.samples, chunk) if (each.prompt % _LEFT_OUT_EVERY == 0) is left_out)
            found.setdefault(chunk.pool.name, []).extend(mine)
        return found


def _sampled(folder: Path, chunk: Chunk) -> list[Sample]:
    samples = read_samples(folder, chunk)
    if samples is None:
        raise TrainingError(
            f"{folder / chunk.file} is gone or damaged since it was sampled: run the same command again",
            reason="samples-missing",
        )
    return samples


def fit_identity(plan: TrainingPlan, pole: str, examples: Sequence[Example]) -> str:
    """Digest of all that decides an adapter."""
    parts = {
        "base": plan.base.digest,
        "files": plan.base.files_digest(),
        "pole": pole,
        "recipe": json.dumps(asdict(plan.recipe)),
    }
    return digest_parts("soupmix training", {**parts, "examples": examples_digest(examples)})
