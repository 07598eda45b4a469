"""Traits of texts by adapters as implicit rewards (`soupmix.preference.rewards`): by how much likelier a text is to an adapter
than to the base. It is teacher-forced: nothing is generated.

A weight below 1 that a policy grants of an adapter counts as so much of its reward: log-probabilities are nearly linear in
a weight.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Final

from soupmix.engine import Engine
from soupmix.errors import PreferenceError
from soupmix.evaluate.judging import Judging
from soupmix.evaluate.kept import Values, kept_values, path_of, rounded
from soupmix.evaluate.likelihood import Forced, answer_log_p
from soupmix.evaluate.measures.here import TextMeasuring
from soupmix.evaluate.measures.measure import Measure
from soupmix.evaluate.measuring import MeasuredSamples
from soupmix.evaluate.samples import ArmSample
from soupmix.evaluate.sampling import opened
from soupmix.evaluate.surface import ASKABLE
from soupmix.evaluate.workers import Progress
from soupmix.files import digest_parts
from soupmix.preference.rewards import Allow, Reward, granted, granted_rewards, rewards
from soupmix.preference.traits import Traits
from soupmix.weights import MILLION, Weights

__all__ = ["REWARDS", "RewardMeasuring", "rewarded", "values_of"]

REWARDS: Final = "rewards"
"""Folder of an evaluation in which they are kept."""

_MOST, _MOST_PROMPT = 256, 1024  # tokens of an answer that count, and of a prompt


def values_of(
    engine: Engine, allow: Allow, answers: Sequence[tuple[str, str]], by: Sequence[Reward]
) -> list[dict[str, float]]:
    """What every reward says of every answer: one pass, a row for the base and for each adapter of each answer.

    Args:
        engine: holds base and adapters; calls and steps of a running batch take turns.
        allow: grants one adapter at a time.
        answers: (prompt, text); the first 256 tokens of a text count.
        by: rewards whose adapters are granted.

    Returns:
        Name of the measure -> nats per token, of each answer; empty for an answer without tokens.

    Raises:
        PreferenceError: a prompt is too long, or holds a mark of a role (reason "not-measured"). Others as `answer_log_p`.
    """
    for prompt in dict.fromkeys(prompt for prompt, _ in answers):
        _check(engine, prompt)
    names = sorted({name for each in by for name in each.adapters})
    grants = {name: grant for name in names if (grant := granted(name, allow)) is not None}
    rows = [allow(Weights({})), *grants.values()]
    forced = [Forced(prompt or " ", text.strip(), grant) for prompt, text in answers for grant in rows]
    means = [
        float(each.mean()) if each.numel() else None for each in answer_log_p(engine, forced, most=_MOST, apart=True)
    ]
    found: list[dict[str, float]] = []
    for place in range(len(answers)):
        base, *others = means[place * len(rows) : (place + 1) * len(rows)]
        if base is None:
            found.append({})
            continue
        gains = {
            name: ((mean or 0.0) - base) * MILLION / grant.granted[name]
            for (name, grant), mean in zip(grants.items(), others, strict=True)
        }
        values = {r.name: gains[r.toward] - (gains[r.against] if r.against else 0.0) for r in by}
        found.append({name: value for name, value in values.items() if isfinite(value)})
    return found


def _check(engine: Engine, prompt: str) -> None:
    if (mark := engine.prompts.marker(prompt)) is not None:
        raise PreferenceError(
            f"the prompt holds {mark!r}, a mark of a role, so that adapters cannot measure its answers; leave it out",
            reason="not-measured",
        )
    if prompt and len(engine.prompts.tokens(prompt)) > _MOST_PROMPT:
        raise PreferenceError(
            f"adapters measure answers to prompts of at most {_MOST_PROMPT} tokens; give what was asked last",
            reason="not-measured",
        )


@dataclass(frozen=True, slots=True)
class RewardMeasuring:
    """Traits of texts, for a `soupmix.preference.Learner`: by the text alone where there is a measure, else by adapters.

    Attributes:
        traits: what is measured.
        every: rewards by the name of their measure, those of the traits among them.
        engine: gives the engine, when it is needed. allow: grants one adapter at a time.
    """

    traits: Traits
    every: Mapping[str, Reward]
    engine: Callable[[], Engine]
    allow: Allow

    def __call__(self, prompt: str, texts: Sequence[str]) -> list[Mapping[str, float] | None]:
        """Of every text the values of all traits; None where one has none, as an empty text.

        Raises:
            EvaluationError: a library is not installed (reason "no-library"). Others as `values_of`.
        """
        by = [self.every[each.key] for each in self.traits.axes if each.key in self.every]
        left = tuple(each for each in self.traits.axes if each.key not in self.every)
        told: list[Mapping[str, float] | None] = [{} for _ in texts]
        if left:
            told = TextMeasuring(Traits(left, self.traits.of, self.traits.signed))(prompt, texts)
        places = [place for place, each in enumerate(told) if each is not None and texts[place].strip()] if by else []
        found: list[Mapping[str, float] | None] = [None if by else each for each in told]
        names = {each.key: each.name for each in self.traits.axes}
        made = values_of(self.engine(), self.allow, [(prompt, texts[p]) for p in places], by) if places else []
        for place, values in zip(places, made, strict=True):
            if len(values) == len(by):
                found[place] = {**(told[place] or {}), **{names[key]: value for key, value in values.items()}}
        return found


# --- of an evaluation -------------------------------------------------------------------------------------------------


def rewarded(
    judging: Judging,
    measured: MeasuredSamples,
    samples: Sequence[ArmSample],
    out: Path,
    *,
    jobs: int = 1,
    progress: Progress = lambda stage, done, total: None,
) -> MeasuredSamples:
    """What was measured, and of dimensions without a measure that a map takes what their adapters say of every answer.

    Args:
        judging: base and adapters. measured: by text. samples: all of them. out: folder of the evaluation, where it is kept.
        jobs: worker processes. progress: called with ("rewards", samples done, samples in all).

    Raises:
        EvaluationError, OutputError, RecipeError, BaseModelError, AdapterError: as `soupmix.evaluate.judging.judged`.
    """
    by = _unmeasured(judging, measured)
    if not by:
        return measured
    kept = kept_values(
        samples,
        [(path_of(out / REWARDS, each.prompt), _key(each, by)) for each in samples],
        _work,
        judging,
        jobs=jobs,
        advance=lambda done: progress(REWARDS, done, len(samples)),
        damaged="bad-rewards",
    )
    tables = {temperature: dict(table) for temperature, table in measured.tables.items()}
    for each, values in zip(samples, kept, strict=True):
        row = tables[each.temperature][each.arm.name, each.prompt]
        named = {name: value for name, value in values.items() if name in by}
        tables[each.temperature][each.arm.name, each.prompt] = {**row, **named}
    return MeasuredSamples(
        tables, {**measured.measures, **{name: _measure(each) for name, each in by.items()}}, measured.left_out
    )


def _measure(reward: Reward) -> Measure:
    """As evaluations know it."""
    title = (
        f"how much likelier it is to {' than to '.join(reward.adapters)}{'' if reward.against else ' than to the base'}"
    )
    return Measure(
        reward.name, reward.dimension, title, "nats per token", 0, "Rafailov et al. 2023", ("model",), reward.pole
    )


def _all(judging: Judging) -> tuple[Reward, ...]:
    return rewards(judging.record.base.digest, judging.record.adapters)


def _unmeasured(judging: Judging, measured: MeasuredSamples) -> dict[str, Reward]:
    told = {each.dimension for name, each in measured.measures.items() if name in ASKABLE}
    return {each.name: each for each in _all(judging) if each.dimension not in told}


def _work(judging: Judging, samples: Sequence[ArmSample]) -> list[Values]:
    engine, policy = opened(judging.base, judging.store, judging.record.dtype, judging.record.compiled)
    by = list(granted_rewards(_all(judging), policy.clamp).values())
    found = values_of(engine, policy.clamp, [(each.prompt, each.text) for each in samples], by)
    return [{name: rounded(value) for name, value in row.items()} for row in found]


def _key(sample: ArmSample, by: Mapping[str, Reward]) -> str:
    said = hashlib.sha256(" ".join(sorted(by)).encode()).hexdigest()
    return digest_parts("soupmix.rewards.v1", {"sample": sample.key, "text": sample.text, "by": said})
