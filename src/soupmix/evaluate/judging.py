"""Measuring by the model: what it says of answers, and how it would begin them. It takes long, so what is measured is kept.

Beside the samples, `judged/` has a file a prompt. A value counts only for the very sample, text and judges that it was made of;
what is missing is measured, the rest is not again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from math import isfinite
from pathlib import Path

from soupmix.base import Base
from soupmix.errors import EvaluationError
from soupmix.evaluate.measures import Measure, shipped_phrases
from soupmix.evaluate.measures.judge import QUESTION, GivenAnswer, Judge, judge_answers, judges, question_log_p
from soupmix.evaluate.measures.opening import OPENING, opening_chances
from soupmix.evaluate.measuring import MeasuredSamples, NotMeasured
from soupmix.evaluate.promptset import Prompt
from soupmix.evaluate.record import EvaluationRecord, bounded_json
from soupmix.evaluate.samples import ArmSample
from soupmix.evaluate.sampling import opened
from soupmix.evaluate.ways import conversation_of
from soupmix.evaluate.workers import Progress, as_finished, workers
from soupmix.files import compact_json, digest_parts, write_file, writing
from soupmix.sealed import read_sealed
from soupmix.store import Store
from soupmix.weights import Weights

__all__ = ["JUDGED", "Judging", "judged"]

JUDGED = "judged"
_CHUNK = 16  # samples
_CAP = 8 << 20
_Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class Judging:
    """Who judges: the base that answered, its adapters, and what its answers were computed in."""

    base: Base
    store: Path
    record: EvaluationRecord

    def check(self, out: Path) -> None:
        """Raise `EvaluationError` (reason "evaluation-changed") if these are not the base and adapters that answered."""
        there = {each.name: each.digest for each in Store(self.store)}
        pairs = {"base": (self.record.base.digest, self.base.digest)}
        pairs |= {
            f"adapter {name}": (facts.digest, there.get(name, "")) for name, facts in self.record.adapters.items()
        }
        for what, (before, now) in pairs.items():
            if before != now:
                raise EvaluationError(
                    f"{out} was answered by {what} {before}, and what is given is {now or 'none'}: give the same --base and "
                    "--store, or --no-judge",
                    reason="evaluation-changed",
                )

    def judges(self) -> tuple[Judge, ...]:
        """One for every dimension of two poles that have preference prompts, else one for every pole that has one."""
        return judges(self.record.adapters.values(), self.record.preferences)

    def measures(self) -> dict[str, Measure]:
        """What is measured, by name."""
        ends = {facts.pole: facts.dimension for facts in self.record.adapters.values()}
        found = [*(judge.measure for judge in self.judges()), QUESTION]
        for pole in sorted(set(shipped_phrases().openers) & set(ends)):
            title = f"chance that it opens as {pole} was trained to"
            found.append(replace(OPENING, name=f"opening_{pole}", title=title, dimension=ends[pole], pole=pole))
        return {each.name: each for each in found}


def judged(
    judging: Judging,
    measured: MeasuredSamples,
    samples: Sequence[ArmSample],
    out: Path,
    *,
    first: int | None = None,
    jobs: int = 1,
    progress: Progress = lambda stage, done, total: None,
) -> MeasuredSamples:
    """What was measured, and what the model says.

    Args:
        measured: by text. samples: all of them. out: folder of the evaluation.
        first: how many prompts, of whose answers it says something; None: all.
        jobs: worker processes. progress: called with ("judging", samples done, samples in all).

    Raises:
        EvaluationError: what is kept is damaged (reason "bad-judged"), or a worker process was ended from outside
            ("worker-lost").
        OutputError: the disk refuses. RecipeError, BaseModelError, AdapterError: see `Engine.load`.
    """
    by = json.dumps([[judge.name, judge.toward, judge.against] for judge in judging.judges()])
    asked = {each.prompt for each in judging.record.prompts[:first]}
    samples = [each for each in samples if each.prompt in asked]
    keys = {each.key: _key(each, by) for each in samples}
    with writing(out / JUDGED):
        (out / JUDGED).mkdir(exist_ok=True)
    kept = {prompt: _kept(_path(out, prompt)) for prompt in {each.prompt for each in samples}}
    left = [each for each in samples if keys[each.key] not in kept[each.prompt]]
    done = len(samples) - len(left)
    progress("judging", done, len(samples))
    for chunk, found in _answered(judging, left, jobs):
        for each, values in zip(chunk, found, strict=True):
            kept[each.prompt][keys[each.key]] = values
        for prompt in {each.prompt for each in chunk}:
            write_file(_path(out, prompt), compact_json(kept[prompt]) + b"\n")
        progress("judging", done := done + len(chunk), len(samples))
    tables = {temperature: dict(table) for temperature, table in measured.tables.items()}
    for each in samples:
        row = tables[each.temperature][each.arm.name, each.prompt]
        tables[each.temperature][each.arm.name, each.prompt] = {**row, **kept[each.prompt][keys[each.key]]}
    left_out = [*measured.left_out, *_unjudged(len(asked), len(judging.record.prompts))]
    return MeasuredSamples(tables, {**measured.measures, **judging.measures()}, tuple(left_out))


def _unjudged(asked: int, prompts: int) -> list[NotMeasured]:
    if asked == prompts:
        return []
    return [
        NotMeasured("what the base says of all answers", f"it judged those to the first {asked} of {prompts} prompts")
    ]


def _answered(
    judging: Judging, left: Sequence[ArmSample], jobs: int
) -> Iterator[tuple[Sequence[ArmSample], list[_Values]]]:
    chunks = [left[start : start + _CHUNK] for start in range(0, len(left), _CHUNK)]
    if jobs == 1 or len(chunks) < 2:
        yield from ((chunk, _judge(judging, chunk)) for chunk in chunks)
        return
    with workers(jobs) as pool:
        calls = [(judging, chunk) for chunk in chunks]
        for number, found in as_finished(pool, _judge, calls, error=EvaluationError):
            yield chunks[number], found


def _judge(judging: Judging, samples: Sequence[ArmSample]) -> list[_Values]:
    """What the model says of some answers."""
    engine, policy = opened(judging.base, judging.store, judging.record.dtype)
    bare = policy.clamp(Weights({}))
    answers = [GivenAnswer(each.prompt, each.text) for each in samples]
    found = judge_answers(engine, bare, answers, judging.judges())
    for row, value in zip(found, question_log_p(engine, bare, answers), strict=True):
        if value is not None:
            row[QUESTION.name] = value
    for row, chances in zip(found, _openings(judging, samples), strict=True):
        row.update(chances)
    return [{name: float(f"{value:.6g}") for name, value in row.items() if isfinite(value)} for row in found]


def _openings(judging: Judging, samples: Sequence[ArmSample]) -> list[_Values]:
    """Chances of the poles' openings, of answers that one pass of the engine made."""
    engine, policy = opened(judging.base, judging.store, judging.record.dtype)
    known, found = judging.measures(), [_Values() for _ in samples]
    for method in {each.arm.method for each in samples}:
        rows = [place for place, e in enumerate(samples) if e.arm.method == method and e.arm.way == "soup"]
        asked = [conversation_of(samples[place].arm, Prompt(samples[place].prompt, "", ())) for place in rows]
        grants = [policy.clamp(samples[place].arm.weights) for place in rows]
        chances = opening_chances(engine, asked, grants, shipped_phrases(), method=method) if rows else []
        for place, row in zip(rows, chances, strict=True):
            named = {f"opening_{pole}": chance for pole, chance in row.items()}
            found[place] = {name: chance for name, chance in named.items() if name in known}
    return found


def _key(sample: ArmSample, by: str) -> str:
    return digest_parts("soupmix.judged.v1", {"sample": sample.key, "text": sample.text, "judges": by})


def _path(out: Path, prompt: str) -> Path:
    return out / JUDGED / f"{sha256(prompt.encode()).hexdigest()[:32]}.json"


def _kept(path: Path) -> dict[str, _Values]:
    try:
        found = bounded_json(read_sealed(path, cap=_CAP, error=EvaluationError)[0])
    except EvaluationError as error:
        if error.reason == "missing":
            return {}
        raise
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(found, dict) or not all(_are_values(each) for each in found.values()):
        raise _damaged(path, "no values by name")
    return found


def _are_values(found: object) -> bool:
    return isinstance(found, Mapping) and all(type(value) in (int, float) for value in found.values())


def _damaged(path: Path, why: str) -> EvaluationError:
    return EvaluationError(f"{path} is damaged: {why}; remove it, and it is measured again", reason="bad-judged")
