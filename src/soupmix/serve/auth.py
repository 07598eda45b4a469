"""From a request to its caller: known before any of its body is read."""

from typing import Annotated, Final

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Scope

from soupmix.errors import SoupmixError
from soupmix.openai.errors import HttpError
from soupmix.serve.keys import Caller
from soupmix.serve.state import ServerState

__all__ = ["REQUEST", "authenticate", "operator", "recognise", "state_of"]

_CALLER: Final = "soupmix.caller"
"""Of a scope: who calls, or why that is not known."""

REQUEST: Final = "soupmix.request"
"""Of a scope: the id of the request."""

_BEARER = HTTPBearer(auto_error=False, description="An API key; `soupmix serve keys create` makes one.")
_NOBODY = Caller("", {}, operator=True)


def state_of(request: Request) -> ServerState:
    """What this request is served with."""
    state: ServerState = request.app.state.server
    return state


async def recognise(state: ServerState, scope: Scope) -> Caller | None:
    """Who calls, or None for a stranger; a route that needs a caller then says why through `authenticate`."""
    try:
        scope[_CALLER] = await _caller(state, Headers(scope=scope).get("authorization", ""))
    except (SoupmixError, SQLAlchemyError) as error:
        scope[_CALLER] = error
        return None
    scope["soupmix.tenant"] = scope[_CALLER].tenant or None
    return scope[_CALLER]  # type: ignore[no-any-return]


async def _caller(state: ServerState, said: str) -> Caller:
    if state.settings.no_auth:
        return _NOBODY
    scheme, _, key = said.partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise HttpError("an API key is needed; send it as 'Authorization: Bearer KEY'", status=401, reason="no-key")
    return await run_in_threadpool(state.keys.caller, key.strip())


async def authenticate(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
) -> Caller:
    """Who calls. Raises `HttpError` 401, or whatever kept `recognise` from knowing."""
    found: Caller | Exception = request.scope[_CALLER]
    if isinstance(found, Caller):
        return found
    raise found


async def operator(caller: Annotated[Caller, Depends(authenticate)]) -> Caller:
    """A caller with an operator's key. Raises `HttpError` 403 for every other one."""
    if not caller.operator:
        raise HttpError("this needs an operator's key", status=403, reason="not-an-operator")
    return caller
