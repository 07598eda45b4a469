"""The addresses that a server will listen on: taken before a model is loaded, so that a mistake is told at once.

Nobody can connect before uvicorn listens there: whoever asks meanwhile is refused, and does not wait.
"""

import errno
import socket
from contextlib import ExitStack

from soupmix.errors import SoupmixError

__all__ = ["bound"]

_WHY = {
    errno.EADDRINUSE: "another program listens there; end that, or choose another port with --port (0 is any that is free)",
    errno.EACCES: "this user may not listen there; choose a port of 1024 or more with --port",
    errno.EADDRNOTAVAIL: "this machine does not have the address; choose another with --host",
}


def bound(host: str, port: int) -> list[socket.socket]:
    """Sockets with every address of a host and this port, not listening yet; with port 0 all have one that is free.

    Raises:
        SoupmixError: the host has no address (reason "no-such-host"), or one cannot be taken ("port-taken").
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise SoupmixError(f"{host} is no address of this machine: {error}", reason="no-such-host") from None
    with ExitStack() as stack:
        made: list[socket.socket] = []
        for family, kind, protocol, _, address in dict.fromkeys(found):
            each = stack.enter_context(socket.socket(family, kind, protocol))
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                each.bind((address[0], port or _port(made), *address[2:]))
            except OSError as error:
                why = _WHY.get(error.errno or 0, error.strerror)
                raise SoupmixError(f"cannot listen on port {port} of {host}: {why}", reason="port-taken") from None
            made.append(each)
        stack.pop_all()
    return made


def _port(made: list[socket.socket]) -> int:
    return int(made[0].getsockname()[1]) if made else 0
