"""What a server is told once, at its start."""

from dataclasses import dataclass

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits and manners of a server.

    Attributes:
        model: name under which the base model is asked for. method: how adapters are merged, "delta" or "factor".
        no_auth: nobody needs a key; only for a server that listens on this machine alone.
        body: most bytes of a request. bodies: of all that are being read, half of them for one tenant.
        answers: most answers of one request (n times prompts).
        share: most answers of one tenant at once, waiting or running; None is no limit.
        adapters: most weights of one request. tokens: of an answer whose length is not said.
        refusals: of one key that are recorded one by one in a minute; beyond, they are counted on record.
        profiles: most of them per tenant. pieces: of an answer that a reader may be behind.
        patience: seconds that a client may take to send its request, or to take the next part of an answer.
        drain: seconds that running answers have when the server ends.
        origins: web origins that browsers may call from; none by default.
    """

    model: str
    method: str = "delta"
    no_auth: bool = False
    body: int = 1 << 20
    bodies: int = 64 << 20
    answers: int = 8
    share: int | None = None
    adapters: int = 64
    tokens: int = 256
    refusals: int = 60
    profiles: int = 100_000
    pieces: int = 256
    patience: float = 30.0
    drain: float = 30.0
    origins: tuple[str, ...] = ()
