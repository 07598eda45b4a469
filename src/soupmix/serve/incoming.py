"""What is read of a request, and how much: a body whole or not at all, of a stranger nothing that is kept."""

import asyncio
from contextlib import suppress
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from soupmix.openai.errors import HttpError
from soupmix.serve.bodies import Part

__all__ = ["Incoming"]

_COURTESY: Final = 1.0  # seconds in which a client that is refused may finish sending, so that it reads why


class Incoming:
    """The body of a request.

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

    async def body(self, part: Part) -> bytes:
        """All of it. Raises `HttpError` (413, it is too large; 408, it takes too long), or as `Part.take` does."""
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
                    part.take(len(parts[-1]))
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
