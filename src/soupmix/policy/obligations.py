"""What an organisation must do when it uses a grant. Composition is union: nobody can take an obligation away."""

import re
from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, WithJsonSchema

from soupmix.fields import Edge, Line
from soupmix.policy.rules import Scope

__all__ = ["Disclose", "Log", "Obligation", "Offer", "Retain", "united"]

_LEVELS: Final = ("refusals", "grants", "requests")


def _parse_days(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,5}", value):
        return int(value)
    raise ValueError(f"{value!r:.40} is not a number of days; write a whole number such as 30")


Days = Annotated[
    int,
    BeforeValidator(_parse_days),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]{1,5}$"}]}),
]


class _Obligation(Edge):
    scope: Scope = Scope()
    public_reason: Line | None = None


class Disclose(_Obligation):
    """Tell the person that it is a machine ("ai"), or that its answers are personalised ("personalisation")."""

    oblige: Literal["disclose"]
    what: Literal["ai", "personalisation"]


class Log(_Obligation):
    """Keep an audit record of at least refusals, of grants too, or of every request; the strictest holds."""

    oblige: Literal["log"]
    level: Literal["refusals", "grants", "requests"]


class Retain(_Obligation):
    """Keep records and profiles for at most so many days; the shortest holds."""

    oblige: Literal["retain"]
    days: Days


class Offer(_Obligation):
    """Offer a way out: "opt-out" of personalisation, "erasure" of a profile, "export" of it."""

    oblige: Literal["offer"]
    what: Literal["opt-out", "erasure", "export"]


Obligation = Disclose | Log | Retain | Offer


def united(obligations: Iterable[Obligation]) -> tuple[str, ...]:
    """All obligations as sorted words, such as "disclose ai", "log requests", "offer opt-out", "retain 30"."""
    given = list(obligations)
    words = {f"{each.oblige} {each.what}" for each in given if isinstance(each, Disclose | Offer)}
    levels = [_LEVELS.index(each.level) for each in given if isinstance(each, Log)]
    days = [each.days for each in given if isinstance(each, Retain)]
    words |= {f"log {_LEVELS[max(levels)]}"} if levels else set()
    words |= {f"retain {min(days)}"} if days else set()
    return tuple(sorted(words))
