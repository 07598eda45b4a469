"""What chat and plain completions share: limits, a grant, requests to the running batch, and answers whole or streamed."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from soupmix.backends import Request
from soupmix.errors import SoupmixError
from soupmix.openai.answers import SoupAnswer
from soupmix.openai.errors import HttpError, error_body, status_of
from soupmix.openai.forms import Form, Made, usage
from soupmix.openai.requests import Planned, Prompted, planned, requests
from soupmix.openai.wire import Ask
from soupmix.serve.granting import serve
from soupmix.serve.house import House
from soupmix.serve.people import sharer
from soupmix.serve.running import Answers, failed
from soupmix.serve.streams import EventStream
from soupmix.serve.tenants import Caller

__all__ = ["answer"]

_DONE = b"data: [DONE]\n\n"


async def answer(house: House, http: HttpRequest, caller: Caller, ask: Ask, prompted: Prompted, form: Form) -> Response:
    """Answer a request. Raises `SoupmixError` before anything is sent; later failures are an event of the stream."""
    settings = house.settings
    plans = planned(ask, prompted, length=house.backend.limits.length, tokens=settings.tokens, answers=settings.answers)
    with ExitStack() as stack:
        stack.enter_context(house.shares.held(caller.tenant, len(plans)))
        granted, asked = await run_in_threadpool(_prepare, house, caller, ask, plans, prompted.logprobs)
        answers = Answers(house.backend, house.metrics, asked, settings.pieces)
        stack.callback(answers.cancel)
        await run_in_threadpool(answers.submit)
        head = {"id": f"{form.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": ask.model}
        if ask.stream:
            over = stack.pop_all().close
            return EventStream(_events(answers, ask, form, {**head, "object": form.chunk}, granted, over), over)
        made = await _unless_gone(http, answers)
    choices = [form.choice(number, each) for number, each in enumerate(made)]
    told = {"usage": usage(made).model_dump(mode="json"), "soup": granted.model_dump(mode="json")}
    return JSONResponse({**head, "object": form.whole, "choices": choices, **told})


def _prepare(
    house: House, caller: Caller, ask: Ask, plans: Sequence[Planned], logprobs: int | None
) -> tuple[SoupAnswer, list[Request]]:
    granted = serve(house, caller, ask.model, ask.soup, ask.user)
    seed = secrets.randbelow(2**61) if ask.seed is None else ask.seed
    person = sharer(caller, granted.person)
    return granted.answer, requests(
        ask,
        plans,
        granted.grant,
        logprobs=logprobs,
        method=house.settings.method,
        salt=granted.salt,
        person=person,
        seed=seed,
    )


async def _unless_gone(http: HttpRequest, answers: Answers) -> list[Made]:
    """All answers, unless the client leaves before."""
    work, gone = asyncio.ensure_future(_whole(answers)), asyncio.ensure_future(_gone(http))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise HttpError("the client has gone", status=499, reason="client-gone")
        return work.result()
    finally:
        work.cancel()
        gone.cancel()


async def _gone(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


async def _whole(answers: Answers) -> list[Made]:
    made = [Made() for _ in range(answers.count)]
    async for number, delta in answers.deltas():
        problem = failed(delta)
        if problem is not None:
            raise problem
        made[number].add(delta)
    return made


async def _events(
    answers: Answers, ask: Ask, form: Form, base: dict[str, Any], soup: SoupAnswer, over: Callable[[], None]
) -> AsyncIterator[bytes]:
    """The stream: an opening with the soup, a chunk per delta, counts if they were asked for, and the end.

    `over` is called before the last events, so that whoever has them finds nothing of this request under way.
    """
    made = [Made() for _ in range(answers.count)]
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
