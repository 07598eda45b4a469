"""`POST /v1/completions`: text as it stands is continued, without the chat template."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from soupmix.openai.answers import CompletionAnswer
from soupmix.openai.forms import CompletionForm
from soupmix.openai.requests import completion_prompted
from soupmix.openai.wire import CompletionAsk
from soupmix.serve.answering import answer
from soupmix.serve.auth import authenticate, house_of
from soupmix.serve.documented import ANSWERING, streamed
from soupmix.serve.strict import StrictRoute
from soupmix.serve.tenants import Caller

__all__ = ["router"]

router = APIRouter(route_class=StrictRoute)


@router.post("/v1/completions", response_model=None, responses={**ANSWERING, **streamed(CompletionAnswer)})
async def complete(ask: CompletionAsk, http: Request, caller: Annotated[Caller, Depends(authenticate)]) -> Response:
    """Continue one or several prompts with a person's soup."""
    house = house_of(http)
    house.backend.check_room()
    prompted = await run_in_threadpool(completion_prompted, house.backend, ask)
    return await answer(house, http, caller, ask, prompted, CompletionForm())
