"""A server in a thread of the test, and clients that are closed with it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai

from soupmix.backends.local import LocalBackend
from soupmix.engine import Engine
from soupmix.serve.keys import ApiKeys
from soupmix.serve.server import Server
from soupmix.serve.state import ServerConfig, ServerState, open_server
from soupmix.serve.tables import open_database

MODEL = "tiny"
POLICY = """\
tier: organisation
issuer: Example
version: '1'
rules:
- {id: calm-minors, rule: bounds, adapter: loud, at_most: '0.25', scope: {audience: [minor]}, public_reason: not so loud,
   internal_reason: case 17}
- {id: never-plain, rule: deny, adapter: plain, mode: refuse, scope: {purpose: [support]}}
obligations:
- {oblige: disclose, what: ai}
- {oblige: log, level: grants}
"""


@dataclass
class Running:
    """A server that runs, and keys to call it with by tenant."""

    state: ServerState
    url: str
    keys: dict[str, str] = field(default_factory=dict)
    stop: Callable[[], None] = lambda: None
    _clients: dict[str, openai.OpenAI] = field(default_factory=dict)

    @property
    def engine(self) -> Engine:
        """What answers behind a `LocalBackend`: an oracle by its own loop."""
        backend = self.state.backend
        assert isinstance(backend, LocalBackend)
        return backend.engine

    def http(self, tenant: str | None = "acme", **options: Any) -> httpx.Client:
        """A bare HTTP client with the tenant's key."""
        headers = {"Authorization": f"Bearer {self.keys[tenant]}"} if tenant else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, **options)

    def openai(self, tenant: str = "acme") -> openai.OpenAI:
        """The unmodified OpenAI client, with a tenant's key or any other."""
        if tenant not in self._clients:
            self._clients[tenant] = openai.OpenAI(
                base_url=f"{self.url}/v1", api_key=self.keys.get(tenant, tenant), max_retries=0
            )
        return self._clients[tenant]

    def close(self) -> None:
        """Close the clients."""
        for client in self._clients.values():
            client.close()


@contextmanager
def running(config: ServerConfig) -> Iterator[Running]:
    """Run a server in a thread."""
    database = open_database(config.database)
    keys = ApiKeys(database)
    made = {
        "acme": keys.create("acme", operator=True),
        "beta": keys.create("beta"),
        "school": keys.create("school", {"audience": "minor"}),
    }
    database.dispose()
    with open_server(config) as state:
        server = Server(state, "127.0.0.1", 0)
        thread = threading.Thread(target=server.run)
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        client = Running(state, f"http://127.0.0.1:{server.port}", made, lambda: setattr(server, "should_exit", True))
        try:
            yield client
        finally:
            client.close()
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()
