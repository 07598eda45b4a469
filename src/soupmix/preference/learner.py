"""A learner: all that goes on about one person, from texts to evidence, from evidence to weights, and what to ask next.

It computes no text and keeps no file. Whoever answers, a terminal, a server or a simulation, does this:

    learner = Learner(reach, measure)                      # a reach per policy and audience, shared by everybody
    learner.learn(*signals_that_are_kept)                  # what is known already

    # an answer
    weights = learner.weights(topic)                       # inside the policy; clamp them with their sources, and answer

    # a question, if it is worth one
    if learner.regret(topic) > ENOUGH:
        soups = learner.offers(8, topic)                   # weights to answer one prompt with, as rows of one batch
        values = learner.measured(prompt, texts)           # of the texts that came of them
        question = learner.question(values, topic)         # which two to show; None: they are too much alike
        learner.learn(learner.signal("choice", values[question.first], values[question.second], value=0, ...))

    # anything else that somebody does or says: thumbs, an edit, "shorter please" (`soupmix.preference.cues`)
    learner.learn(learner.signal("cue", values[0], toward={"length": -1.0}, ...))

Signals are all there is to keep: the same reach, prior, seed and signals are the same learner, bit for bit, whatever happened in
between. Nothing here waits, blocks or has a thread; a learner belongs to one task at a time. A step takes some milliseconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from soupmix.errors import PreferenceError
from soupmix.preference.alarms import Alarm, alarms
from soupmix.preference.kept import MadeBy, exported, imported, translated
from soupmix.preference.posterior import Posterior
from soupmix.preference.prior import Prior
from soupmix.preference.question import DEFAULT_RULE, Question, RuleName, next_question
from soupmix.preference.reach import Reach
from soupmix.preference.signal import Kind, Signal
from soupmix.preference.topics import share_of_others, shrunk, topics_of
from soupmix.preference.traits import Numbers, Traits
from soupmix.weights import Weights

__all__ = ["FAR", "Influence", "Learner", "Measuring", "Values"]

Values = Mapping[str, float]
"""Of an answer the value of every trait by its name, in the unit of its measure."""

FAR: Final = 3.0
"""Units of a trait, beyond which values count as this: a text far out is odd in its measure, and not wanted ten times more."""

_MOST_EXPLAINED = 50


class Measuring(Protocol):
    """What tells the traits of texts."""

    def __call__(self, prompt: str, texts: Sequence[str]) -> Sequence[Values | None]:
        """Of every text its values; None of one that has none, such as an empty one."""


@dataclass(frozen=True, slots=True)
class Influence:
    """What one signal does to what is believed: how far wants would be from where they are without it.

    Attributes:
        signal: which. moved: by trait, in units of wants: shares of a direction, or units of an ideal point.
    """

    signal: Signal
    moved: Mapping[str, float]

    @property
    def much(self) -> float:
        """The length of the way."""
        return float(np.linalg.norm(list(self.moved.values())))

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without the measured answers."""
        said = self.signal.to_dict()
        return {**{key: said[key] for key in said.keys() - {"answers", "traits"}}, "moved": dict(self.moved)}


class Learner:
    """What is known of one person, and what follows from it. See the module for how it is used."""

    def __init__(
        self,
        reach: Reach,
        measure: Measuring,
        *,
        prior: Prior | None = None,
        rule: RuleName = DEFAULT_RULE,
        seed: int = 0,
    ) -> None:
        """Somebody of whom nothing is known.

        Args:
            reach: soups that the policy lets through for this person's weights to be inferred, and their traits.
            measure: tells the traits of `reach.traits` of texts.
            prior: flat if none is given.
            rule: by which questions are chosen.
            seed: of the particles.

        Raises:
            PreferenceError: as `Posterior`.
        """
        self.reach, self.rule, self._measure = reach, rule, measure
        self._all = Posterior(reach.traits, prior, seed=seed)
        self._believed: Posterior | None = None
        self._alarms: tuple[Alarm, ...] = ()

    # --- evidence -----------------------------------------------------------------------------------------------------

    @property
    def traits(self) -> Traits:
        """What wants are about here."""
        return self.reach.traits

    @property
    def signals(self) -> tuple[Signal, ...]:
        """All evidence that was learnt and not forgotten, by time."""
        return self._all.signals

    def measured(self, prompt: str, texts: Sequence[str]) -> list[Values | None]:
        """The traits of answers to a prompt, at most `FAR` units from the centre; None of a text that has none.

        Raises:
            PreferenceError: they were measured otherwise than wants are (as `Traits.point` raises).
        """
        found = self._measure(prompt, texts)
        return [None if each is None else self.traits.values(self._point(each)) for each in found]

    def signal(
        self,
        kind: Kind,
        *answers: Values | None,
        id: str,
        source: str,
        value: float | None = None,
        toward: Mapping[str, float] | None = None,
        at: float = 0.0,
        topic: str | None = None,
    ) -> Signal:
        """A signal about measured answers; nothing is learnt yet. For the arguments see `Signal`.

        Raises:
            PreferenceError: an answer could not be measured (reason "not-measured"), or it makes no sense ("bad-signal").
        """
        known = [dict(each) for each in answers if each is not None]
        if len(known) < len(answers):
            raise PreferenceError(
                "an answer without words has no traits, so that nothing can be learnt of it; take another one",
                reason="not-measured",
            )
        said = {"id": id, "kind": kind, "source": source, "traits": self.traits.digest, "answers": known}
        more = {"value": value, "toward": dict(toward or {}), "at": at, "topic": topic}
        return Signal.read({**said, **more})

    def learn(self, *signals: Signal, by: Traits | None = None) -> None:
        """Take signals as evidence: all of them, or none if one is refused.

        Args:
            signals: as `signal` makes them, or as they were kept.
            by: traits by which their answers were measured, if those are others: then they are translated.

        Raises:
            PreferenceError: as `Posterior.learn` and `translated` raise.
        """
        self._all.learn(*(signals if by is None else [translated(each, by, self.traits) for each in signals]))
        self._believed = None

    def forget(self, *ids: str) -> None:
        """Take signals away, as if they had never been learnt. Raises as `Posterior.forget` does."""
        self._all.forget(*ids)
        self._believed = None

    def forget_all(self) -> None:
        """Take all signals away."""
        self._all.forget_all()
        self._believed = None

    def export(self) -> bytes:
        """All evidence, with its prior and the digests of the base and of the adapters, as JSON for `imported`."""
        return exported(self._all, _made_by(self.reach))

    @classmethod
    def imported(
        cls,
        raw: bytes,
        reach: Reach,
        measure: Measuring,
        *,
        translate: bool = False,
        rule: RuleName = DEFAULT_RULE,
    ) -> "Learner":
        """The learner of what `export` wrote, or somebody else.

        Evidence of the same base and adapters is taken as it is, also if the map of what they do was fitted anew.

        Args:
            raw: the file.
            reach, measure, rule: as of `Learner`.
            translate: whether evidence of other adapters or another base may be taken, as far as the same was measured.

        Raises:
            PreferenceError: as `soupmix.preference.kept.imported`.
        """
        made = cls(reach, measure, rule=rule)
        made._all = imported(raw, reach.traits, made_by=_made_by(reach), translate=translate)
        return made

    # --- what is believed ---------------------------------------------------------------------------------------------

    @property
    def whole(self) -> Posterior:
        """The posterior of all evidence, whatever the alarms say: what is kept and carried elsewhere."""
        return self._all

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """What should be known before anything is believed; each acts already.

        "drift": evidence from before the change is set aside, and kept. "by-lot": weights stay as somebody set them.
        "surprise": `regret` says that it is worth to ask, however sure the posterior is.
        """
        self._settle()
        return self._alarms

    def posterior(self, topic: str | None = None) -> Posterior:
        """What this person wants, when they speak about a topic: shrunk towards what they want in general (`topics.shrunk`)."""
        return shrunk(self._settle(), topic)

    @property
    def topics(self) -> tuple[str, ...]:
        """What was spoken about, of which something is known; see `topics.topics_of`."""
        return topics_of(self._settle())

    def others(self, topic: str | None) -> float:
        """What evidence of everything else counts for when a topic is spoken about, from 0 to 1."""
        return share_of_others(self._settle(), topic)

    def regret(self, topic: str | None = None) -> float:
        """What is expected to be lost if no more is asked, as a share of what there is to win; 1 after a surprise.

        Below `soupmix.preference.question.ENOUGH` no question is worth its while; nor where all is answered as by lot, then it is
        0.
        """
        kinds = {each.kind for each in self.alarms}
        if "by-lot" in kinds:
            return 0.0
        return 1.0 if "surprise" in kinds else self.reach.expected_regret(self.posterior(topic))

    def _settle(self) -> Posterior:
        """The posterior of evidence since wants last changed; the alarms are found on the way."""
        if self._believed is None:
            believed, changes = self._all, []
            found = alarms(believed)
            while drift := next((each for each in found if each.kind == "drift"), None):
                changes.append(drift)
                ids = [each.id for each in believed.signals]
                believed = believed.copied()
                believed.forget(*ids[: ids.index(drift.since or ids[0])])
                found = alarms(believed)
            self._believed, self._alarms = believed, (*found, *changes)
        return self._believed

    # --- what is done about it ----------------------------------------------------------------------------------------

    def weights(self, topic: str | None = None) -> Weights:
        """The weights to answer with, inside the policy: explicit ones, and beside them what is expected to be liked best."""
        if not self.signals or any(each.kind == "by-lot" for each in self.alarms):
            return self.reach.uninferred
        return self.reach.best(self.posterior(topic))

    def offers(self, rows: int = 8, topic: str | None = None) -> tuple[Weights, ...]:
        """Soups to answer a prompt with, in one batch, of whose texts the next question is chosen; see `Reach.offers`."""
        return self.reach.offers(self.posterior(topic), rows, rule=self.rule)

    def question(self, answers: Sequence[Values | None], topic: str | None = None) -> Question | None:
        """The two of some measured answers to one prompt whose comparison tells the most.

        Args:
            answers: as `measured` gives them; those without values are not asked about.
            topic: what the prompt is about.

        Returns:
            Places of two of them; None where no two differ.
        """
        places: dict[bytes, int] = {}
        points = []
        for place, each in enumerate(answers):
            point = None if each is None else self._point(each)
            if point is not None and point.tobytes() not in places:
                places[point.tobytes()] = place
                points.append(point)
        if len(points) < 2:
            return None
        found = next_question(self.posterior(topic), np.array(points), rule=self.rule, enough=-1.0)
        if found is None:
            return None
        kept = list(places.values())
        return Question(kept[found.first], kept[found.second], found.score, found.chance, found.regret)

    def explain(self, topic: str | None = None) -> list[Influence]:
        """Which evidence moved what: of the latest fifty signals what each does to wants, the most first."""
        posterior = self.posterior(topic).copied()
        model, mean = posterior.best, posterior.mean()
        found = []
        for each in posterior.signals[-_MOST_EXPLAINED:]:
            posterior.forget(each.id)
            off = mean - posterior.mean(model)
            posterior.learn(each)
            found.append(Influence(each, dict(zip(self.traits.names, map(float, off), strict=True))))
        return sorted(found, key=lambda each: -each.much)

    def _point(self, values: Values) -> Numbers:
        return np.clip(self.traits.point(values), -FAR, FAR)


def _made_by(reach: Reach) -> MadeBy:
    document = reach.surface.document
    return MadeBy(document.base_digest, frozenset(document.adapters))
