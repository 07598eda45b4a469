"""What a request asks of the backend, as the server has it; and all of its answers, unless the client leaves before."""

import asyncio
from collections.abc import Sequence

from starlette.requests import Request as HttpRequest

from soupmix.backends import Request
from soupmix.openai.errors import HttpError
from soupmix.openai.forms import AnswerSoFar
from soupmix.openai.requests import Fitting, Prompted, fitting, requests
from soupmix.openai.wire import Ask
from soupmix.serve.grants import Granted
from soupmix.serve.pending import PendingAnswers, failed
from soupmix.serve.state import ServerState

__all__ = ["fitted_here", "requests_here", "unless_gone"]


def fitted_here(state: ServerState, ask: Ask, prompted: Prompted) -> list[Fitting]:
    """The answers that a request asks for, if this server has room for them. Raises as `fitting`."""
    most = state.settings
    return fitting(ask, prompted, length=state.backend.limits.length, tokens=most.tokens, answers=most.answers)


def requests_here(
    state: ServerState,
    ask: Ask,
    fitted: Sequence[Fitting],
    prompted: Prompted,
    granted: Granted,
    *,
    person: str,
    seed: int,
) -> list[Request]:
    """A request of the backend for each of these answers, under what was granted; as `requests`."""
    return requests(
        ask,
        fitted,
        granted.grant,
        prompted=prompted,
        method=state.settings.method,
        mode=granted.mode,
        salt=granted.salt,
        person=person,
        seed=seed,
    )


async def unless_gone(http: HttpRequest, answers: PendingAnswers) -> list[AnswerSoFar]:
    """All answers. Raises `HttpError` 499 if the client leaves before, and what ended an answer that is not whole."""
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


async def _whole(answers: PendingAnswers) -> list[AnswerSoFar]:
    made = [AnswerSoFar() for _ in range(answers.count)]
    async for number, delta in answers.deltas():
        problem = failed(delta)
        if problem is not None:
            raise problem
        made[number].add(delta)
    return made
