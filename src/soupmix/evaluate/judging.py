"""Measuring by the model: what it says of answers, and how it would begin them. It takes long, so what is measured is kept.

Beside the samples, `judged/` has it. A value counts only for the very sample, text and judges that it was made of.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

from soupmix.base import Base
from soupmix.errors import EvaluationError
from soupmix.evaluate.kept import Values, kept_values, path_of, rounded
from soupmix.evaluate.measures import Measure, shipped_phrases
from soupmix.evaluate.measures.judge import QUESTION, GivenAnswer, Judge, judge_answers, judges, question_log_p
from soupmix.evaluate.measures.opening import OPENING, opening_chances
from soupmix.evaluate.measuring import MeasuredSamples, NotMeasured
from soupmix.evaluate.promptset import Prompt
from soupmix.evaluate.record import EvaluationRecord
from soupmix.evaluate.samples import ArmSample
from soupmix.evaluate.sampling import opened
from soupmix.evaluate.ways import conversation_of
from soupmix.evaluate.workers import Progress
from soupmix.files import digest_parts
from soupmix.store import Store
from soupmix.weights import Weights

__all__ = ["JUDGED", "Judging", "judged"]

JUDGED = "judged"


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
                    "--store, or --no-judge and no --fidelity",
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
    kept = kept_values(
        samples,
        [(path_of(out / JUDGED, each.prompt), _key(each, by)) for each in samples],
        _judge,
        judging,
        jobs=jobs,
        advance=lambda done: progress("judging", done, len(samples)),
        damaged="bad-judged",
    )
    tables = {temperature: dict(table) for temperature, table in measured.tables.items()}
    for each, values in zip(samples, kept, strict=True):
        row = tables[each.temperature][each.arm.name, each.prompt]
        tables[each.temperature][each.arm.name, each.prompt] = {**row, **values}
    left_out = [*measured.left_out, *_unjudged(len(asked), len(judging.record.prompts))]
    return MeasuredSamples(tables, {**measured.measures, **judging.measures()}, tuple(left_out))


def _unjudged(asked: int, prompts: int) -> list[NotMeasured]:
    if asked == prompts:
        return []
    return [
        NotMeasured("what the base says of all answers", f"it judged those to the first {asked} of {prompts} prompts")
    ]


def _judge(judging: Judging, samples: Sequence[ArmSample]) -> list[Values]:
    """What the model says of some answers."""
    engine, policy = opened(judging.base, judging.store, judging.record.dtype, judging.record.compiled)
    bare = policy.clamp(Weights({}))
    answers = [GivenAnswer(each.prompt, each.text) for each in samples]
    found = judge_answers(engine, bare, answers, judging.judges())
    for row, value in zip(found, question_log_p(engine, bare, answers), strict=True):
        if value is not None:
            row[QUESTION.name] = value
    for row, chances in zip(found, _openings(judging, samples), strict=True):
        row.update(chances)
    return [{name: rounded(value) for name, value in row.items() if isfinite(value)} for row in found]


def _openings(judging: Judging, samples: Sequence[ArmSample]) -> Sequence[Values]:
    """Chances of the poles' openings, of answers that one pass of the engine made."""
    engine, policy = opened(judging.base, judging.store, judging.record.dtype, judging.record.compiled)
    known, found = judging.measures(), [dict[str, float]() for _ in samples]
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
