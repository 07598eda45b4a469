"""JSON by the letter, for every request with a body."""

import json
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from soupmix.files import strict_json

__all__ = ["StrictRoute"]


class _StrictRequest(Request):
    async def json(self) -> Any:
        """The body, if it is JSON by the letter: no key twice, no NaN, no half characters.

        Raises `ValueError`, which becomes 400.
        """
        body = await self.body()
        found = strict_json(body)
        if b"\\ud" in body.lower():  # half of a surrogate pair is no character, and cannot be written anywhere
            json.dumps(found, ensure_ascii=False).encode()
        return found


class StrictRoute(APIRoute):
    """A route whose requests say one thing to every reader."""

    def get_route_handler(self) -> Any:
        """The usual handler, over a request that reads JSON strictly."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return handle
