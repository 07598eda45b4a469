"""What the OpenAPI document says of answers that are not the usual one."""

from typing import Any, Final

from pydantic import BaseModel

from soupmix.openai.errors import ErrorAnswer

__all__ = ["ANSWERING", "CHANGED", "GUARDED", "OPEN", "OPERATED", "PROFILE", "VALIDATED", "streamed"]

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


def streamed(model: type[BaseModel]) -> _Documents:
    """200 as one JSON answer, or as a stream of events if the request says so."""
    stream = {"schema": {"description": "Events whose data is a chunk as JSON; the last one is [DONE]"}}
    return {200: {"model": model, "description": "The answer", "content": {"text/event-stream": stream}}}
