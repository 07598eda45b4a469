"""How true soups are to what they stand for, without a judge: KL to MOD, perplexity of neutral prose, mode connectivity.

Merging is an approximation in one pass of mixing the models that each adapter makes alone (MOD, Shi et al. 2024). How good it is
can be told exactly, token by token, along the answers that soups gave.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soupmix.engine import Engine
from soupmix.engine.mixing import mixed
from soupmix.evaluate.answered import is_plain_soup
from soupmix.evaluate.figures import figure
from soupmix.evaluate.judging import Judging
from soupmix.evaluate.kept import Values, kept_values, path_of, rounded
from soupmix.evaluate.likelihood import text_log_p
from soupmix.evaluate.promptset import Prompt, neutral_paragraphs
from soupmix.evaluate.record import EvaluationRecord
from soupmix.evaluate.samples import ArmSample
from soupmix.evaluate.sampling import opened
from soupmix.evaluate.soups import Arm, soup_name, with_methods
from soupmix.evaluate.statistics import Resampling, estimate
from soupmix.evaluate.ways import conversation_of, mixed_adapters
from soupmix.evaluate.workers import Progress
from soupmix.files import digest_parts
from soupmix.policy import Policy
from soupmix.weights import Weights

__all__ = ["FIDELITY", "divergences", "fidelity"]

FIDELITY = "fidelity"
_BAD, _PROSE = "bad-fidelity", "prose.json"
_SAID = ("kl_mod", "kl_base", "tokens")
_MOST = 500.0  # nats a token, far beyond what any model says; a perplexity of more is soon no number any more
_LARGE = 1e9

Numbers = NDArray[np.float64]


def fidelity(
    judging: Judging,
    samples: Sequence[ArmSample],
    out: Path,
    *,
    first: int | None = None,
    jobs: int = 1,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """The sections "fidelity", "prose" and "connectivity" of a report.

    Args:
        judging: base and adapters that answered. samples: all of them. out: folder of the evaluation, which keeps what was found.
        first: only answers to so many prompts are gone along; None: to all.
        jobs: worker processes. progress: called with ("fidelity" or "prose", done, in all).

    Returns:
        "fidelity": temperature -> arm -> "kl_mod" and "kl_base", KL(MOD || soup) and KL(MOD || base) in nats per token along the
        soup's own answers, means over prompts with intervals, and "tokens", how many there were.
        "prose": arm -> "perplexity", with an interval over pieces of prose.
        "connectivity": of every two adapters that a soup has together "soup", half of each, and "margin": log-perplexity of it
        less the mean of those of either alone (Frankle et al. 2020; below 0 there is no barrier between them).

    Raises:
        EvaluationError: what is kept is damaged (reason "bad-fidelity"), or a worker process was ended from outside
            ("worker-lost").
        OutputError: the disk refuses. RecipeError, BaseModelError, AdapterError: see `Engine.load`.
    """
    asked = {each.prompt for each in judging.record.prompts[:first]}
    told = [
        each
        for each in samples
        if each.prompt in asked and each.arm.weights and is_plain_soup(each.arm, each.arm.method)
    ]
    soups = [arm for arm in judging.record.all_arms() if is_plain_soup(arm, arm.method)]
    halves = list(_halves(soups))
    arms = list(dict.fromkeys([*soups, *(arm for three in halves for arm in three)]))
    prose = _Prose(arms, _kept_of_prose(judging, arms, out / FIDELITY, jobs, progress))
    return {
        "fidelity": _of_all(judging, told, out / FIDELITY, jobs, progress),
        "prose": {arm.name: {"perplexity": figure(estimate(np.exp(prose.surprise(arm))))} for arm in soups},
        "connectivity": [{"soup": three[0].name, "margin": figure(estimate(prose.margin(*three)))} for three in halves],
    }


def _of_all(
    judging: Judging, samples: Sequence[ArmSample], folder: Path, jobs: int, progress: Progress
) -> dict[str, Any]:
    found = kept_values(
        samples,
        [(path_of(folder, each.prompt), _key_of_answer(each)) for each in samples],
        _of_answers,
        judging,
        jobs=jobs,
        advance=lambda done: progress("fidelity", done, len(samples)),
        damaged=_BAD,
    )
    return _figures_of_answers(judging.record, samples, found)


def _kept_of_prose(judging: Judging, arms: Sequence[Arm], folder: Path, jobs: int, progress: Progress) -> list[Values]:
    return kept_values(
        arms,
        [(folder / _PROSE, _key_of_prose(judging.record, arm)) for arm in arms],
        _of_prose,
        judging,
        jobs=jobs,
        advance=lambda done: progress("prose", done, len(arms)),
        damaged=_BAD,
    )


def divergences(engine: Engine, policy: Policy, arm: Arm, prompt: Prompt, answer: str) -> Tensor:
    """KL(MOD || soup) and KL(MOD || base) at every token of an answer, exact over the vocabulary, in nats.

    Args:
        policy: grants the weights. arm: a soup. answer: teacher-forced.

    Returns:
        [2, tokens of the answer] float32 on the CPU.

    Raises:
        RecipeError, PolicyRefusal, PolicyError, AdapterError, BaseModelError, TypeError: as `Engine.complete`.
    """
    before = engine.chat_tokens(conversation_of(arm, prompt))
    after = engine.prompts.tokens(answer) if answer else ()
    if not after:
        return torch.zeros(2, 0)
    members = mixed_adapters(policy, arm)
    grants = [policy.clamp(arm.weights), policy.clamp({}), *(grant for grant, _ in members)]
    ids = torch.tensor([[*before, *after]], device=engine.model.device).repeat(len(grants), 1)
    logits = engine.logits(ids, grants, method=arm.method)[:, len(before) - 1 : -1]
    mod = mixed(logits[2:], [share for _, share in members]).log_softmax(-1)
    return torch.stack([_divergence(mod, each.float().log_softmax(-1)) for each in logits[:2]]).cpu()


def _divergence(one: Tensor, other: Tensor) -> Tensor:
    """KL(one || other) of log-probabilities [..., vocabulary]; what is impossible in the first adds nothing."""
    gaps = one.exp() * (one - other)
    return gaps.masked_fill(one.isneginf(), 0.0).sum(-1)


def _of_answers(judging: Judging, samples: Sequence[ArmSample]) -> list[Values]:
    engine, policy = opened(judging.base, judging.store, judging.record.dtype, judging.record.compiled)
    found: list[Values] = []
    for each in samples:
        both = divergences(engine, policy, each.arm, Prompt(each.prompt, each.kind, ()), each.text)
        means = both.double().mean(1).tolist() if both.numel() else []
        named = dict(zip(_SAID, map(rounded, means), strict=False))
        found.append({"tokens": both.shape[1], **named})
    return found


def _of_prose(judging: Judging, arms: Sequence[Arm]) -> list[Values]:
    """Of every arm, for each piece of prose how many tokens it has and how likely they are together."""
    engine, policy = opened(judging.base, judging.store, judging.record.dtype, judging.record.compiled)
    found: list[Values] = [{} for _ in arms]
    for method in {arm.method for arm in arms}:
        rows = [place for place, arm in enumerate(arms) if arm.method == method]
        grants = [policy.clamp(arms[place].weights) for place in rows]
        for place, texts in zip(rows, text_log_p(engine, neutral_paragraphs(), grants, method=method), strict=True):
            sums = {f"log_p_{number}": rounded(float(each.double().sum())) for number, each in enumerate(texts)}
            found[place] = sums | {f"tokens_{number}": each.numel() for number, each in enumerate(texts)}
    return found


def _halves(soups: Sequence[Arm]) -> Iterator[tuple[Arm, Arm, Arm]]:
    """Of every two adapters that a soup has together: half of each, and either alone."""
    pairs = dict.fromkeys((soup.method, pair) for soup in soups for pair in combinations(soup.weights.nonzero(), 2))
    for method, (one, other) in pairs:
        yield _soup({one: "0.5", other: "0.5"}, method), _soup({one: 1}, method), _soup({other: 1}, method)


def _soup(weights: Mapping[str, str | int], method: str) -> Arm:
    made = Weights(weights)
    return with_methods([Arm(soup_name(made), made)], [method])[0]


class _Prose:
    """How surprised arms are by pieces of neutral prose, over one draw of pieces."""

    def __init__(self, arms: Sequence[Arm], values: Sequence[Values]) -> None:
        count = len(neutral_paragraphs())
        self._draws = Resampling(count)
        self._of = {
            arm: np.array([[_value(each, f"{what}_{n}") for n in range(count)] for what in ("log_p", "tokens")])
            for arm, each in zip(arms, values, strict=True)
        }

    def surprise(self, arm: Arm) -> Numbers:
        """Log-perplexity: what a token costs in nats, in every draw [1 + draws]."""
        log_p, tokens = self._draws.weights @ self._of[arm].T[:, 0], self._draws.weights @ self._of[arm].T[:, 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Numbers = -log_p / tokens
            return np.where(np.abs(found) < _MOST, found, nan)

    def margin(self, both: Arm, one: Arm, other: Arm) -> Numbers:
        """That of a soup less the mean of its two parts."""
        return self.surprise(both) - (self.surprise(one) + self.surprise(other)) / 2


def _value(values: Values, name: str) -> float:
    """A value of a file, where it may be one."""
    found = values.get(name, nan)
    return found if abs(found) < _LARGE else nan


def _figures_of_answers(
    record: EvaluationRecord, samples: Sequence[ArmSample], values: Sequence[Values]
) -> dict[str, Any]:
    """Temperature -> arm -> figures over its prompts."""
    prompts = {each.prompt: place for place, each in enumerate(record.prompts)}
    draws = Resampling(max(len(prompts), 1))
    rows: dict[str, dict[str, Numbers]] = {}
    for sample, each in zip(samples, values, strict=True):
        of_arms = rows.setdefault(f"{sample.temperature:g}", {})
        row = of_arms.setdefault(sample.arm.name, np.full((len(prompts), len(_SAID)), nan))
        row[prompts[sample.prompt]] = [_value(each, name) for name in _SAID]
    return {
        temperature: {
            arm: {name: figure(draws.mean(row[:, place])) for place, name in enumerate(_SAID[:2])}
            | {"tokens": int(np.nansum(row[:, 2]))}
            for arm, row in of_arms.items()
        }
        for temperature, of_arms in rows.items()
    }


def _key_of_answer(sample: ArmSample) -> str:
    return digest_parts("soupmix.fidelity.v1", {"sample": sample.key, "text": sample.text})


def _key_of_prose(record: EvaluationRecord, arm: Arm) -> str:
    adapters = {name: record.adapters[name].digest for name in arm.weights}
    parts = {
        "adapters": json.dumps(adapters, sort_keys=True),
        "base": record.base.digest,
        "dtype": str(record.dtype),
        "files": record.base.files,
        "method": arm.method,
        "prose": "\n\n".join(neutral_paragraphs()),
        "weights": json.dumps(arm.weights.decimals(), sort_keys=True),
    }
    return digest_parts("soupmix.prose.v1", parts)
