"""Kinds of requests: those to which the same pieces apply have one feasible set, whatever else they say of themselves."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Self

from soupmix.policy.assembly import Placed
from soupmix.policy.pieces import Ball, Constraint, Piece
from soupmix.policy.rules import ATTRIBUTES, Within, applies

__all__ = ["Kinds", "stated"]

_ELSEWHERE = "any-other-value"


@dataclass(frozen=True, slots=True)
class Kinds:
    """Which pieces of rules apply to a request, as a number with a bit for every piece.

    Attributes:
        pieces: of all rules, in order; piece i has bit i.
        always: bits of rules for everybody. scoped: for whom a rule holds, and its bits.
        minding: (bit, adapter, sources for which the piece does not hold). balls: (bit, piece), the smallest ball first.
    """

    pieces: tuple[Piece, ...]
    always: int
    scoped: tuple[tuple[Within, int], ...]
    minding: tuple[tuple[int, int, tuple[str, ...]], ...]
    balls: tuple[tuple[int, Ball], ...]

    @classmethod
    def of(cls, rules: Sequence[Placed]) -> Self:
        """The kinds that these rules tell apart."""
        pieces: list[Piece] = []
        always, scoped = 0, []
        for rule in rules:
            bits = (1 << len(rule.pieces)) - 1 << len(pieces)
            pieces += rule.pieces
            if rule.within:
                scoped.append((rule.within, bits))
            else:
                always |= bits
        minding = [
            (1 << place, each.minds, each.unless)
            for place, each in enumerate(pieces)
            if isinstance(each, Constraint) and each.minds is not None
        ]
        balls = [(1 << place, each) for place, each in enumerate(pieces) if isinstance(each, Ball)]
        balls.sort(key=lambda held: (held[1].share, held[1].rule))
        return cls(tuple(pieces), always, tuple(scoped), tuple(minding), tuple(balls))

    def kind(self, attributes: Mapping[str, str], sources: Mapping[int, str]) -> int:
        """The kind of a request with these attributes, and sources by adapter index."""
        found = self.always
        for limits, bits in self.scoped:
            if applies(limits, attributes):
                found |= bits
        if sources:
            for bit, adapter, unless in self.minding:
                if sources.get(adapter) in unless:
                    found &= ~bit
        return found

    def chosen(self, kind: int) -> list[Piece]:
        """The pieces that apply to requests of a kind."""
        return [each for place, each in enumerate(self.pieces) if kind >> place & 1]

    def ball(self, kind: int) -> Ball | None:
        """The smallest bound on the norm that applies to requests of a kind."""
        return next((each for bit, each in self.balls if kind & bit), None)


def stated(scopes: Iterable[Within]) -> Iterator[dict[str, str]]:
    """Attributes as requests may state them, one of every kind that these scopes tell apart; the first states none."""
    values: dict[str, list[str | None]] = {key: [None] for key in ATTRIBUTES}
    for key, listed in (limit for scope in scopes for limit in scope):
        values[key] += [value for value in listed if value not in values[key]]
    for known in values.values():
        known += [_ELSEWHERE] if len(known) > 1 else []
    for chosen in product(*values.values()):
        yield {key: value for key, value in zip(values, chosen, strict=True) if value is not None}
