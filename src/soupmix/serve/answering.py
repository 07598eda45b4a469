"""All answers of a request, made whole, unless the client leaves before."""

import asyncio

from starlette.requests import Request

from soupmix.openai.errors import HttpError
from soupmix.openai.forms import AnswerSoFar
from soupmix.serve.pending import PendingAnswers, failed

__all__ = ["unless_gone"]


async def unless_gone(http: Request, answers: PendingAnswers) -> list[AnswerSoFar]:
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


async def _gone(http: Request) -> None:
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
