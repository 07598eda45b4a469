"""`/v1/clamp`: what would be granted, without asking for an answer."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request

from soupmix.serve.answers import ClampAnswer
from soupmix.serve.auth import authenticate, house_of
from soupmix.serve.documented import PROFILE, VALIDATED
from soupmix.serve.granting import draft_of, look
from soupmix.serve.strict import StrictRoute
from soupmix.serve.tenants import Caller
from soupmix.serve.wire import SoupAsk

__all__ = ["router"]

router = APIRouter(route_class=StrictRoute)


@router.post("/v1/clamp", responses={**VALIDATED, 403: PROFILE[403]})
def clamp(ask: SoupAsk, request: Request, caller: Annotated[Caller, Depends(authenticate)]) -> ClampAnswer:
    """What the policy in force grants of these weights now, and why. Nothing is generated, stored or recorded."""
    house = house_of(request)
    held = house.policies.current()
    granted = look(house, caller, draft_of(house, ask), None, held)
    return ClampAnswer(**dict(granted.answer), distance=granted.grant.distance, metric=held.policy.metric)
