"""`POST /v1/soups/{id}/feedback`: what a person chooses and says of answers, as evidence of what they want; and its correction.

Texts are measured, and not kept.
"""

import secrets
import time
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import Field
from starlette.requests import Request

from soupmix.errors import PreferenceError
from soupmix.openai.errors import HttpError
from soupmix.openai.sent import Sent
from soupmix.openai.wire import at_most
from soupmix.preference import Signal
from soupmix.preference.learner import Learner
from soupmix.preference.signal import Kind
from soupmix.serve.auth import REQUEST, authenticate, state_of
from soupmix.serve.evidence import Entry, Provenance
from soupmix.serve.grants import whose
from soupmix.serve.keys import Caller
from soupmix.serve.learning import (
    EntryAnswer,
    EntryId,
    EvidenceAnswer,
    LearnedAnswer,
    entry_answers,
    evidence_answer,
    learned_answer,
)
from soupmix.serve.responses import LEARNING
from soupmix.serve.settling import Whose, settled
from soupmix.serve.soups import IfMatch, ProfileId, version_of
from soupmix.serve.state import ServerState
from soupmix.serve.strict import StrictRoute

__all__ = ["Text", "Word", "check_thawed", "router", "source_of"]

router = APIRouter(prefix="/v1/soups", route_class=StrictRoute)

_Caller = Annotated[Caller, Depends(authenticate)]
_MOST_TEXT: Final = 20_000

Word = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Text = Annotated[str, Field(min_length=1, max_length=_MOST_TEXT)]
Toward = Annotated[dict[Word, Annotated[float, Field(ge=-1, le=1)]], Field(max_length=16), at_most(16)]
Value = Annotated[float, Field(ge=0, le=1)]


class FeedbackAsk(Sent):
    """What somebody did or said about answers: those of a question that was asked here, or others, as texts.

    Texts are measured and not kept. `value` is the answer that was chosen, 0 or 1; thumbs 0 or 1; a rating from 0 to 1.
    An edit has first what an answer was, then what it became. `toward` says which way a cue goes.
    """

    kind: Kind
    id: Word | None = None
    question: Word | None = None
    prompt: Annotated[str, Field(max_length=_MOST_TEXT)] = ""
    answers: Annotated[list[Text], Field(max_length=2, fail_fast=True)] = Field(default=[])
    value: Value | None = None
    toward: Toward = Field(default={})
    topic: Word | None = None


class CorrectAsk(Sent):
    """What a piece of evidence should have said; what it was about stays."""

    value: Value | None = None
    toward: Toward = Field(default={})


class FeedbackAnswer(LearnedAnswer):
    """What was taken, and what a profile has learned now."""

    object: Literal["feedback"] = "feedback"
    entry: EntryAnswer


@router.post("/{id}/feedback", status_code=201, responses=LEARNING)
def feedback(
    ask: FeedbackAsk, request: Request, response: Response, caller: _Caller, id_: ProfileId, if_match: IfMatch = None
) -> FeedbackAnswer:
    """Take something as evidence of what a person wants; the next answer is that of the new soup."""
    state = state_of(request)
    own = whose(state, caller, state.profiles.get(caller.tenant, id_))
    entry = _measured(state, own, caller, ask, request.scope[REQUEST])
    with state.evidence.change(caller.tenant, id_, version_of(if_match)) as change:
        check_thawed(change.learning.frozen)
        change.add(entry, state.settings.evidence)
    found = settled(state, own, anew=True)
    response.headers["ETag"] = f'"{found.learning.version}"'
    (taken,) = [each for each in entry_answers(found) if each.id == entry.signal.id]
    return FeedbackAnswer(**learned_answer(state, own, caller, found), entry=taken)


@router.put("/{id}/evidence/{entry}", responses=LEARNING)
def correct(
    ask: CorrectAsk,
    request: Request,
    response: Response,
    caller: _Caller,
    id_: ProfileId,
    name: EntryId,
    if_match: IfMatch = None,
) -> EvidenceAnswer:
    """Correct a piece of evidence: which answer was chosen, how good it was, which way a cue went."""
    state = state_of(request)
    own = whose(state, caller, state.profiles.get(caller.tenant, id_))
    with state.evidence.change(caller.tenant, id_, version_of(if_match)) as change:
        change.replace(_corrected(state.evidence.entry(caller.tenant, id_, name), ask))
    return evidence_answer(state, own, caller, settled(state, own, anew=True), response)


def check_thawed(frozen: bool) -> None:
    """Raise `HttpError` 409 (reason "frozen") if nothing is to be learned."""
    if frozen:
        raise HttpError(
            "what this profile knows is frozen; go on with PUT /v1/soups/{id}/learning and frozen = false",
            status=409,
            reason="frozen",
        )


def source_of(caller: Caller) -> str:
    """Who sends evidence, as it is kept: by the key, without keys whoever sits at this machine."""
    return f"key-{caller.key}" if caller.key else "here"


def _measured(state: ServerState, own: Whose, caller: Caller, ask: FeedbackAsk, request: str) -> Entry:
    """What was sent, as evidence.

    Raises:
        PolicyRefusal: nothing may be inferred (reason "not-inferred"). HttpError: no such question, or one that was answered.
        PreferenceError: it makes no sense, or cannot be measured.
    """
    learning = state.evidence.learning(own.tenant, own.profile.id)
    check_thawed(learning.frozen)
    setting = state.learners.setting(own.held.policy, own.profile.draft, own.attributes, learning.most)
    name = ask.question or ask.id or f"e-{secrets.token_hex(12)}"
    if ask.question is not None:
        asked = state.evidence.question(own.tenant, own.profile.id, ask.question)
        if ask.answers or ask.prompt or ask.id or ask.topic:
            raise PreferenceError(
                "a question says its answers, id and topic itself; leave them out", reason="bad-signal"
            )
        traits = state.learners.still_inferred(setting, asked.traits)
        answers: list[Mapping[str, float]] = [{name: each[name] for name in traits.names} for each in asked.answers]
        topic = asked.topic
    else:
        with state.learners.turn(own.tenant, own.profile.id):
            learner, _ = state.learners.learner(setting, ())
            traits, answers, topic = learner.traits, _values(learner, ask), ask.topic
    now = time.time()
    said = {
        "id": name,
        "kind": ask.kind,
        "source": source_of(caller),
        "traits": traits.digest,
        "answers": [dict(each) for each in answers],
        "value": ask.value,
        "toward": dict(ask.toward),
        "at": round(now, 3),
        "topic": topic,
    }
    signal = Signal.read({key: value for key, value in said.items() if value is not None})
    traits.direction(signal.toward)
    adapters, base = state.learners.digests
    return Entry(signal, traits, Provenance(adapters, base, request, int(1000 * now)))


def _values(learner: Learner, ask: FeedbackAsk) -> list[Mapping[str, float]]:
    found = learner.measured(ask.prompt, ask.answers)
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        raise PreferenceError(
            "an answer without words has no traits, so that nothing can be learned of it; send its text",
            reason="not-measured",
        )
    return known


def _corrected(entry: Entry, ask: CorrectAsk) -> Entry:
    said = entry.signal.to_dict() | {"toward": dict(ask.toward)}
    signal = Signal.read(said | ({} if ask.value is None else {"value": ask.value}))
    entry.traits.direction(signal.toward)
    return Entry(signal, entry.traits, entry.provenance)
