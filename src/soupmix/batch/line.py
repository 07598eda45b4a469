"""One line of a batch, whatever file it stands in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from soupmix.errors import RecipeError

__all__ = ["CHAT", "COMPLETIONS", "Line", "bounded_lines"]

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Line:
    """What one line of the input asks.

    Attributes:
        number: its place, from 0. custom_id: what its result is found by, if it said so.
        url: which of OpenAI's endpoints. body: the request, not yet checked.
        error: why it cannot be read; then the rest means nothing.
    """

    number: int
    custom_id: str | None = None
    url: str = CHAT
    body: Mapping[str, Any] = field(default_factory=dict)
    error: RecipeError | None = None


def bounded_lines(file: BinaryIO, limit: int) -> Iterator[bytes | None]:
    """The lines of a file without their line feeds; None for one of more than `limit` bytes, which is never held."""
    while raw := file.readline(limit + 1):
        if raw.endswith(b"\n") or len(raw) <= limit:
            yield raw.removesuffix(b"\n")
            continue
        while raw and not raw.endswith(b"\n"):
            raw = file.readline(_CHUNK)
        yield None
