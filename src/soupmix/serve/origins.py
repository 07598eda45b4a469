"""Where a request comes from, for a server without keys: a page in the same browser could otherwise ask in its reader's name."""

import re
from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers

from soupmix.openai.errors import HttpError

__all__ = ["check_host", "check_site"]

_LOCAL: Final = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE | re.ASCII)
_SAFE: Final = ("GET", "HEAD", "OPTIONS")  # change nothing; what they answer no page elsewhere may read
_OWN: Final = ("same-origin", "none")  # of a page of this server, and of whoever types an address


def check_host(headers: Headers) -> None:
    """Raise `HttpError` 403 (reason "wrong-host") for a name that leads here and is not this machine's own."""
    if not _LOCAL.fullmatch(headers.get("host", "")):
        raise HttpError(
            "without API keys this server answers to the name localhost only", status=403, reason="wrong-host"
        )


def check_site(method: str, headers: Headers, origins: Collection[str]) -> None:
    """Raise `HttpError` 403 (reason "cross-site") for what a page of another origin asks, unless that origin is named.

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
