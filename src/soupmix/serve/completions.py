"""`POST /v1/completions`: text as it stands is continued, without the chat template."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from soupmix.batching import Piece, Token
from soupmix.engine import Engine
from soupmix.errors import RecipeError
from soupmix.serve.answering import Made, Prompted, answer
from soupmix.serve.answers import CompletionAnswer
from soupmix.serve.auth import authenticate, house_of
from soupmix.serve.documented import ANSWERING, streamed
from soupmix.serve.strict import StrictRoute
from soupmix.serve.tenants import Caller
from soupmix.serve.wire import CompletionAsk

__all__ = ["router"]

router = APIRouter(route_class=StrictRoute)
_TOKENS = 16  # of an answer whose length is not said, as OpenAI has it


@router.post("/v1/completions", response_model=None, responses={**ANSWERING, **streamed(CompletionAnswer)})
async def complete(ask: CompletionAsk, http: Request, caller: Annotated[Caller, Depends(authenticate)]) -> Response:
    """Continue one or several prompts with a person's soup."""
    house = house_of(http)
    prompts = await run_in_threadpool(_tokens, house.batcher.engine, ask)
    prompted = Prompted(prompts, ask.max_tokens or _TOKENS, ask.logprobs)
    return await answer(house, http, caller, ask, prompted, _Completion())


class _Completion:
    """Answers as text."""

    prefix, whole, chunk = "cmpl", "text_completion", "text_completion"

    def choice(self, number: int, made: Made) -> dict[str, Any]:
        """A whole text."""
        finish = made.last.finish if made.last else None
        return {"index": number, "text": made.text, "logprobs": _told(made.tokens, 0), "finish_reason": finish}

    def opening(self, number: int) -> None:
        """Nothing: a text begins with its first piece."""

    def delta(self, number: int, made: Made, piece: Piece) -> dict[str, Any]:
        """What is added."""
        offset = sum(len(token.text) for token in made.tokens)
        told = _told(piece.tokens, offset)
        return {"index": number, "text": piece.text, "logprobs": told, "finish_reason": piece.finish}


def _tokens(engine: Engine, ask: CompletionAsk) -> list[tuple[int, ...]]:
    """Token ids of the prompts. Raises `RecipeError`: an id that the model does not know (reason "no-such-token")."""
    found = [engine.plain_tokens(each) if isinstance(each, str) else tuple(each) for each in ask.prompts()]
    known = int(engine.model.config.vocab_size)
    for prompt in found:
        if not prompt:
            raise RecipeError("the prompt is empty; say something", reason="empty-prompt")
        if max(prompt) >= known:
            raise RecipeError(f"token {max(prompt)} does not exist; this model has {known}", reason="no-such-token")
    return found


def _told(tokens: Sequence[Token], offset: int) -> dict[str, Any] | None:
    if not tokens:
        return None
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{text: logprob for _, text, _, logprob in reversed(token.likeliest)} for token in tokens],
        "text_offset": offsets,
    }
