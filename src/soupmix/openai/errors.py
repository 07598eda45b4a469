"""Every refusal as OpenAI's clients expect it: a status, and `{"error": {"message", "type", "param", "code"}}`."""

from typing import Any, Final

from pydantic import BaseModel

from soupmix.errors import Overloaded, PolicyRefusal, PreferenceError, RecipeError, SoupmixError, WeightError

__all__ = ["ErrorAnswer", "HttpError", "error_body", "status_of"]

_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
_BUSY: Final = ("bodies-full", "queue-full", "share-full")
_NOT_THE_REQUEST: Final = ("ended", "too-slow")
"""What a policy refuses whatever is asked for, or what may be granted if asked again."""
_OF_EVIDENCE: Final = {"replayed": 409, "too-many-signals": 409, "nothing-to-choose": 409, "unknown-signal": 404}
"""Evidence that contradicts what is there already; all other that cannot be taken is understood, and says what cannot be."""


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
        case PolicyRefusal() if error.reason not in _NOT_THE_REQUEST:
            return 403
        case PreferenceError():
            return _OF_EVIDENCE.get(error.reason, 422)
        case Overloaded() if error.reason in _BUSY:
            return 429
        case _:
            return 503


def error_body(message: str, status: int, reason: str, param: str | None = None) -> dict[str, Any]:
    """The JSON of a refusal."""
    kind = _TYPES.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": reason or None}}
