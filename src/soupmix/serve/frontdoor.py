"""What every request passes first and last: an id, limits of size and time, a line in the log, a count."""

import asyncio
import re
import secrets
import time
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from soupmix.errors import Overloaded, SoupmixError
from soupmix.serve.errors import HttpError
from soupmix.serve.house import OPEN_PATHS, House
from soupmix.serve.logs import LOGGER, tell
from soupmix.serve.responses import error_response, refusal_response

__all__ = ["FrontDoor"]

_LOCAL: Final = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE | re.ASCII)
_UNKNOWN: Final = "unknown"


class FrontDoor:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, house: House) -> None:
        self._app, self._house = app, house

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name, started = f"req_{secrets.token_hex(12)}", time.monotonic()
        out = _Out(send, name, self._house.settings.patience)
        try:
            self._check(scope)
            body = await self._body(Headers(scope=scope), receive)
            await self._app(scope, _replay(body, receive), out)
        except SoupmixError as error:
            await refusal_response(error)(scope, receive, out)
        except TimeoutError:
            out.status = out.status or 499  # whoever does not read is not written to
        except Exception:  # noqa: BLE001  # the outermost edge: a fault in here is one answer, not the end of the server
            LOGGER.exception("a fault of this server", extra={"fields": {"id": name}})
            if not out.status:
                await error_response("a fault of this server; it is in its log", 500, "fault")(scope, receive, out)
        finally:
            self._count(scope, name, out.status, time.monotonic() - started)

    def _check(self, scope: Scope) -> None:
        """Refuse what is not taken at all. Raises `SoupmixError`."""
        if self._house.closing.is_set() and scope["path"] not in OPEN_PATHS:
            raise Overloaded("the server is closing; ask again in a moment", reason="draining", retry_after=5.0)
        if self._house.settings.no_auth and not _LOCAL.fullmatch(Headers(scope=scope).get("host", "")):
            # a page whose name leads here could otherwise ask on behalf of whoever reads it
            raise HttpError(
                "without API keys this server answers to the name localhost only", status=403, reason="wrong-host"
            )

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """The whole request. Raises `HttpError`: 413, it is too large; 408, it takes too long."""
        most, parts, size = self._house.settings.body, [], 0
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared[:20]) > most:
            raise _too_large(most)
        try:
            async with asyncio.timeout(self._house.settings.patience):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise HttpError("the client has gone", status=499, reason="client-gone")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise _too_large(most)
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise HttpError("the request took too long to arrive", status=408, reason="slow-request") from None

    def _count(self, scope: Scope, name: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", _UNKNOWN)
        method = scope["method"] if route != _UNKNOWN else _UNKNOWN  # whatever a stranger calls it, it is one label
        self._house.metrics.requests.labels(route, method, str(status)).inc()
        self._house.metrics.seconds.labels(route).observe(seconds)
        tell(
            "request",
            id=name,
            method=method,
            route=route,
            status=status,
            seconds=round(seconds, 4),
            tenant=scope.get("soupmix.tenant"),
        )


class _Out:
    """The way out: every answer has the request's id, and nobody is waited for longer than `patience` seconds."""

    def __init__(self, send: Send, name: str, patience: float) -> None:
        self._send, self._name, self._patience = send, name, patience
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self._name
            headers["x-content-type-options"] = "nosniff"
        async with asyncio.timeout(self._patience):
            await self._send(message)


def _replay(body: bytes, receive: Receive) -> Receive:
    """What was read already, then whatever comes."""
    read = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return read.pop() if read else await receive()

    return again


def _too_large(most: int) -> HttpError:
    return HttpError(f"the request has more than {most} bytes; send less", status=413, reason="too-large")
