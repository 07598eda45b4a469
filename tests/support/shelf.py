"""Adapters that tests of policies speak of, and the day on which they do."""

from dataclasses import dataclass
from datetime import date
from hashlib import sha256

TODAY = date(2026, 11, 24)


@dataclass(frozen=True)
class Ref:
    name: str
    dimension: str
    pole: str
    digest: str
    tags: tuple[str, ...] = ()


class Shelf(tuple[Ref, ...]):
    total_budget: int | None = 1_500_000


def digest_of(text: str) -> str:
    return f"sha256:{sha256(text.encode()).hexdigest()}"


SHELF = Shelf(
    Ref(name, dimension, name, digest_of(name), tags)
    for name, dimension, tags in [
        ("elementary", "expertise", ()),
        ("expert", "expertise", ("technical",)),
        ("concise", "length", ()),
        ("informative", "length", ("technical",)),
        ("friendly", "style", ()),
        ("unfriendly", "style", ("rude",)),
    ]
)
NAMES = [ref.name for ref in SHELF]
