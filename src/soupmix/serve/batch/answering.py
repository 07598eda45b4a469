"""From answers to OpenAI's output lines. Nothing in them depends on when or how often a batch was started."""

from hashlib import sha256
from itertools import accumulate
from typing import Any, Final

from soupmix.batching import Token
from soupmix.errors import PolicyRefusal, RecipeError, SoupmixError, WeightError
from soupmix.serve.answers import (
    ChatAnswer,
    ChatChoice,
    ChatLogprobs,
    ChatText,
    CompletionAnswer,
    CompletionChoice,
    CompletionLogprobs,
    SoupAnswer,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from soupmix.serve.batch.asking import Defaults
from soupmix.serve.batch.result import Answered, Begun, Result
from soupmix.serve.wire import ChatAsk

__all__ = ["CREATED", "record"]

CREATED: Final = 0
"""The time of every answer, 1970: the same batch gives the same bytes whenever it runs."""

_TYPES = {400: "invalid_request_error", 403: "permission_error", 500: "server_error"}


def record(result: Result, batch: str, defaults: Defaults, *, signed: bool) -> dict[str, Any]:
    """The output line of a result.

    Args:
        batch: digest of input and settings; with the line's number it makes the ids.
        signed: whether the policy came with good signatures.
    """
    name = sha256(f"{batch} {result.line.number}".encode()).hexdigest()[:24]
    error = result.error
    if error is None and result.begun is not None:
        status, body = 200, _body(result.begun, result.answers, name, defaults, signed=signed)
    else:
        error = error or SoupmixError("there is no answer", reason="error")
        status = _status(error)
        body = {"error": {"message": str(error), "type": _TYPES[status], "param": None, "code": error.reason}}
    return {
        "id": f"batch_req_{name}",
        "custom_id": result.line.custom_id,
        "response": {"status_code": status, "request_id": f"req_{name}", "body": body},
        "error": None if error is None else {"code": error.reason, "message": str(error)},
    }


def _status(error: SoupmixError) -> int:
    if isinstance(error, PolicyRefusal):
        return 403
    return 400 if isinstance(error, RecipeError | WeightError) else 500


def _body(
    begun: Begun, answers: tuple[Answered, ...], name: str, defaults: Defaults, *, signed: bool
) -> dict[str, Any]:
    """The answer as the server would give it, but for the count of cached tokens: what was cached depends on the run."""
    ends = [each.last for each in answers if each.last is not None]
    common: dict[str, Any] = {
        "created": CREATED,
        "model": defaults.model,
        "usage": Usage.of(
            sum(each.prompt_tokens for each in ends), sum(each.completion_tokens for each in ends), cached=0
        ),
        "soup": SoupAnswer.of(begun.grant, profile=None, signed=signed, method=defaults.method, merge=begun.merge),
    }
    made: ChatAnswer | CompletionAnswer
    if isinstance(begun.ask, ChatAsk):
        chat = [_chat_choice(index, each, begun.ask) for index, each in enumerate(answers)]
        made = ChatAnswer(id=f"chatcmpl-{name}", object="chat.completion", choices=chat, **common)
    else:
        plain = [_plain_choice(index, each, begun.requests[index].logprobs) for index, each in enumerate(answers)]
        made = CompletionAnswer(id=f"cmpl-{name}", object="text_completion", choices=plain, **common)
    return made.model_dump(exclude={"usage": {"prompt_tokens_details"}})


def _chat_choice(index: int, answer: Answered, ask: ChatAsk) -> ChatChoice:
    return ChatChoice(
        index=index,
        message=ChatText(role="assistant", content=answer.text),
        logprobs=ChatLogprobs(content=[_told(each) for each in answer.tokens]) if ask.logprobs else None,
        finish_reason=answer.finish,
    )


def _told(token: Token) -> TokenLogprob:
    return TokenLogprob(
        token=token.text,
        logprob=token.logprob,
        bytes=list(token.data),
        top_logprobs=[TopLogprob(token=text, logprob=log, bytes=list(data)) for _, text, data, log in token.likeliest],
    )


def _plain_choice(index: int, answer: Answered, logprobs: int | None) -> CompletionChoice:
    tokens = answer.tokens
    starts = list(accumulate((len(each.text) for each in tokens), initial=0))[:-1]
    told = CompletionLogprobs(
        tokens=[each.text for each in tokens],
        token_logprobs=[each.logprob for each in tokens],
        top_logprobs=[{text: log for _, text, _, log in each.likeliest} for each in tokens],
        text_offset=starts,
    )
    return CompletionChoice(
        index=index, text=answer.text, logprobs=None if logprobs is None else told, finish_reason=answer.finish
    )
