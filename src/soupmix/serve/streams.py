"""A stream of server-sent events that always says when it is over, however it ends."""

from collections.abc import AsyncIterator, Callable

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

__all__ = ["EventStream"]


class EventStream(StreamingResponse):
    """Events, and what is to be done when they end: all sent, the client gone, or nobody reading."""

    def __init__(self, events: AsyncIterator[bytes], over: Callable[[], None]) -> None:
        """`over` is called at the end; it may have been called before."""
        super().__init__(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        )
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._over()
