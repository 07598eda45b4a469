"""`/v1/measures` and `/v1/soups/ask`: what can be asked for, what adapters do alone, and weights that are expected to reach
targets. Nothing is generated, stored or recorded; the weights are granted as any others when they are used.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel
from starlette.requests import Request

from soupmix.errors import EvaluationError, Overloaded, PolicyRefusal
from soupmix.openai.answers import PolicyName
from soupmix.openai.errors import HttpError
from soupmix.openai.wire import TargetsAsk
from soupmix.serve.auth import authenticate, state_of
from soupmix.serve.disclosure import Disclosure
from soupmix.serve.grants import attributes_of, draft_of
from soupmix.serve.keys import Caller
from soupmix.serve.responses import ANSWERING, GUARDED
from soupmix.serve.state import ServerState
from soupmix.serve.strict import StrictRoute
from soupmix.surface import Proposal, Surface, ask
from soupmix.weights import Weights

__all__ = ["router"]

router = APIRouter(route_class=StrictRoute)

_Caller = Annotated[Caller, Depends(authenticate)]
_PATIENCE = 10.0  # seconds that a search waits for others


class MeasureAnswer(BaseModel):
    """A measure that can be asked for; `base` is what is expected of the bare base."""

    name: str
    title: str
    unit: str
    dimension: str
    base: float


class EffectAnswer(BaseModel):
    """What an adapter does alone to a measure of its dimension, from weight 0 (`base`) to 1 (`full`, or the most measured).

    `weights` are those with 0, 1, ... 100 % of that: what "0%" to "100%" mean as weights of a request.
    """

    measure: str
    base: float
    full: float
    weights: list[float]


class MeasuresAnswer(BaseModel):
    """`GET /v1/measures`; nothing if nobody has measured what these adapters do.

    `effects` is of every adapter that can be asked for by a share of its effect; of others nobody can tell it from nothing.
    """

    object: Literal["list"] = "list"
    data: list[MeasureAnswer]
    effects: dict[str, EffectAnswer]


class ExpectationAnswer(BaseModel):
    """The mean over prompts, its 95 % interval, and between what nine of ten answers lie."""

    value: float
    low: float
    high: float
    answers_low: float
    answers_high: float


class TargetAnswer(BaseModel):
    """A target, and what is expected; `least` and `most` is what the policy lets it be if nothing else is asked for."""

    asked: float
    unit: str
    title: str
    expected: ExpectationAnswer
    reached: bool
    least: float
    most: float


class ProposalAnswer(BaseModel):
    """`POST /v1/soups/ask`: weights inside the policy, and what cannot be reached, one sentence each."""

    weights: dict[str, str]
    targets: dict[str, TargetAnswer]
    notes: list[str]
    surface: str
    policy: PolicyName


@router.get("/v1/measures", responses=GUARDED)
def measures(request: Request, caller: _Caller) -> MeasuresAnswer:
    """What `/v1/soups/ask` can be asked for."""
    surface = state_of(request).surface
    if surface is None:
        return MeasuresAnswer(data=[], effects={})
    base, known = surface.expect(Weights()), surface.document.measures
    return MeasuresAnswer(
        data=[
            MeasureAnswer(name=n, title=each.title, unit=each.unit, dimension=each.dimension, base=base[n].value)
            for n, each in ((name, known[name]) for name in surface.measures)
        ],
        effects=dict(_effects(surface)),
    )


def _effects(surface: Surface) -> Iterator[tuple[str, EffectAnswer]]:
    for name in surface.dimensions:
        try:
            yield name, EffectAnswer.model_validate(asdict(surface.effect(name)))
        except EvaluationError as error:
            if error.reason != "no-effect":
                raise


@router.post("/v1/soups/ask", responses=ANSWERING)
def propose(asked: TargetsAsk, request: Request, caller: _Caller) -> ProposalAnswer:
    """Weights inside the policy in force that are expected to reach these targets."""
    state = state_of(request)
    held = state.policies.current()
    found = _found(state, asked, caller).to_dict()
    policy = PolicyName(digest=held.policy.digest, open=held.policy.is_open, signed=held.signed)
    return ProposalAnswer.model_validate({**found, "policy": policy})


def _found(state: ServerState, asked: TargetsAsk, caller: Caller) -> Proposal:
    """One search at a time: it keeps a processor busy for seconds."""
    if state.surface is None:
        raise HttpError(
            "nobody has measured these adapters: their store holds no surface.json; `soupmix evaluate OUT --surface` makes one",
            status=404,
            reason="no-surface",
        )
    draft, policy = draft_of(state, asked), state.policies.current().policy
    with _turn(state):
        try:
            return ask(
                state.surface,
                policy,
                asked.targets,
                beside=draft.weights,
                attributes=attributes_of(draft, caller),
                sources=draft.sources,
            )
        except EvaluationError as error:  # what is asked for besides, or what the policy requires, was not measured
            raise HttpError(str(error), status=400, reason=error.reason, param="weights") from None
        except PolicyRefusal as error:
            raise Disclosure(policy, caller.attributes).refusal(error) from None


@contextmanager
def _turn(state: ServerState) -> Iterator[None]:
    """One search at a time, and few that wait. Raises `Overloaded` (reason "queue-full")."""
    full = Overloaded("too many ask for weights at once; ask again", reason="queue-full")
    if not state.asking.acquire(blocking=False):
        raise full
    try:
        if not state.searching.acquire(timeout=_PATIENCE):
            raise full
        try:
            yield
        finally:
            state.searching.release()
    finally:
        state.asking.release()
