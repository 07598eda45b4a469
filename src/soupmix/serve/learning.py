"""`/v1/soups/{id}/evidence` and `/learning`: what is known of what a person wants, and what they may do about that: see it,
freeze, bound, export and forget it.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel
from starlette.requests import Request

from soupmix.files import canonical_json
from soupmix.openai.answers import BindingAnswer, PolicyName
from soupmix.openai.sent import Sent
from soupmix.openai.wire import Weights as WeightsAsk
from soupmix.preference.learner import Learner
from soupmix.preference.question import ENOUGH
from soupmix.preference.signal import Kind
from soupmix.serve.auth import authenticate, state_of
from soupmix.serve.disclosure import Disclosure
from soupmix.serve.grants import whose
from soupmix.serve.keys import Caller
from soupmix.serve.learners import Counted
from soupmix.serve.responses import CHANGED, LEARNING, PROFILE
from soupmix.serve.settling import Settled, Whose, settled
from soupmix.serve.soups import IfMatch, ProfileId, version_of
from soupmix.serve.state import ServerState
from soupmix.serve.strict import StrictRoute
from soupmix.weights import Weights

__all__ = [
    "EntryAnswer",
    "EntryId",
    "EvidenceAnswer",
    "LearnedAnswer",
    "entry_answers",
    "evidence_answer",
    "learned_answer",
    "router",
]

router = APIRouter(prefix="/v1/soups", route_class=StrictRoute)

_Caller = Annotated[Caller, Depends(authenticate)]
EntryId = Annotated[str, Path(alias="entry", min_length=1, max_length=63, description="The id of a piece of evidence")]
_MOST: Final = 1000


class LearningAsk(Sent):
    """Settings of what a profile learns; what is not given stays.

    `frozen`: nothing is learned, and weights stay. `listens`: cues in conversations are evidence. `most`: of single adapters the
    most that an inferred weight may be.
    """

    frozen: bool | None = None
    listens: bool | None = None
    most: WeightsAsk | None = None


class WantAnswer(BaseModel):
    """What is believed of one trait: mean and 90 % interval, in standard units or shares of what somebody wants."""

    trait: str
    measure: str
    mean: float
    low: float
    high: float


class AlarmAnswer(BaseModel):
    """What should be known before what is believed is believed."""

    kind: str
    text: str


class TopicAnswer(BaseModel):
    """What is inferred when a topic is spoken about; `others` is what evidence of everything else counts for there."""

    inferred: dict[str, str]
    others: float


class LearnedAnswer(BaseModel):
    """What a profile has learned. `chosen` is what is granted of the weights that the person chose, which bind; `inferred` the
    others, `topics` those of topics that depart from them. `refused` is why nothing is inferred, if nothing may be or can be;
    `withheld` the rules that keep single adapters from it.
    """

    profile: str
    version: int
    frozen: bool
    listens: bool
    most: dict[str, str]
    evidence: int
    counted: int
    model: Literal["linear", "ideal"] | None
    wants: list[WantAnswer]
    chosen: dict[str, str]
    inferred: dict[str, str]
    topics: dict[str, TopicAnswer]
    regret: float | None
    enough: bool
    alarms: list[AlarmAnswer]
    refused: str | None
    withheld: list[BindingAnswer]
    policy: PolicyName


class EntryAnswer(BaseModel):
    """A piece of evidence. `answers` are the measured traits; `counts` is whether it moves anything here, and if not, `why`.

    `unused` are those of its traits that move nothing here: the policy lets nothing be concluded from them, or nothing steers
    them.
    `adapters` and `base` are digests of what the server held, `request` the id of the request that brought it. `moved` is how far
    wants would be from where they are without it, of the latest fifty.
    """

    id: str
    kind: Kind
    source: str
    at: float
    answers: list[dict[str, float]]
    value: float | None
    toward: dict[str, float]
    topic: str | None
    adapters: str
    base: str
    request: str
    counts: bool
    translated: bool
    why: str | None
    unused: list[str]
    moved: dict[str, float]


class EvidenceAnswer(LearnedAnswer):
    """What a profile has learned, and of what: the latest first; `has_more` says that there is older evidence."""

    object: Literal["evidence"] = "evidence"
    data: list[EntryAnswer]
    has_more: bool


@router.get("/{id}/evidence", responses=PROFILE | {429: LEARNING[429]})
def read(
    request: Request,
    response: Response,
    caller: _Caller,
    id_: ProfileId,
    limit: Annotated[int, Query(ge=1, le=_MOST)] = 100,
) -> EvidenceAnswer:
    """Everything that is known of what the person of a profile wants, and what follows from it."""
    state = state_of(request)
    own = whose(state, caller, state.profiles.get(caller.tenant, id_))
    return evidence_answer(state, own, caller, settled(state, own), response, limit)


@router.delete("/{id}/evidence", responses=CHANGED | {429: LEARNING[429]})
def forget_all(
    request: Request, response: Response, caller: _Caller, id_: ProfileId, if_match: IfMatch = None
) -> EvidenceAnswer:
    """Forget all evidence, as if there had never been any."""
    return _forgotten(request, response, caller, id_, None, if_match)


@router.delete("/{id}/evidence/{entry}", responses=CHANGED | {429: LEARNING[429]})
def forget(
    request: Request, response: Response, caller: _Caller, id_: ProfileId, name: EntryId, if_match: IfMatch = None
) -> EvidenceAnswer:
    """Forget a piece of evidence, as if it had never been known."""
    return _forgotten(request, response, caller, id_, name, if_match)


@router.put("/{id}/learning", responses=LEARNING)
def settings(
    ask: LearningAsk, request: Request, response: Response, caller: _Caller, id_: ProfileId, if_match: IfMatch = None
) -> EvidenceAnswer:
    """Freeze what is learned, or go on; listen to cues in conversations, or do not; bound what may be inferred."""
    state = state_of(request)
    own = whose(state, caller, state.profiles.get(caller.tenant, id_))
    values: dict[str, Any] = {
        name: value for name, value in (("frozen", ask.frozen), ("listens", ask.listens)) if value is not None
    }
    if ask.most is not None:
        own.held.policy.check(Weights(ask.most))
        values["most"] = dict(Weights(ask.most))
    with state.evidence.change(caller.tenant, id_, version_of(if_match)) as change:
        if values:
            change.set(**values)
    return evidence_answer(state, own, caller, settled(state, own), response)


@router.get(
    "/{id}/evidence/export", response_class=Response, responses={**LEARNING, 200: {"content": {"application/json": {}}}}
)
def export(request: Request, caller: _Caller, id_: ProfileId) -> Response:
    """Everything that is known, whether or not it counts here; `wants` is the file that `soupmix learn` takes, if any does."""
    state = state_of(request)
    own = whose(state, caller, state.profiles.get(caller.tenant, id_))
    found = settled(state, own)
    content = {
        "schema_version": 1,
        "profile": id_,
        "learning": {
            "frozen": found.learning.frozen,
            "listens": found.learning.listens,
            "most": found.learning.most.decimals(),
            "inferred": found.learning.weights.decimals(),
            "topics": {name: each.weights.decimals() for name, each in found.learning.topics.items()},
        },
        "evidence": [each.entry.to_dict() for each in found.counted],
        "wants": None if found.learner is None else json.loads(found.learner.export()),
    }
    headers = {"Content-Disposition": 'attachment; filename="wants.json"'}
    return Response(canonical_json(content), media_type="application/json", headers=headers)


def _forgotten(
    request: Request, response: Response, caller: Caller, profile: str, name: str | None, if_match: str | None
) -> EvidenceAnswer:
    state = state_of(request)
    own = whose(state, caller, state.profiles.get(caller.tenant, profile))
    with state.evidence.change(caller.tenant, profile, version_of(if_match)) as change:
        change.forget(name)
    return evidence_answer(state, own, caller, settled(state, own, anew=True), response)


def evidence_answer(
    state: ServerState, own: Whose, caller: Caller, found: Settled, response: Response, limit: int = 100
) -> EvidenceAnswer:
    """What is known, with the latest evidence."""
    response.headers["ETag"] = f'"{found.learning.version}"'
    entries = entry_answers(found)[::-1]
    return EvidenceAnswer(
        **learned_answer(state, own, caller, found), data=entries[:limit], has_more=len(entries) > limit
    )


def learned_answer(state: ServerState, own: Whose, caller: Caller, found: Settled) -> dict[str, Any]:
    """The fields of a `LearnedAnswer`."""
    learning, held = found.learning, own.held
    disclosure = Disclosure(held.policy, caller.attributes)
    withheld = () if found.setting is None else found.setting.inferring.withheld
    return {
        "profile": own.profile.id,
        "version": learning.version,
        "frozen": learning.frozen,
        "listens": learning.listens,
        "most": learning.most.decimals(),
        "evidence": len(found.counted),
        "counted": sum(each.why is None for each in found.counted),
        "chosen": {} if found.setting is None else found.setting.chosen.decimals(),
        "inferred": learning.weights.decimals(),
        "topics": {
            name: TopicAnswer(inferred=each.weights.decimals(), others=each.others)
            for name, each in learning.topics.items()
        },
        "refused": found.refused,
        "withheld": [BindingAnswer.of(each) for each in disclosure.withheld(withheld)],
        "policy": PolicyName(digest=held.policy.digest, open=held.policy.is_open, signed=held.signed),
        **_believed(found.learner),
    }


def _believed(learner: Learner | None) -> dict[str, Any]:
    if learner is None:
        return {"model": None, "wants": [], "regret": None, "enough": True, "alarms": []}
    posterior, regret = learner.posterior(), learner.regret()
    rows = zip(learner.traits.axes, posterior.mean(), posterior.intervals(), strict=True)
    return {
        "model": posterior.best,
        "wants": [
            WantAnswer(trait=each.name, measure=each.key, mean=float(mean), low=float(low), high=float(high))
            for each, mean, (low, high) in rows
        ],
        "regret": regret,
        "enough": regret < ENOUGH,
        "alarms": [AlarmAnswer(kind=each.kind, text=each.text) for each in learner.alarms],
    }


def entry_answers(found: Settled) -> list[EntryAnswer]:
    """All evidence, in the order in which it came."""
    moved = {each.signal.id: each.moved for each in found.influences}
    return [_entry(each, moved.get(each.entry.signal.id, {})) for each in found.counted]


def _entry(counted: Counted, moved: Mapping[str, float]) -> EntryAnswer:
    signal, of = counted.entry.signal, counted.entry.provenance
    return EntryAnswer(
        id=signal.id,
        kind=signal.kind,
        source=signal.source,
        at=signal.at,
        answers=[dict(each) for each in signal.answers],
        value=signal.value,
        toward=dict(signal.toward),
        topic=signal.topic,
        adapters=of.adapters,
        base=of.base,
        request=of.request,
        counts=counted.why is None,
        translated=counted.translated,
        why=counted.why,
        unused=list(counted.unused),
        moved=dict(moved),
    )
