"""Refusals as answers over HTTP, and what the OpenAPI document says of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel
from starlette.responses import JSONResponse

from soupmix.errors import SoupmixError
from soupmix.openai.errors import ErrorAnswer, HttpError, error_body, status_of
from soupmix.openai.sentences import sentence

__all__ = [
    "ANSWERING",
    "CHANGED",
    "GUARDED",
    "LEARNING",
    "OPEN",
    "OPERATED",
    "PROFILE",
    "VALIDATED",
    "error_response",
    "refusal_response",
    "streamed",
    "validation_response",
]

_WAIT: Final = 5.0


def error_response(
    message: str, status: int, reason: str, *, param: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """A refusal."""
    return JSONResponse(error_body(message, status, reason, param), status, headers)


def refusal_response(error: SoupmixError) -> JSONResponse:
    """The answer to a request that raised."""
    status, headers = status_of(error), {}
    if status in (429, 503):
        headers["Retry-After"] = str(math.ceil(getattr(error, "retry_after", _WAIT)))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return error_response(str(error), status, error.reason, param=getattr(error, "param", None), headers=headers)


def validation_response(errors: Sequence[Mapping[str, Any]]) -> JSONResponse:
    """The answer to a request that is not of the right form: its last fault, without quoting what was sent."""
    first = errors[-1]  # of a choice of forms the last one says most
    where = [str(each)[:80] for each in first["loc"][1:]] or [str(first["loc"][0])]
    # a key may be anything; as the message of an error it is printable
    field, problem = (
        HttpError(text, status=400, reason=str(first["type"])) for text in (where[0], sentence(first, where))
    )
    return error_response(str(problem), 400, problem.reason, param=str(field))


_Documents = dict[int | str, dict[str, Any]]

_SAID: Final = {
    400: "The request makes no sense",
    401: "No API key, or one that is not known",
    403: "The policy refuses, or the key may not do this",
    404: "No such model or profile",
    408: "The request took too long to arrive",
    409: "The name is taken, or there are too many",
    412: "Changed meanwhile: If-Match names another version",
    413: "The request is too large",
    422: "What was said of answers cannot be taken as evidence",
    429: "Too much is asked at once; Retry-After says when to ask again",
    503: "The server is closing, or something that it rests on does not work",
}


def _errors(*statuses: int) -> _Documents:
    return {status: {"model": ErrorAnswer, "description": _SAID[status]} for status in statuses}


OPEN: Final = _errors(408, 413, 503)
GUARDED: Final = _errors(401, 408, 413, 503)
VALIDATED: Final = {**GUARDED, **_errors(400)}
OPERATED: Final = {**GUARDED, **_errors(403)}
PROFILE: Final = {**VALIDATED, **_errors(403, 404)}
CHANGED: Final = {**PROFILE, **_errors(409, 412)}
ANSWERING: Final = {**PROFILE, **_errors(429)}
LEARNING: Final = {**CHANGED, **_errors(422, 429)}


def streamed(model: type[BaseModel] | None) -> _Documents:
    """200 as one JSON answer, of any form if no model is given, or as a stream of events if the request says so."""
    stream = {"schema": {"description": "Events whose data is JSON: chunks and [DONE], or the events of a response"}}
    whole = {"application/json": {"schema": {"type": "object"}}} if model is None else {}
    said = {} if model is None else {"model": model}
    return {200: {**said, "description": "The answer", "content": {**whole, "text/event-stream": stream}}}
