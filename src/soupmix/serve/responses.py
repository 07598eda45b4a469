"""Refusals as answers over HTTP."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.responses import JSONResponse

from soupmix.errors import SoupmixError
from soupmix.openai.errors import HttpError, error_body, status_of

__all__ = ["error_response", "refusal_response", "validation_response"]

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
        HttpError(text, status=400, reason=str(first["type"]))
        for text in (where[0], f"{'.'.join(where)}: {first['msg']}")
    )
    return error_response(str(problem), 400, problem.reason, param=str(field))
