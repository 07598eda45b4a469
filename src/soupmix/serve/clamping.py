"""`/v1/clamp` and `/v1/ranges`: what would be granted, without asking for an answer."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel
from starlette.requests import Request

from soupmix.errors import PolicyRefusal
from soupmix.openai.answers import SoupAnswer
from soupmix.openai.errors import status_of
from soupmix.openai.wire import RangesAsk, SoupAsk
from soupmix.policy import Policy
from soupmix.serve.auth import authenticate, house_of
from soupmix.serve.documented import PROFILE, VALIDATED
from soupmix.serve.granting import attributes_of, draft_of, look
from soupmix.serve.profiles import Draft
from soupmix.serve.strict import StrictRoute
from soupmix.serve.tenants import Caller
from soupmix.weights import Weights

__all__ = ["ClampAnswer", "RangesAnswer", "router"]

router = APIRouter(route_class=StrictRoute)
_Caller = Annotated[Caller, Depends(authenticate)]


class ClampAnswer(SoupAnswer):
    """`POST /v1/clamp`; `distance` is how far what was granted is from what was asked for, see `Grant`."""

    distance: str
    metric: str


class RangesAnswer(BaseModel):
    """`POST /v1/ranges`: the most of every adapter, under these attributes, if it alone is asked for."""

    attributes: dict[str, str]
    most: dict[str, str]


@router.post("/v1/clamp", responses={**VALIDATED, 403: PROFILE[403]})
def clamp(ask: SoupAsk, request: Request, caller: _Caller) -> ClampAnswer:
    """What the policy in force grants of these weights now, and why. Nothing is generated, stored or recorded."""
    house = house_of(request)
    held = house.policies.current()
    granted = look(house, caller, draft_of(house, ask), None, held)
    return ClampAnswer(**dict(granted.answer), distance=granted.grant.distance, metric=held.policy.metric)


@router.post("/v1/ranges", responses=VALIDATED)
def ranges(ask: RangesAsk, request: Request, caller: _Caller) -> RangesAnswer:
    """The most that the policy in force grants of every adapter if it alone is asked for; 0 also if that is refused."""
    house = house_of(request)
    attributes = attributes_of(Draft(None, Weights.parse({}), ask.attributes, {}), caller)
    held = house.policies.current().policy
    most = {each.name: _most(held, each.name, attributes) for each in house.adapters}
    return RangesAnswer(attributes=attributes, most=most)


def _most(policy: Policy, name: str, attributes: dict[str, str]) -> str:
    try:
        return policy.clamp({name: 1}, **attributes).granted.decimals().get(name, "0")
    except PolicyRefusal as refusal:
        if status_of(refusal) == 503:  # it says nothing about the adapter
            raise
        return "0"
