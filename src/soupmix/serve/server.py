"""uvicorn, ended gracefully: nothing new is taken, what runs may finish, and what does not is told so."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from soupmix.serve.app import application
from soupmix.serve.logs import tell
from soupmix.serve.reload import reload_quietly
from soupmix.serve.state import ServerState

__all__ = ["Server"]

_GRACE = 10  # seconds for the last bytes of answers that are over


class Server(uvicorn.Server):
    """One process, one event loop, one engine. SIGTERM and SIGINT end it, SIGHUP reads the policy again."""

    def __init__(
        self, state: ServerState, host: str, port: int, ready: Callable[[int], object] = lambda port: None
    ) -> None:
        """Port 0 is any that is free; `port` says which. `ready` is called with it once the server listens."""
        super().__init__(
            uvicorn.Config(
                application(state),
                host=host,
                port=port,
                http="h11",  # one reader of HTTP, whatever else is installed: what it lets through is tested
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=_GRACE,
            )
        )
        self._state, self._ready = state, ready

    @property
    def port(self) -> int:
        """Where it listens, once it has started."""
        found: int = self.servers[0].sockets[0].getsockname()[1]
        return found

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        if self.started:
            held, answers = self._state.policies.held, self._state.backend.state()
            tell(
                "listening",
                host=self.config.host,
                port=self.port,
                model=self._state.settings.model,
                loop=answers.loop,
                why=answers.why,
                length=self._state.backend.limits.length,
                policy=held.policy.digest,
                open=held.policy.is_open,
                signed=held.signed,
                notes=list(held.policy.notes),
            )
            self._ready(self.port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new requests, give running answers their time, then close."""
        seconds = self._state.settings.drain
        self._state.closing.set()
        tell("draining", seconds=seconds, running=self._state.backend.state().running)
        for server in self.servers:
            server.close()
        await asyncio.to_thread(self._state.backend.close, drain=seconds)
        await super().shutdown(sockets)
        tell("ended")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end the server and are then over, so that the exit code says whether it ended well."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: whoever started it ends it
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.handle_exit, number, None)
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        yield

    def _reload(self) -> None:
        asyncio.get_running_loop().run_in_executor(None, reload_quietly, self._state)
