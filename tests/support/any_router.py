"""A router that knows nothing of what it carries: each connection goes to the next address that takes it."""

import itertools
import socket
import socketserver
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Thread

__all__ = ["router"]

Address = tuple[str, int]


@contextmanager
def router(addresses: Sequence[Address]) -> Iterator[str]:
    """The URL of one that listens."""
    turns = itertools.count()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            first = next(turns)
            for number in range(len(addresses)):
                with suppress(ConnectionRefusedError):
                    there = socket.create_connection(addresses[(first + number) % len(addresses)])
                    break
            else:
                return
            with there:
                back = Thread(target=_pump, args=(there, self.request), daemon=True)
                back.start()
                _pump(self.request, there)
                back.join()

    class Router(socketserver.ThreadingTCPServer):
        daemon_threads, allow_reuse_address, request_queue_size = True, True, 128

    with Router(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _pump(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
    with suppress(OSError):
        other.shutdown(socket.SHUT_WR)
