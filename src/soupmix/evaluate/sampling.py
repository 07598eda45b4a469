"""Sampling: every arm answers every prompt at every temperature, and each answer is kept as it comes.

Prompts are outermost, so that a stopped run is a whole report over fewer prompts. All arms of a prompt that are decoded alike are
rows of one batch. The random numbers of an answer depend on seed, prompt and temperature, not on the arm: arms are compared under
the same luck, and what is sampled does not depend on how many rows or processes there are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from math import ceil, prod
from pathlib import Path

from soupmix.backends.protocol import MOST_SEEDS, Sampling
from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.errors import EvaluationError
from soupmix.evaluate.promptset import Prompt
from soupmix.evaluate.record import (
    AdapterFacts,
    BaseFacts,
    EvaluationRecord,
    arm_fields,
    held_record,
    here,
    joined,
    prompt_fields,
)
from soupmix.evaluate.samples import ArmSample, Keys, SampleFile
from soupmix.evaluate.soups import Arm
from soupmix.evaluate.ways import WAYS, Asked, rows_of
from soupmix.evaluate.workers import as_finished, workers
from soupmix.fields import twice
from soupmix.policy import Policy
from soupmix.store import ManifestEntry, Store

__all__ = ["Evaluation", "as_begun", "opened", "sample"]

_TOP_K = Sampling().top_k

_Answer = tuple[str, int, bool, int | None]
"""Text, tokens, whether it ended by itself, tokens of all rows if there were several."""

Advance = Callable[[int, int], None]
"""Called with (answers kept, tokens of those that this run made)."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What to evaluate.

    Attributes:
        base: the model. store: folder of the adapters. arms, prompts: who answers what, most important first.
        preferences: pole -> system prompt that asks for it, as far as there is one.
        temperatures: 0 is greedy. length: most tokens of an answer. seed: of all random numbers.
        dtype: what the engine computes in; None: that of the base.
        compiled: whether answers are made and scored by compiled steps where that can be done, which is faster (`Engine.load`).
    """

    base: Base
    store: Path
    arms: tuple[Arm, ...]
    prompts: tuple[Prompt, ...]
    preferences: Mapping[str, str]
    temperatures: tuple[float, ...] = (0.0, 0.7)
    length: int = 160
    seed: int = 0
    dtype: str | None = None
    compiled: bool = True

    def record(self) -> EvaluationRecord:
        """This, as it is kept beside the samples.

        Raises:
            EvaluationError: the adapters were trained on another base (reason "wrong-base"), or a prompt comes twice, which would
                count as two ("prompts").
        """
        if (again := twice(each.text for each in self.prompts)) is not None:
            raise EvaluationError(f"the prompt {again[:60]!a} comes twice; give every prompt once", reason="prompts")
        entries = tuple(Store(self.store))
        for each in entries:
            _check_base(each, self.base)
        adapters = {
            each.name: AdapterFacts(digest=each.digest, dimension=each.dimension, pole=each.pole) for each in entries
        }
        poles = sorted({each.pole for each in adapters.values()} & set(self.preferences))
        return EvaluationRecord(
            base=_facts(self.base),
            adapters=adapters,
            preferences={pole: self.preferences[pole] for pole in poles},
            seed=self.seed,
            length=self.length,
            top_k=_TOP_K,
            dtype=self.dtype,
            compiled=self.compiled,
            temperatures=self.temperatures,
            arms=tuple(map(arm_fields, self.arms)),
            prompts=tuple(map(prompt_fields, self.prompts)),
            made_by=(here(),),
        )


def _check_base(entry: ManifestEntry, base: Base) -> None:
    if entry.base_digest != base.digest:
        raise EvaluationError(
            f"adapter '{entry.name}' was trained on base {entry.base_digest}, but '{base.name}' is {base.digest}; use the base "
            "it was trained on",
            reason="wrong-base",
        )


def _facts(base: Base) -> BaseFacts:
    count = sum(prod(each.shape) for each in base.tensors().values()) if base.quantisation is None else None
    return BaseFacts(name=base.label, digest=base.digest, files=base.files_digest(), parameters=count)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Arms of one way and one method that answer one prompt together."""

    arms: tuple[Arm, ...]
    prompt: Prompt
    temperature: float


def as_begun(evaluation: Evaluation, out: Path) -> tuple[Evaluation, EvaluationRecord]:
    """An evaluation that begins in a folder or goes on there, by the steps that it was begun with, and the record of both.

    Raises:
        EvaluationError: as `held_record`, `Evaluation.record` and `joined`.
    """
    before = held_record(out)
    if before is None:
        return evaluation, evaluation.record()
    evaluation = replace(evaluation, compiled=before.compiled)
    return evaluation, joined(before, evaluation.record(), out)


def sample(
    evaluation: Evaluation,
    keys: Keys,
    file: SampleFile,
    *,
    rows: int = 64,
    jobs: int = 1,
    advance: Advance = lambda kept, tokens: None,
) -> None:
    """Make every answer that the file does not hold yet.

    Args:
        keys: of the record that the file belongs to. rows: most answers of a batch.
        jobs: worker processes of one thread each; 1: this process, with all its threads.

    Raises:
        EvaluationError: a worker process was ended from outside (reason "worker-lost").
        OutputError: the disk refuses; what was written before is kept.
        RecipeError, BaseModelError, AdapterError: see `Engine.load` and `Engine.complete`.
    """
    batches = list(_batches(evaluation, keys, file, rows))
    total = 0
    for number, answers in _answered(evaluation, batches, jobs):
        each = batches[number]
        made = [_sample(arm, each, answer, keys) for arm, answer in zip(each.arms, answers, strict=True)]
        file.append(made)
        total += sum(one.tokens for one in made)
        advance(len(file.samples), total)


def _batches(evaluation: Evaluation, keys: Keys, file: SampleFile, rows: int) -> Iterator[_Batch]:
    for prompt in evaluation.prompts:
        for temperature in evaluation.temperatures:
            # who has examples is apart: all rows of a batch are as long as the longest
            alike: dict[tuple[str, str, bool], list[Arm]] = {}
            for arm in evaluation.arms:
                if keys.key(arm.name, prompt.text, temperature) not in file.samples:
                    alike.setdefault((arm.way, arm.method, bool(arm.shots)), []).append(arm)
            for arms in alike.values():
                yield from (_Batch(each, prompt, temperature) for each in _packed(arms, rows))


def _packed(arms: Sequence[Arm], rows: int) -> Iterator[tuple[Arm, ...]]:
    """Arms that are answered together, in order: at most so many rows, unless one arm alone has more."""
    taken = [rows_of(arm) for arm in arms]
    most = ceil(sum(taken) / ceil(sum(taken) / rows))  # 65 rows are 33 and 32, not 64 and 1
    start, held = 0, 0
    for place, count in enumerate(taken):
        if start < place and held + count > most:
            yield tuple(arms[start:place])
            start, held = place, 0
        held += count
    yield tuple(arms[start:])


def _answered(evaluation: Evaluation, batches: Sequence[_Batch], jobs: int) -> Iterator[tuple[int, list[_Answer]]]:
    by = evaluation.base, evaluation.store, evaluation.dtype, evaluation.compiled
    calls = [(by, each, evaluation.length, evaluation.seed) for each in batches]
    if jobs == 1 or len(calls) < 2:
        yield from enumerate(_answer(*call) for call in calls)
        return
    with workers(jobs) as pool:
        yield from as_finished(pool, _answer, calls, error=EvaluationError)


def _answer(by: tuple[Base, Path, str | None, bool], batch: _Batch, length: int, seed: int) -> list[_Answer]:
    engine, policy = opened(*by)
    sampling = Sampling(
        max_new_tokens=length,
        temperature=batch.temperature,
        top_k=_TOP_K,
        seed=_luck(seed, batch.prompt.text, batch.temperature),
    )
    made = WAYS[batch.arms[0].way](Asked(engine, policy, batch.arms, batch.prompt, sampling))
    return [(each.text.strip(), each.tokens, each.finished, each.decoded) for each in made]


@lru_cache(maxsize=1)
def opened(base: Base, store: Path, dtype: str | None, compiled: bool) -> tuple[Engine, Policy]:
    """What this process answers with, loaded once. Weights are granted under nothing but the built-in bounds."""
    adapters = Store(store)
    return Engine.load(base, adapters, dtype=dtype, compiled=compiled), Policy.open(tuple(adapters))


def _luck(seed: int, prompt: str, temperature: float) -> int:
    """The seed of all answers to a prompt at a temperature."""
    digest = sha256(f"{seed} {temperature!r} {prompt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % MOST_SEEDS


def _sample(arm: Arm, batch: _Batch, answer: _Answer, keys: Keys) -> ArmSample:
    text, tokens, finished, decoded = answer
    prompt, temperature = batch.prompt, batch.temperature
    key = keys.key(arm.name, prompt.text, temperature)
    return ArmSample(arm, prompt.text, prompt.kind, temperature, keys.seed, text, tokens, finished, key, decoded)
