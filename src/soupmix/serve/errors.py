"""Every refusal as OpenAI's clients expect it: a status, and `{"error": {"message", "type", "param", "code"}}`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel
from starlette.responses import JSONResponse

from soupmix.errors import Overloaded, PolicyRefusal, RecipeError, SoupmixError, WeightError

__all__ = [
    "ErrorAnswer",
    "HttpError",
    "error_body",
    "error_response",
    "refusal_response",
    "status_of",
    "validation_response",
]

_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
_BUSY: Final = ("queue-full", "share-full")
_WAIT: Final = 5.0


class HttpError(SoupmixError):
    """A refusal that only exists over HTTP, with its status; `param` is the field that it is about."""

    def __init__(self, message: str, *, status: int, reason: str, param: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.status, self.param = status, param


class ErrorDetail(BaseModel):
    """What went wrong: a sentence, its kind, the field that it is about, a stable code."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


def status_of(error: SoupmixError) -> int:
    """The HTTP status of a refusal; what is neither the client's doing nor the policy's is 503, as it may pass."""
    match error:
        case HttpError():
            return error.status
        case WeightError() | RecipeError():
            return 400
        case PolicyRefusal():
            return 403
        case Overloaded() if error.reason in _BUSY:
            return 429
        case _:
            return 503


def error_body(message: str, status: int, reason: str, param: str | None = None) -> dict[str, Any]:
    """The JSON of a refusal."""
    kind = _TYPES.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": reason or None}}


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
        HttpError(text, status=400, reason=str(first["type"]))
        for text in (where[0], f"{'.'.join(where)}: {first['msg']}")
    )
    return error_response(str(problem), 400, problem.reason, param=str(field))
