"""When a posterior should not be believed: answers come as by lot, wants have changed, or answers surprise it.

All of it is asked of the same particles. What is said of the evidence as a whole is said without the bounds on sources.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from soupmix.preference.comparisons import Comparison, comparisons
from soupmix.preference.posterior import Posterior
from soupmix.preference.responses import UNIT, log_likelihood
from soupmix.preference.signal import Signal
from soupmix.preference.traits import Numbers

__all__ = ["Alarm", "Calibration", "alarms", "calibration"]

_FEWEST = 8  # answers, before which anything may be chance
_LATEST = 200  # signals that are looked at
_SURE = np.log(20.0)  # log Bayes factor
_FAR = 2.58  # standard deviations: one person of two hundred
_LEAST = 4  # answers on either side of a change


@dataclass(frozen=True, slots=True)
class Alarm:
    """What should be known before the posterior is believed.

    Attributes:
        kind: "by-lot", a trait that matters is missing, or somebody does not care; "drift", what was wanted has changed;
            "surprise", what was answered was unlikely, given what was answered before.
        figure: by lot, log-odds; drift, log Bayes factor in nats; of a surprise, standard deviations.
        since: id of the first signal after the change; None of other kinds.
        text: for people, with what to do.
    """

    kind: Literal["by-lot", "drift", "surprise"]
    figure: float
    since: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Calibration:
    """How well each answer was foretold from those before it.

    Attributes:
        answers: how many, as they count.
        score: mean log-probability of what was answered, in nats; a coin has -0.693.
        expected: the same, if the posterior was right about itself.
        surprise: by how many standard deviations `score` is below `expected`.
    """

    answers: float
    score: float
    expected: float
    surprise: float


def calibration(posterior: Posterior) -> Calibration:
    """How well the latest 200 signals were foretold, each from those before it."""
    steps = _Steps.of(posterior)
    if not len(steps.tables):
        return Calibration(0.0, 0.0, 0.0, 0.0)
    before = np.cumsum(steps.tables, axis=0) - steps.tables
    evidence = steps.log_evidence(before)
    said = steps.log_evidence(before + steps.tables) - evidence
    other = steps.log_evidence(before + steps.mirrored) - evidence
    chance = np.exp(said) / (np.exp(said) + np.exp(other))  # of two outcomes that count as much
    expected = chance * said + (1 - chance) * other
    variance = chance * (1 - chance) * np.square(said - other)
    off = float((expected - said).sum() / max(np.sqrt(variance.sum()), 1e-9))
    answers = float(steps.counts.sum())
    return Calibration(answers, float(said.sum() / answers), float(expected.sum() / answers), off)


def alarms(posterior: Posterior) -> tuple[Alarm, ...]:
    """What should be known before the posterior is believed; nothing of fewer than eight signals.

    By lot: that somebody is careless is likelier than not. Drift: by marginal likelihoods, other wants before some signal than
    after it, each moment as likely, against the same throughout.
    """
    steps = _Steps.of(posterior)
    if len(steps.tables) < _FEWEST:
        return ()
    found = []
    careless = float(posterior.sharpnesses()[posterior.how.sharpness == 0].sum())
    if careless > 0.5:
        found.append(Alarm("by-lot", float(np.log(careless / max(1 - careless, 1e-12))), None, _BY_LOT))
    place, factor = _changed(steps)
    if factor > _SURE:
        since = steps.signals[place].id
        text = f"what is wanted has changed, most likely at the signal {since!r}: forget those before it, or ask anew"
        found.append(Alarm("drift", factor, since, text))
    surprise = calibration(posterior).surprise
    if surprise > _FAR:
        found.append(Alarm("surprise", surprise, None, _SURPRISE))
    return tuple(found)


_BY_LOT: Final = (
    "these answers are explained no better than those of a coin: what decides them is not measured, or nothing here matters to "
    "this person; ask why one answer is better, or leave the weights as they are"
)
_SURPRISE: Final = (
    "the answers were less likely than the posterior held possible: a trait that matters may be missing, or somebody else "
    "answered; look at the latest signals"
)


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """The latest signals under the best model, by time.

    Attributes:
        tables: [signals, cells] log-likelihoods in nats of what was said; mirrored: of the opposite.
        counts: [signals] choices that each counts as.
        prior: [cells] logarithms of how likely each was before any evidence.
    """

    signals: tuple[Signal, ...]
    tables: Numbers
    mirrored: Numbers
    counts: Numbers
    prior: Numbers

    def log_evidence(self, tables: Numbers) -> Numbers:
        """[rows] log marginal likelihoods of [rows, cells] log-likelihoods."""
        found = tables + self.prior
        most = found.max(-1, keepdims=True)
        found -= most
        return np.asarray(most[:, 0] + np.log(np.exp(found, out=found).sum(-1)))

    @classmethod
    def of(cls, posterior: Posterior) -> "_Steps":
        signals = tuple(each for each in posterior.signals if each.kind != "tie")[-_LATEST:]
        said = [comparisons(each, posterior.traits) for each in signals]
        turned = [[Comparison(c.second, c.first, c.share, counts=c.counts) for c in each] for each in said]
        counts = np.array([sum(c.counts for c in each) for each in said])
        weights = posterior.how.weights / (len(posterior.how.floors) * posterior.particles)
        prior = np.repeat(np.log(weights), len(posterior.how.floors) * posterior.particles)
        return cls(signals, _tables(posterior, said), _tables(posterior, turned), counts, prior)


def _tables(posterior: Posterior, said: Sequence[Sequence[Comparison]]) -> Numbers:
    wants = posterior.wants[posterior.best]
    rows = [np.sum([log_likelihood(c, wants, posterior.how) for c in each], axis=0).ravel() for each in said]
    return UNIT * np.array(rows)


def _changed(steps: _Steps) -> tuple[int, float]:
    """At which signal wants changed if they did once, and the log Bayes factor that they did, over all moments."""
    sums = np.cumsum(steps.tables, axis=0)
    splits = np.arange(_LEAST, len(sums) - _LEAST + 1)
    apart = steps.log_evidence(sums[splits - 1]) + steps.log_evidence(sums[-1] - sums[splits - 1])
    most = apart.max()
    factor = most + np.log(np.exp(apart - most).mean()) - steps.log_evidence(sums[-1:])[0]
    return int(splits[apart.argmax()]), float(factor)
