"""What every request passes first and last: who calls, limits of size and time, an id, a line in the log, a count."""

import asyncio
import secrets
import time
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from soupmix.errors import Overloaded, SoupmixError
from soupmix.serve.auth import recognise
from soupmix.serve.house import OPEN_PATHS, House
from soupmix.serve.incoming import Incoming
from soupmix.serve.logs import LOGGER, tell
from soupmix.serve.origins import check_host, check_site
from soupmix.serve.responses import error_response, refusal_response
from soupmix.serve.strict import READ

__all__ = ["FrontDoor"]

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
        name, started, settings = f"req_{secrets.token_hex(12)}", time.monotonic(), self._house.settings
        incoming = Incoming(scope, receive, most=settings.body, patience=settings.patience)
        out = _Out(send, name, settings.patience, incoming)
        try:
            self._check(scope, incoming)
            await self._pass(scope, incoming, out)
        except SoupmixError as error:
            await incoming.skip()
            await refusal_response(error)(scope, receive, out)
        except TimeoutError:
            out.status = out.status or 499  # whoever does not read is not written to
        except Exception:  # noqa: BLE001  # the outermost edge: a fault in here is one answer, not the end of the server
            LOGGER.exception("a fault of this server", extra={"fields": {"id": name}})
            if not out.status:
                await error_response("a fault of this server; it is in its log", 500, "fault")(scope, receive, out)
        finally:
            self._count(scope, name, out.status, time.monotonic() - started)

    def _check(self, scope: Scope, incoming: Incoming) -> None:
        """Refuse what is not taken at all. Raises `SoupmixError`."""
        incoming.check()
        if self._house.closing.is_set() and scope["path"] not in OPEN_PATHS:
            raise Overloaded("the server is closing; ask again in a moment", reason="draining", retry_after=5.0)
        if self._house.settings.no_auth:
            headers = Headers(scope=scope)
            check_host(headers)
            check_site(scope["method"], headers, self._house.settings.origins)

    async def _pass(self, scope: Scope, incoming: Incoming, out: Send) -> None:
        """Read the body of whoever is known, and hold it until it is understood; a stranger has none."""
        caller = await recognise(self._house, scope)
        if caller is None:
            await incoming.skip()
            await self._app(scope, incoming.replay(b""), out)
            return
        with self._house.bodies.part(caller.tenant) as part:
            scope[READ] = part.give_back
            await self._app(scope, incoming.replay(await incoming.body(part)), out)

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

    def __init__(self, send: Send, name: str, patience: float, incoming: Incoming) -> None:
        self._send, self._name, self._patience, self._incoming = send, name, patience, incoming
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self._name
            headers["x-content-type-options"] = "nosniff"
            if not self._incoming.whole:  # what is left of the body is not read, so nothing behind it can be
                headers["connection"] = "close"
        async with asyncio.timeout(self._patience):
            await self._send(message)
