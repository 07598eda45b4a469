"""What chat and plain completions share: limits, a grant, requests to the running batch, and answers whole or streamed."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from soupmix.batching import Piece, Request, Token
from soupmix.engine import Sampling
from soupmix.errors import RecipeError, SoupmixError
from soupmix.serve.answers import SoupAnswer, Usage
from soupmix.serve.errors import HttpError, error_body, status_of
from soupmix.serve.granting import serve
from soupmix.serve.house import House
from soupmix.serve.running import Answers, failed
from soupmix.serve.streams import EventStream
from soupmix.serve.tenants import Caller
from soupmix.serve.wire import Ask

__all__ = ["Form", "Made", "Prompted", "answer"]

_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Prompted:
    """What is to be answered.

    Attributes:
        prompts: token ids of each prompt. most: tokens of an answer, or None. logprobs: as `Request.logprobs`.
    """

    prompts: Sequence[tuple[int, ...]]
    most: int | None
    logprobs: int | None


@dataclass(slots=True)
class Made:
    """An answer as far as it is known; its counts are those of its last piece."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    last: Piece | None = None

    def add(self, piece: Piece) -> None:
        """The next piece."""
        self.text += piece.text
        self.tokens += piece.tokens
        self.last = piece


class Form(Protocol):
    """How an answer is written down."""

    prefix: str
    whole: str
    chunk: str

    def choice(self, number: int, made: Made) -> dict[str, Any]:
        """A whole answer as a choice."""

    def opening(self, number: int) -> dict[str, Any] | None:
        """The choice that begins a stream, if there is one."""

    def delta(self, number: int, made: Made, piece: Piece) -> dict[str, Any]:
        """A piece as a choice; `made` is what came before it."""


async def answer(house: House, http: HttpRequest, caller: Caller, ask: Ask, prompted: Prompted, form: Form) -> Response:
    """Answer a request. Raises `SoupmixError` before anything is sent; later failures are an event of the stream."""
    granted, requests = await run_in_threadpool(_prepare, house, caller, ask, prompted)
    answers = Answers(house.batcher, house.metrics, requests, house.settings.pieces)
    try:
        await run_in_threadpool(answers.submit)
        head = {
            "id": f"{form.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": ask.model,
        }
        if ask.stream:
            return EventStream(_events(answers, ask, form, head, granted, len(requests)), answers.cancel)
        made = await _unless_gone(http, answers, len(requests))
        choices = [form.choice(number, each) for number, each in enumerate(made)]
        soup = granted.model_dump(mode="json")
        return JSONResponse({**head, "object": form.whole, "choices": choices, "usage": _usage(made), "soup": soup})
    except BaseException:
        answers.cancel()
        raise


def _prepare(house: House, caller: Caller, ask: Ask, prompted: Prompted) -> tuple[SoupAnswer, list[Request]]:
    count = (ask.n or 1) * len(prompted.prompts)
    if count > house.settings.answers:
        raise RecipeError(
            f"{count} answers are asked for at once, and {house.settings.answers} is the most; ask in several requests",
            reason="too-many-answers",
        )
    rooms = [_room(house, prompt, prompted.most) for prompt in prompted.prompts]
    granted = serve(house, caller, ask.model, ask.soup, ask.user)
    seed = secrets.randbelow(2**61) if ask.seed is None else ask.seed
    requests = [
        Request(
            prompt=prompt,
            grant=granted.grant,
            sampling=_sampling(ask, room, seed + number),
            stop=ask.stops(),
            logprobs=prompted.logprobs,
            tenant=granted.salt,
        )
        for prompt, room in zip(prompted.prompts, rooms, strict=True)
        for number in range(ask.n or 1)
    ]
    return granted.answer, requests


def _room(house: House, prompt: tuple[int, ...], most: int | None) -> int:
    """How many tokens an answer may have. Raises `RecipeError` if it does not fit behind its prompt ("too-long")."""
    length = house.batcher.limits.length
    left = length - len(prompt)
    if left < (most or 1):
        raise RecipeError(
            f"{len(prompt)} tokens of prompt and {most or 1} of answer are more than the {length} that fit; shorten the "
            f"prompt or ask for a shorter answer",
            reason="too-long",
        )
    return most or min(left, house.settings.tokens)


def _sampling(ask: Ask, room: int, seed: int) -> Sampling:
    return Sampling(
        max_new_tokens=room,
        temperature=1.0 if ask.temperature is None else ask.temperature,
        top_k=ask.top_k or 0,
        top_p=1.0 if ask.top_p is None else ask.top_p,
        seed=seed,
    )


async def _unless_gone(http: HttpRequest, answers: Answers, count: int) -> list[Made]:
    """All answers, unless the client leaves before."""
    work, gone = asyncio.ensure_future(_whole(answers, count)), asyncio.ensure_future(_gone(http))
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


async def _whole(answers: Answers, count: int) -> list[Made]:
    made = [Made() for _ in range(count)]
    async for number, piece in answers.pieces():
        problem = failed(piece)
        if problem is not None:
            raise problem
        made[number].add(piece)
    return made


async def _events(
    answers: Answers, ask: Ask, form: Form, head: dict[str, Any], soup: SoupAnswer, count: int
) -> AsyncIterator[bytes]:
    """The stream: an opening with the soup, a chunk per piece, counts if they were asked for, and the end."""
    base, made = {**head, "object": form.chunk}, [Made() for _ in range(count)]
    if ask.counted():
        base["usage"] = None
    openings = [each for each in map(form.opening, range(count)) if each is not None]
    yield _event({**base, "choices": openings, "soup": soup.model_dump(mode="json")})
    try:
        async for number, piece in answers.pieces():
            problem = failed(piece)
            if problem is not None:
                raise problem
            yield _event({**base, "choices": [form.delta(number, made[number], piece)]})
            made[number].add(piece)
    except SoupmixError as error:
        yield _event(error_body(str(error), status_of(error), error.reason))
        return
    if ask.counted():
        yield _event({**base, "choices": [], "usage": _usage(made)})
    yield _DONE


def _usage(made: Sequence[Made]) -> dict[str, Any]:
    last = [each.last for each in made if each.last is not None]
    return Usage.of(
        sum(piece.prompt_tokens for piece in last),
        sum(piece.completion_tokens for piece in last),
        sum(piece.cached_tokens for piece in last),
    ).model_dump(mode="json")


def _event(body: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
