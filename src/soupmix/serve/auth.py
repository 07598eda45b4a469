"""From a request to its caller."""

from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from soupmix.serve.errors import HttpError
from soupmix.serve.house import House
from soupmix.serve.tenants import Caller

__all__ = ["authenticate", "house_of", "operator"]

_BEARER = HTTPBearer(auto_error=False, description="An API key; `soupmix serve keys create` makes one.")
_NOBODY = Caller("", {}, operator=True)


def house_of(request: Request) -> House:
    """What this request is served with."""
    house: House = request.app.state.house
    return house


def authenticate(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
) -> Caller:
    """Who calls. Raises `HttpError` 401."""
    house = house_of(request)
    if house.settings.no_auth:
        return _NOBODY
    if credentials is None:
        raise HttpError("an API key is needed; send it as 'Authorization: Bearer KEY'", status=401, reason="no-key")
    caller = house.keys.caller(credentials.credentials)
    request.scope["soupmix.tenant"] = caller.tenant
    return caller


def operator(caller: Annotated[Caller, Depends(authenticate)]) -> Caller:
    """A caller with an operator's key. Raises `HttpError` 403 for every other one."""
    if not caller.operator:
        raise HttpError("this needs an operator's key", status=403, reason="not-an-operator")
    return caller
