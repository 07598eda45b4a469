"""What every request passes first and last: who calls and from where, limits of size and time, an id, a log line, a count."""

import asyncio
import re
import secrets
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from soupmix.errors import Overloaded, SoupmixError
from soupmix.openai.errors import HttpError
from soupmix.serve.auth import REQUEST, recognise
from soupmix.serve.logs import LOGGER, tell
from soupmix.serve.responses import error_response, refusal_response
from soupmix.serve.shares import BodyShare
from soupmix.serve.state import OPEN_PATHS, ServerState
from soupmix.serve.strict import READ

__all__ = ["IncomingBody", "RequestGate", "check_host", "check_site"]

_UNKNOWN: Final = "unknown"
_COURTESY: Final = 1.0  # seconds in which a client that is refused may finish sending, so that it reads why
_LOCAL: Final = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE | re.ASCII)
_SAFE: Final = ("GET", "HEAD", "OPTIONS")  # change nothing; what they answer no page elsewhere may read
_OWN: Final = ("same-origin", "none")  # of a page of this server, and of whoever types an address


class IncomingBody:
    """The body of a request: read whole or not at all, and of a stranger nothing is kept.

    Attributes:
        whole: whether all of it was read, so that another request may come behind it on the same connection.
    """

    def __init__(self, scope: Scope, receive: Receive, *, most: int, patience: float) -> None:
        """At most `most` bytes, within `patience` seconds."""
        self._headers, self._receive, self._most, self._patience = Headers(scope=scope), receive, most, patience
        self._expected = "transfer-encoding" in self._headers or self._headers.get("content-length", "0") != "0"
        self._odd = "transfer-encoding" in self._headers and (
            "content-length" in self._headers or scope["http_version"] != "1.1"
        )
        self._over = False
        self.whole = not self._expected

    def check(self) -> None:
        """Raise `HttpError` 400 (reason "bad-framing") for a body of which two readers could see two ends."""
        if self._odd:
            self._over = True
            raise HttpError(
                "a request says the length of its body once: by Content-Length, or by Transfer-Encoding in HTTP/1.1",
                status=400,
                reason="bad-framing",
            )

    async def body(self, share: BodyShare) -> bytes:
        """All of it. Raises `HttpError` (413, it is too large; 408, it takes too long), or as `BodyShare.take` does."""
        parts, size = [], 0
        declared = self._headers.get("content-length", "0")
        if declared.isdecimal() and int(declared[:20]) > self._most:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    parts.append(await self._next())
                    size += len(parts[-1])
                    if size > self._most:
                        raise self._too_large()
                    share.take(len(parts[-1]))
                    if self.whole:
                        return b"".join(parts)
        except TimeoutError:
            self._over = True
            raise HttpError("the request took too long to arrive", status=408, reason="slow-request") from None

    async def skip(self) -> None:
        """Read on for a moment and keep nothing: a client that is hung up on while it sends never hears why."""
        left = 0 if self._over or "expect" in self._headers else self._most
        with suppress(TimeoutError, HttpError):
            async with asyncio.timeout(_COURTESY):
                while not self.whole and left > 0:
                    left -= len(await self._next())

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._over = True
            raise HttpError("the client has gone", status=499, reason="client-gone")
        self.whole = not message.get("more_body")
        found: bytes = message.get("body", b"")
        return found

    def replay(self, body: bytes) -> Receive:
        """What was read already, then whatever comes."""
        read = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return read.pop() if read else await self._receive()

        return again

    def _too_large(self) -> HttpError:
        return HttpError(f"the request has more than {self._most} bytes; send less", status=413, reason="too-large")


class RequestGate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name, started, settings = f"req_{secrets.token_hex(12)}", time.monotonic(), self._state.settings
        incoming = IncomingBody(scope, receive, most=settings.body, patience=settings.patience)
        out = _Out(send, name, settings.patience, incoming)
        scope[REQUEST] = name
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

    def _check(self, scope: Scope, incoming: IncomingBody) -> None:
        """Refuse what is not taken at all. Raises `SoupmixError`."""
        incoming.check()
        if self._state.closing.is_set() and scope["path"] not in OPEN_PATHS:
            raise Overloaded("the server is closing; ask again in a moment", reason="draining", retry_after=5.0)
        if self._state.settings.no_auth:
            headers = Headers(scope=scope)
            check_host(headers)
            check_site(scope["method"], headers, self._state.settings.origins)

    async def _pass(self, scope: Scope, incoming: IncomingBody, out: Send) -> None:
        """Read the body of whoever is known, and hold it until it is understood; a stranger has none."""
        caller = await recognise(self._state, scope)
        if caller is None:
            await incoming.skip()
            await self._app(scope, incoming.replay(b""), out)
            return
        with self._state.bodies.share(caller.tenant) as share:
            scope[READ] = share.give_back
            await self._app(scope, incoming.replay(await incoming.body(share)), out)

    def _count(self, scope: Scope, name: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", _UNKNOWN)
        method = scope["method"] if route != _UNKNOWN else _UNKNOWN  # whatever a stranger calls it, it is one label
        self._state.metrics.requests.labels(route, method, str(status)).inc()
        self._state.metrics.seconds.labels(route).observe(seconds)
        tell(
            "request",
            id=name,
            method=method,
            route=route,
            status=status,
            seconds=round(seconds, 4),
            tenant=scope.get("soupmix.tenant"),
        )


def check_host(headers: Headers) -> None:
    """Raise `HttpError` 403 (reason "wrong-host") for a name that leads here and is not this machine's own."""
    if not _LOCAL.fullmatch(headers.get("host", "")):
        raise HttpError(
            "without API keys this server answers to the name localhost only", status=403, reason="wrong-host"
        )


def check_site(method: str, headers: Headers, origins: Collection[str]) -> None:
    """Raise `HttpError` 403 (reason "cross-site") for what a page of another origin asks, unless that origin is named.

    For a server without keys: a page in the same browser could otherwise ask in its reader's name.
    Browsers say where a request that may change something comes from, and no page can say otherwise; programs say nothing.
    """
    if method in _SAFE:
        return
    said, host = headers.getlist("origin"), headers.get("host", "").lower()
    if said and all(each in origins for each in said):
        return
    own = all(each.lower() in (f"http://{host}", f"https://{host}") for each in said)
    if not own or any(each not in _OWN for each in headers.getlist("sec-fetch-site")):
        raise HttpError(
            "without API keys this server takes nothing from pages of another origin; name it with --origin, or use keys",
            status=403,
            reason="cross-site",
        )


class _Out:
    """The way out: every answer has the request's id, and nobody is waited for longer than `patience` seconds."""

    def __init__(self, send: Send, name: str, patience: float, incoming: IncomingBody) -> None:
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
