"""What a profile asks for now: the weights that the person chose and, beside them, those that follow from its evidence.

They are settled when evidence changes, and before they are used where something else changed that they rest on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from soupmix.audit import Record
from soupmix.errors import Overloaded, PolicyRefusal, PreferenceError
from soupmix.openai.answers import SoupAnswer
from soupmix.openai.errors import HttpError
from soupmix.preference.learner import Influence, Learner
from soupmix.serve.evidence import UNSETTLED, Learning
from soupmix.serve.learners import Counted, Inferred, LearnerSetting, together
from soupmix.serve.policies import InForce
from soupmix.serve.profiles import Draft, Profile
from soupmix.serve.state import ServerState
from soupmix.weights import Weights

__all__ = ["NOTHING", "Settled", "Whose", "learned", "settled", "with_learned"]

NOTHING: Final = ("not-inferred", "nothing-to-choose", "no-surface", "no-measures")
"""Reasons for which nothing is inferred, and a profile is what the person chose."""

_LATER = (
    "evidence has changed, and too many weights are inferred at once: those of this profile follow when it is used next"
)

_LEAST = 0.005  # of a want, below which nobody is told that it moved


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose profile, under which policy.

    Attributes:
        tenant, profile: as stored. held: the policy in force.
        attributes: what is so of the profile and the key. person: as the audit log is told.
    """

    tenant: str
    profile: Profile
    held: InForce
    attributes: Mapping[str, str]
    person: str


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """What is known of a profile, and what follows.

    Attributes:
        learning: its settings, and the weights that were inferred. counted: what became of every piece of evidence.
        influences: what each of the latest does to wants.
        setting, learner: None where nothing may be inferred, or nothing can be; refused: then why, as a sentence.
    """

    learning: Learning
    counted: list[Counted]
    influences: Sequence[Influence] = ()
    setting: LearnerSetting | None = None
    learner: Learner | None = None
    refused: str | None = None


def learned(state: ServerState, whose: Whose, topic: str | None = None) -> tuple[Draft, Learning]:
    """What a profile asks for when a topic is spoken about, and what of it was inferred."""
    draft, name = whose.profile.draft, whose.profile.id
    learning = state.evidence.learning(whose.tenant, name)
    if not learning.version:
        return draft, learning
    try:
        setting = state.learners.setting(whose.held.policy, draft, whose.attributes, learning.most)
        if setting.basis != learning.basis:
            learning = _anew(state, whose, setting, learning)
    except (HttpError, PolicyRefusal, PreferenceError) as error:
        if error.reason not in NOTHING:
            raise
        return draft, replace(learning, weights=Weights(), because=(), topics={})
    learning = learning.about(topic)
    return together(draft, learning.weights), learning


def _anew(state: ServerState, whose: Whose, setting: LearnerSetting, learning: Learning) -> Learning:
    if learning.frozen and learning.basis != UNSETTLED:  # nothing is learned, but the policy and what was chosen hold
        topics = {name: replace(each, weights=_beside(setting, each.weights)) for name, each in learning.topics.items()}
        return replace(learning, weights=_beside(setting, learning.weights), topics=topics)
    return settle(state, whose, setting, learning, anew=True).learning


def _beside(setting: LearnerSetting, weights: Weights) -> Weights:
    return setting.beside(weights) if weights else weights


def settled(state: ServerState, whose: Whose, *, anew: bool = False) -> Settled:
    """What is known of a profile now, whether or not anything may be inferred of it.

    Args:
        anew: whether its evidence has just changed: weights follow it although they are frozen, as when some of it was forgotten,
            and where too many wait for theirs it is not refused any more, and weights follow when they are used.
    """
    learning = state.evidence.learning(whose.tenant, whose.profile.id)
    try:
        setting = state.learners.setting(whose.held.policy, whose.profile.draft, whose.attributes, learning.most)
        return settle(state, whose, setting, learning, anew=anew)
    except (HttpError, PolicyRefusal, PreferenceError) as error:
        if error.reason not in NOTHING:
            raise
        return _unsettled(state, whose, learning, str(error))
    except Overloaded:
        if not anew:
            raise
        return _unsettled(state, whose, learning, _LATER)


def _unsettled(state: ServerState, whose: Whose, learning: Learning, why: str) -> Settled:
    entries = state.evidence.entries(whose.tenant, whose.profile.id)
    nothing = replace(learning, weights=Weights(), because=(), topics={})
    return Settled(nothing, [Counted(each, why=why, unused=each.traits.names) for each in entries], refused=why)


def with_learned(answer: SoupAnswer, learning: Learning) -> SoupAnswer:
    """What is said of a grant, with what of it was inferred and which evidence moved what."""
    if not learning.weights:
        return answer
    inferred = learning.weights.decimals()
    said = ", ".join(f"{name} {text}" for name, text in inferred.items())
    about = "" if learning.topic is None else f" for {learning.topic}"
    lines = [f"inferred{about}, not chosen: {said}", *map(_moved, learning.because)]
    if learning.topic is not None:
        share = learning.topics[learning.topic].others
        lines.append(
            f"  evidence of everything else counts for {share:g} of what it says when {learning.topic} is spoken about"
        )
    explanation = "\n".join([answer.explanation, *lines])
    return answer.model_copy(update={"inferred": inferred, "explanation": explanation, "topic": learning.topic})


def _moved(piece: Mapping[str, Any]) -> str:
    ways = sorted(piece["moved"].items(), key=lambda pair: -abs(pair[1]))
    told = ", ".join(f"{trait} {way:+.2f}" for trait, way in ways if abs(way) >= _LEAST)
    return f"  {piece['kind']} {piece['id']} moved {told or 'next to nothing'}"


def settle(
    state: ServerState, whose: Whose, setting: LearnerSetting, learning: Learning, *, anew: bool = False
) -> Settled:
    """Infer the weights of a profile from all of its evidence, record a change, and keep them; frozen ones stay.

    Raises:
        Overloaded: too many wait for that (reason "queue-full"). Others as `Learners.learner`.
    """
    entries = state.evidence.entries(whose.tenant, whose.profile.id)
    with state.learners.turn(whose.tenant, whose.profile.id):
        learner, counted = state.learners.learner(setting, entries)
        influences = learner.explain()
        found = state.learners.inferred(setting, learner, influences)
    if learning.frozen and not anew:
        return Settled(_anew(state, whose, setting, learning), counted, influences, setting, learner)
    found = _recorded(state, whose, found, learning)
    made = replace(learning, weights=found.weights, because=found.because, topics=found.topics, basis=setting.basis)
    state.evidence.settle(
        whose.tenant,
        whose.profile.id,
        learning.version,
        weights=dict(made.weights),
        because=[dict(each) for each in made.because],
        topics={name: each.to_dict() for name, each in made.topics.items()},
        basis=made.basis,
    )
    return Settled(made, counted, influences, setting, learner)


def _recorded(state: ServerState, whose: Whose, found: Inferred, before: Learning) -> Inferred:
    """On record before anything is answered with them; nothing is inferred that a rule refuses altogether."""
    general = found
    if found.weights != before.weights and not _allowed(state, whose, found.weights):
        general = replace(found, weights=Weights(), because=())
    topics = {
        name: each
        for name, each in found.topics.items()
        if each.weights == before.about(name).weights or _allowed(state, whose, each.weights)
    }
    return replace(general, topics=topics)


def _allowed(state: ServerState, whose: Whose, weights: Weights) -> bool:
    """Whether the policy grants inferred weights beside what was chosen; that is on record then."""
    draft = together(whose.profile.draft, weights)
    try:
        grant = whose.held.policy._grant(draft.weights, whose.attributes, draft.sources or "stored")
    except PolicyRefusal as error:
        if error.reason != "refused-by-rule":
            raise
        return False
    if state.audit is not None:
        state.audit.append(Record.of_change(grant, person=whose.person, is_signed=whose.held.signed))
    return True
