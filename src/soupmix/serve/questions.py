"""`/v1/soups/{id}/next`: which of these two? Two answers to one prompt, of mixed soups inside the policy, of which a choice
tells the most; or that no more has to be asked.

Several soups answer as rows of one batch, and the two are chosen by the measured texts. Texts are not kept: a question is
remembered by the traits of its answers until it is answered.
"""

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest

from soupmix.audit import Record
from soupmix.backends import Request
from soupmix.errors import PreferenceError
from soupmix.openai.forms import AnswerSoFar
from soupmix.openai.requests import chat_prompted
from soupmix.openai.sent import Sent
from soupmix.openai.wire import ChatAsk, ChatMessage
from soupmix.preference.learner import Learner
from soupmix.preference.question import ENOUGH
from soupmix.serve.answering import fitted_here, requests_here, unless_gone
from soupmix.serve.auth import authenticate, state_of
from soupmix.serve.evidence import OpenQuestion
from soupmix.serve.feedback import Text, Word, check_thawed
from soupmix.serve.grants import Granted, preview, sharer, whose
from soupmix.serve.keys import Caller
from soupmix.serve.learners import together
from soupmix.serve.pending import PendingAnswers
from soupmix.serve.profiles import PREFIX
from soupmix.serve.responses import LEARNING
from soupmix.serve.settling import Whose, settled
from soupmix.serve.soups import ProfileId
from soupmix.serve.state import ServerState
from soupmix.serve.strict import StrictRoute

__all__ = ["router"]

router = APIRouter(prefix="/v1/soups", route_class=StrictRoute)

_Caller = Annotated[Caller, Depends(authenticate)]
_MOST_TOKENS: Final = 2048
_ENOUGH_SAID: Final = "what is wanted is known well enough: another answer would change next to nothing"
_ALIKE: Final = "the answers were too much alike to choose between; ask with another prompt, or for longer answers"


class NextAsk(Sent):
    """What is to be answered twice; `candidates` soups answer it, and the two that tell the most apart are shown."""

    prompt: Text
    candidates: Annotated[int, Field(ge=2, le=8)] = 4
    max_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] = 128
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**53)] | None = None
    topic: Word | None = None


class ShownAnswer(BaseModel):
    """An answer to choose: its text, its measured traits, and the weights that were granted for it."""

    text: str
    values: dict[str, float]
    granted: dict[str, str]


class NextAnswer(BaseModel):
    """A question, whose `id` feedback names; or why there is none. `waiting` are ids of questions without an answer.

    `regret` is what is expected to be lost if no more is asked, as a share of what there is to win.
    """

    object: Literal["question"] = "question"
    id: str | None
    answers: list[ShownAnswer]
    regret: float
    enough: bool
    why: str | None
    waiting: list[str]


@dataclass(frozen=True, slots=True, eq=False)
class _Offer:
    """Soups that answer a prompt, all of them under grants of their own."""

    own: Whose
    learner: Learner
    regret: float
    grants: list[Granted]
    asked: list[Request]


@router.get("/{id}/next", responses=LEARNING)
def worth(http: HttpRequest, caller: _Caller, id_: ProfileId) -> NextAnswer:
    """Whether it is worth asking anything. Nothing is generated."""
    state = state_of(http)
    own = whose(state, caller, state.profiles.get(caller.tenant, id_))
    _, regret = _learner(state, own)
    return _without(state, own, regret, _ENOUGH_SAID if regret < ENOUGH else None)


@router.post("/{id}/next", responses=LEARNING)
async def next_question(ask: NextAsk, http: HttpRequest, caller: _Caller, id_: ProfileId) -> NextAnswer:
    """Two answers to choose between, or that no more has to be asked."""
    state = state_of(http)
    state.backend.check_room()
    with ExitStack() as stack:
        stack.enter_context(state.shares.held(caller.tenant, ask.candidates))
        offer = await run_in_threadpool(_offer, state, caller, id_, ask)
        if not offer.asked:
            return await run_in_threadpool(_without, state, offer.own, offer.regret, _ENOUGH_SAID)
        answers = PendingAnswers(state.backend, state.metrics, offer.asked, state.settings.deltas)
        stack.callback(answers.cancel)
        await run_in_threadpool(answers.submit)
        made = await unless_gone(http, answers)
    return await run_in_threadpool(_question, state, offer, ask, made)


def _learner(state: ServerState, own: Whose, topic: str | None = None) -> tuple[Learner, float]:
    """Raises as `Learners.setting`, and `HttpError` 409 if nothing is to be learned."""
    learning = state.evidence.learning(own.tenant, own.profile.id)
    check_thawed(learning.frozen)
    state.learners.setting(own.held.policy, own.profile.draft, own.attributes, learning.most)
    found = settled(state, own)
    if found.learner is None:
        raise PreferenceError(f"there is nothing to ask about: {found.refused}", reason="nothing-to-choose")
    return found.learner, found.learner.regret(topic)


def _offer(state: ServerState, caller: Caller, profile: str, ask: NextAsk) -> _Offer:
    own = whose(state, caller, state.profiles.get(caller.tenant, profile))
    learner, regret = _learner(state, own, ask.topic)
    if regret < ENOUGH:
        return _Offer(own, learner, regret, [], [])
    with state.learners.turn(own.tenant, profile):
        soups = learner.offers(ask.candidates, ask.topic)
    chat = ChatAsk(
        model=f"{PREFIX}{profile}",
        messages=[ChatMessage(role="user", content=ask.prompt)],
        max_tokens=ask.max_tokens,
        temperature=ask.temperature,
        seed=ask.seed,
    )
    prompted = chat_prompted(state.backend, chat)
    fitted = fitted_here(state, chat, prompted)
    seed = secrets.randbelow(2**53) if ask.seed is None else ask.seed
    grants, asked = [], []
    for number, soup in enumerate(soups):
        draft = replace(own.profile.draft, attributes=own.attributes)
        granted = preview(state, caller, together(draft, soup), profile, own.held)
        _record(state, own, granted)
        grants.append(granted)
        person = sharer(caller, f"{PREFIX}{profile}")
        asked += requests_here(state, chat, fitted, prompted, granted, person=person, seed=seed + number)
    return _Offer(own, learner, regret, grants, asked)


def _record(state: ServerState, own: Whose, granted: Granted) -> None:
    state.metrics.grants.labels("clamped" if granted.grant.clamped else "full").inc()
    if state.audit is not None:
        state.audit.append(
            Record.of_grant(
                granted.grant,
                person=own.person,
                is_signed=own.held.signed,
                merge=granted.answer.merge,
                mode=granted.mode,
            )
        )


def _question(state: ServerState, offer: _Offer, ask: NextAsk, made: Sequence[AnswerSoFar]) -> NextAnswer:
    texts = [each.text.strip() for each in made]
    with state.learners.turn(offer.own.tenant, offer.own.profile.id):
        values = offer.learner.measured(ask.prompt, texts)
        found = offer.learner.question(values, ask.topic)
    if found is None:
        return _without(state, offer.own, offer.regret, _ALIKE)
    name = f"q-{secrets.token_hex(12)}"
    pair = [found.first, found.second]
    if secrets.randbits(1):  # whoever always takes the left one says nothing
        pair.reverse()
    shown = [
        ShownAnswer(text=texts[place], values=dict(values[place] or {}), granted=offer.grants[place].answer.granted)
        for place in pair
    ]
    question = OpenQuestion(name, tuple(each.values for each in shown), offer.learner.traits, ask.topic)
    state.evidence.ask(offer.own.tenant, offer.own.profile.id, question)
    told = _without(state, offer.own, offer.regret, None)
    return told.model_copy(update={"id": name, "answers": shown})


def _without(state: ServerState, own: Whose, regret: float, why: str | None) -> NextAnswer:
    waiting = state.evidence.waiting(own.tenant, own.profile.id)
    return NextAnswer(id=None, answers=[], regret=regret, enough=regret < ENOUGH, why=why, waiting=waiting)
