"""`POST /v1/chat/completions`, and `POST /v1/completions`, where text as it stands is continued without the chat template.

Both share limits, a grant, requests to the backend, and answers whole or streamed.
"""

import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from soupmix.backends import Request
from soupmix.errors import SoupmixError
from soupmix.openai.answers import ChatAnswer, CompletionAnswer, SoupAnswer
from soupmix.openai.errors import error_body, status_of
from soupmix.openai.forms import AnswerSoFar, ChatForm, CompletionForm, Form, usage
from soupmix.openai.items import ResponsesAsk
from soupmix.openai.requests import Fitting, Prompted, chat_prompted, completion_prompted
from soupmix.openai.responding import Responding
from soupmix.openai.wire import Ask, ChatAsk, CompletionAsk
from soupmix.serve.answering import fitted_here, requests_here, unless_gone
from soupmix.serve.auth import REQUEST, authenticate, state_of
from soupmix.serve.grants import grant_for, sharer
from soupmix.serve.hearing import hear
from soupmix.serve.keys import Caller
from soupmix.serve.pending import PendingAnswers, failed
from soupmix.serve.responses import ANSWERING, streamed
from soupmix.serve.state import ServerState
from soupmix.serve.strict import StrictRoute

__all__ = ["router"]

router = APIRouter(route_class=StrictRoute)
_Caller = Annotated[Caller, Depends(authenticate)]
_DONE = b"data: [DONE]\n\n"


@router.post("/v1/chat/completions", response_model=None, responses={**ANSWERING, **streamed(ChatAnswer)})
async def chat(ask: ChatAsk, http: HttpRequest, caller: _Caller) -> Response:
    """Answer a conversation with a person's soup; a last message of the assistant is continued."""
    state = state_of(http)
    state.backend.check_room()
    prompted = await run_in_threadpool(chat_prompted, state.backend, ask)
    await run_in_threadpool(hear, state, caller, ask, http.scope[REQUEST])
    form = ChatForm.of(ask, state.backend, secrets.token_hex(12))
    return await _answer(state, http, caller, ask, prompted, form)


@router.post("/v1/responses", response_model=None, responses={**ANSWERING, **streamed(None)})
async def respond(ask: ResponsesAsk, http: HttpRequest, caller: _Caller) -> Response:
    """Answer a conversation with a person's soup in OpenAI's newer form; nothing is kept between requests."""
    state, asked = state_of(http), ask.chat()
    state.backend.check_room()
    prompted = await run_in_threadpool(chat_prompted, state.backend, asked)
    await run_in_threadpool(hear, state, caller, asked, http.scope[REQUEST])
    fitted = fitted_here(state, asked, prompted)
    with ExitStack() as stack:
        stack.enter_context(state.shares.held(caller.tenant, len(fitted)))
        granted, wanted = await run_in_threadpool(_prepare, state, caller, asked, fitted, prompted)
        answers = PendingAnswers(state.backend, state.metrics, wanted, state.settings.deltas)
        stack.callback(answers.cancel)
        await run_in_threadpool(answers.submit)
        soup = granted.model_dump(mode="json")
        responding = Responding.of(ask, int(time.time()), soup, state.backend)
        if ask.stream:
            over = stack.pop_all().close
            return _EventStream(_responded(answers, responding, over), over)
        (made,) = await unless_gone(http, answers)
    return JSONResponse(responding.whole(made))


async def _responded(answers: PendingAnswers, responding: Responding, over: Callable[[], None]) -> AsyncIterator[bytes]:
    """The events of a response; `over` as of `_events`."""
    made = AnswerSoFar()
    for event in responding.opening():
        yield _event(event)
    try:
        async for _, delta in answers.deltas():
            if (problem := failed(delta)) is not None:
                raise problem
            made.add(delta)
            for event in responding.delta(delta):
                yield _event(event)
        over()
    except SoupmixError as error:
        over()
        yield _event({"type": "error", **error_body(str(error), status_of(error), error.reason)["error"]})
        return
    for event in responding.closing(made):
        yield _event(event)


@router.post("/v1/completions", response_model=None, responses={**ANSWERING, **streamed(CompletionAnswer)})
async def complete(ask: CompletionAsk, http: HttpRequest, caller: _Caller) -> Response:
    """Continue one or several prompts with a person's soup."""
    state = state_of(http)
    state.backend.check_room()
    prompted = await run_in_threadpool(completion_prompted, state.backend, ask)
    return await _answer(state, http, caller, ask, prompted, CompletionForm())


async def _answer(
    state: ServerState, http: HttpRequest, caller: Caller, ask: Ask, prompted: Prompted, form: Form
) -> Response:
    """Answer a request. Raises `SoupmixError` before anything is sent; later failures are an event of the stream."""
    settings = state.settings
    fitted = fitted_here(state, ask, prompted)
    with ExitStack() as stack:
        stack.enter_context(state.shares.held(caller.tenant, len(fitted)))
        granted, asked = await run_in_threadpool(_prepare, state, caller, ask, fitted, prompted)
        answers = PendingAnswers(state.backend, state.metrics, asked, settings.deltas)
        stack.callback(answers.cancel)
        await run_in_threadpool(answers.submit)
        head = {"id": f"{form.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": ask.model}
        if ask.stream:
            over = stack.pop_all().close
            return _EventStream(_events(answers, ask, form, {**head, "object": form.chunk}, granted, over), over)
        made = await unless_gone(http, answers)
    choices = [form.choice(number, each) for number, each in enumerate(made)]
    told = {"usage": usage(made).model_dump(mode="json"), "soup": granted.model_dump(mode="json")}
    return JSONResponse({**head, "object": form.whole, "choices": choices, **told})


def _prepare(
    state: ServerState, caller: Caller, ask: Ask, fitted: Sequence[Fitting], prompted: Prompted
) -> tuple[SoupAnswer, list[Request]]:
    granted = grant_for(state, caller, ask.model, ask.soup, ask.user)
    seed = secrets.randbelow(2**61) if ask.seed is None else ask.seed
    person = sharer(caller, granted.person)
    return granted.answer, requests_here(state, ask, fitted, prompted, granted, person=person, seed=seed)


async def _events(
    answers: PendingAnswers, ask: Ask, form: Form, base: dict[str, Any], soup: SoupAnswer, over: Callable[[], None]
) -> AsyncIterator[bytes]:
    """The stream: an opening with the soup, a chunk per delta, counts if they were asked for, and the end.

    `over` is called before the last events, so that whoever has them finds nothing of this request under way.
    """
    made = [AnswerSoFar() for _ in range(answers.count)]
    if ask.counted():
        base["usage"] = None
    openings = [each for each in map(form.opening, range(answers.count)) if each is not None]
    yield _event({**base, "choices": openings, "soup": soup.model_dump(mode="json")})
    try:
        async for number, delta in answers.deltas():
            problem = failed(delta)
            if problem is not None:
                raise problem
            yield _event({**base, "choices": [form.delta(number, made[number], delta)]})
            made[number].add(delta)
        over()
    except SoupmixError as error:
        over()
        yield _event(error_body(str(error), status_of(error), error.reason))
        return
    if ask.counted():
        yield _event({**base, "choices": [], "usage": usage(made).model_dump(mode="json")})
    yield _DONE


def _event(body: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


class _EventStream(StreamingResponse):
    """Events, and what is to be done when they end: all sent, the client gone, or nobody reading."""

    def __init__(self, events: AsyncIterator[bytes], over: Callable[[], None]) -> None:
        """`over` is called at the end; it may have been called before."""
        super().__init__(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        )
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._over()
