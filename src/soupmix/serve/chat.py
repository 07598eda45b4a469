"""`POST /v1/chat/completions`."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from jinja2.exceptions import TemplateError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from soupmix.batching import Piece, Token
from soupmix.engine import Engine
from soupmix.errors import RecipeError
from soupmix.serve.answering import Made, Prompted, answer
from soupmix.serve.answers import ChatAnswer
from soupmix.serve.auth import authenticate, house_of
from soupmix.serve.documented import ANSWERING, streamed
from soupmix.serve.strict import StrictRoute
from soupmix.serve.tenants import Caller
from soupmix.serve.wire import ChatAsk, ChatMessage

__all__ = ["router"]

router = APIRouter(route_class=StrictRoute)


@router.post("/v1/chat/completions", response_model=None, responses={**ANSWERING, **streamed(ChatAnswer)})
async def chat(ask: ChatAsk, http: Request, caller: Annotated[Caller, Depends(authenticate)]) -> Response:
    """Answer a conversation with a person's soup; a last message of the assistant is continued."""
    house = house_of(http)
    prompt = await run_in_threadpool(_tokens, house.batcher.engine, ask.messages)
    prompted = Prompted([prompt], _most(ask), _logprobs(ask))
    return await answer(house, http, caller, ask, prompted, _Chat())


class _Chat:
    """Answers as messages."""

    prefix, whole, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def choice(self, number: int, made: Made) -> dict[str, Any]:
        """A whole message."""
        message = {"role": "assistant", "content": made.text}
        finish = made.last.finish if made.last else None
        return {"index": number, "message": message, "logprobs": _told(made.tokens), "finish_reason": finish}

    def opening(self, number: int) -> dict[str, Any]:
        """Who speaks."""
        delta = {"role": "assistant", "content": ""}
        return {"index": number, "delta": delta, "logprobs": None, "finish_reason": None}

    def delta(self, number: int, made: Made, piece: Piece) -> dict[str, Any]:
        """What is added."""
        delta = {"content": piece.text} if piece.text else {}
        return {"index": number, "delta": delta, "logprobs": _told(piece.tokens), "finish_reason": piece.finish}


def _most(ask: ChatAsk) -> int | None:
    if None not in (ask.max_tokens, ask.max_completion_tokens) and ask.max_tokens != ask.max_completion_tokens:
        raise RecipeError(
            f"max_tokens = {ask.max_tokens} and max_completion_tokens = {ask.max_completion_tokens} say the same thing "
            f"differently; give one of them",
            reason="two-lengths",
        )
    return ask.max_completion_tokens or ask.max_tokens


def _logprobs(ask: ChatAsk) -> int | None:
    if ask.top_logprobs and not ask.logprobs:
        raise RecipeError("top_logprobs needs logprobs: true", reason="no-logprobs")
    return (ask.top_logprobs or 0) if ask.logprobs else None


def _tokens(engine: Engine, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
    """The conversation as token ids.

    Raises:
        RecipeError: a message holds a token that marks roles or ends ("special-token"), with which it could pose as
            somebody else's, or the model's template does not take such a conversation ("bad-conversation").
    """
    roles = [{"role": _role(each.role), "content": each.text()} for each in messages]
    special = sorted({token for token in _special(engine) for each in roles if token in each["content"]})
    if special:
        raise RecipeError(
            f"a message holds {special[0]!r}, which to this model is the end or the beginning of one; leave it out",
            reason="special-token",
        )
    try:
        return engine.tokens(roles)
    except TemplateError as error:
        raise RecipeError(
            f"this model takes no such conversation: {error}; begin with a user's or a system message",
            reason="bad-conversation",
        ) from None


def _role(role: str) -> str:
    return "system" if role == "developer" else role


def _special(engine: Engine) -> list[str]:
    added = engine.tokenizer.added_tokens_decoder.values()
    return [str(token.content) for token in added if token.special and re.search(r"\W", token.content)]


def _told(tokens: Sequence[Token]) -> dict[str, Any] | None:
    return {"content": [_token(each) for each in tokens]} if tokens else None


def _token(token: Token) -> dict[str, Any]:
    return {
        "token": token.text,
        "logprob": token.logprob,
        "bytes": list(token.data),
        "top_logprobs": [
            {"token": text, "logprob": logprob, "bytes": list(data)} for _, text, data, logprob in token.likeliest
        ],
    }
