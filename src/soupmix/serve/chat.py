"""`POST /v1/chat/completions`."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from soupmix.openai.answers import ChatAnswer
from soupmix.openai.forms import ChatForm
from soupmix.openai.requests import chat_prompted
from soupmix.openai.wire import ChatAsk
from soupmix.serve.answering import answer
from soupmix.serve.auth import authenticate, house_of
from soupmix.serve.documented import ANSWERING, streamed
from soupmix.serve.strict import StrictRoute
from soupmix.serve.tenants import Caller

__all__ = ["router"]

router = APIRouter(route_class=StrictRoute)


@router.post("/v1/chat/completions", response_model=None, responses={**ANSWERING, **streamed(ChatAnswer)})
async def chat(ask: ChatAsk, http: Request, caller: Annotated[Caller, Depends(authenticate)]) -> Response:
    """Answer a conversation with a person's soup; a last message of the assistant is continued."""
    house = house_of(http)
    house.backend.check_room()
    prompted = await run_in_threadpool(chat_prompted, house.backend, ask)
    return await answer(house, http, caller, ask, prompted, ChatForm())
