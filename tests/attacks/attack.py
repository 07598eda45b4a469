"""What an attack is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from soupmix.errors import SoupmixError


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack and how it must end.

    Attributes:
        name: unique. tries: what the attacker hopes for, in a few words.
        run: builds it in an empty folder and lets soupmix at it.
        error: the exception, reason: its code.
    """

    name: str
    tries: str
    run: Callable[[Path], object]
    error: type[SoupmixError]
    reason: str
