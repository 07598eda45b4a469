"""JSON by the letter, for every request with a body: understood off the event loop, in bounded time and memory."""

import json
import re
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, TypeVar

from anyio import CapacityLimiter
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from soupmix.files import NotJson, strict_json
from soupmix.openai.errors import HttpError

__all__ = ["READ", "StrictRoute", "understood"]

READ: Final = "soupmix.read"
"""Of a scope: what is called once the body is understood, and its bytes are not held any more."""

_AT_ONCE: Final = 2  # bodies that are being understood; each may take many times its size
_MOST_NESTED: Final = 20_000
_NESTED: Final = re.compile(rb'(?:[^"\[{]++|"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z))*+(?:[\[{]|\Z)', re.DOTALL)
_JSON: Final = re.compile(r"application/(json|[^;/\s]+\+json)\s*(;.*)?", re.IGNORECASE | re.DOTALL)

_Kind = TypeVar("_Kind", bound=BaseModel)


def understood(kind: type[_Kind], body: bytes) -> _Kind:
    """A body as what a route takes.

    Raises:
        HttpError: 400, it is no JSON by the letter (reasons "json_invalid", "bad-request"): a key twice, NaN, half a
            character, or more lists and objects than anybody needs.
        RequestValidationError: it is another form of JSON.
    """
    found = _json(body)
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        told = error.errors(include_url=False, include_input=False)
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in told]) from None


def _json(body: bytes) -> Any:
    if sum(1 for _ in islice(_NESTED.finditer(body), _MOST_NESTED + 1)) > _MOST_NESTED:
        raise HttpError(
            f"the body has more than {_MOST_NESTED} lists and objects; send less", status=400, reason="bad-request"
        )
    try:
        found = strict_json(body)
        if b"\\ud" in body.lower():  # half of a surrogate pair is no character, and cannot be written anywhere
            json.dumps(found, ensure_ascii=False).encode()
    except NotJson as error:
        raise HttpError(f"the body is not JSON: {error}", status=400, reason="json_invalid") from None
    except UnicodeError:
        raise HttpError("the body is not text in UTF-8", status=400, reason="bad-request") from None
    except (ValueError, RecursionError) as error:
        raise HttpError(f"the body is not JSON by the letter: {error}", status=400, reason="bad-request") from None
    return found


class _StrictRequest(Request):
    """A request whose body was understood before FastAPI asks for it."""

    _understood: BaseModel | None = None

    async def understand(self, kind: type[BaseModel], limit: CapacityLimiter) -> None:
        """Read and understand the body, in a thread; an empty one, and one that is no JSON, are left to FastAPI."""
        if _JSON.fullmatch(self.headers.get("content-type", "")) is None:
            return
        parts = [part async for part in self.stream()]
        self._body = b"".join(parts)
        parts.clear()
        if self._body:
            self._understood = await run_sync(understood, kind, self._body, limiter=limit)
            self._body = b"-"  # FastAPI asks only whether there is one
        over: Callable[[], None] = self.scope.get(READ, lambda: None)
        over()

    async def json(self) -> Any:
        """What was understood. Raises `ValueError`, which becomes 400, if that was nothing."""
        if self._understood is None:
            raise ValueError("not JSON")
        return self._understood


class StrictRoute(APIRoute):
    """A route whose requests say one thing to every reader."""

    def get_route_handler(self) -> Any:
        """The usual handler, over a request whose body was read strictly."""
        handler = super().get_route_handler()
        kind: Any = self.body_field.field_info.annotation if self.body_field else None

        async def handle(request: Request) -> Response:
            strict = _StrictRequest(request.scope, request.receive)
            if kind is not None:
                await strict.understand(kind, _limit())
            return await handler(strict)

        return handle


_limiter: RunVar[CapacityLimiter] = RunVar("soupmix_bodies")


def _limit() -> CapacityLimiter:
    """One for each event loop."""
    try:
        return _limiter.get()
    except LookupError:
        made = CapacityLimiter(_AT_ONCE)
        _limiter.set(made)
        return made
