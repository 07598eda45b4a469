"""Kinds of requests and their feasible sets: requests to which the same constraints apply are of one kind, and have one set."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Self

from soupmix.policy.assembly import PlacedRule
from soupmix.policy.documents import RuleRef
from soupmix.policy.recent import Recent
from soupmix.policy.rules import ATTRIBUTES, Within, applies
from soupmix.projection import AnyConstraint, Ball, Choice, Constraint, Region, Space

__all__ = ["Kinds", "Regions", "stated"]

_ELSEWHERE = "any-other-value"
_ROWS = 20_000  # of all that are kept, under a kilobyte each
_TRIED = 64  # kinds of requests that are compiled at a load; the others before their first clamp


@dataclass(frozen=True, slots=True)
class Kinds:
    """Which constraints apply to a request, as a number with a bit for every constraint.

    Attributes:
        constraints: of all rules, in order; constraint i has bit i.
        always: bits of rules for everybody. scoped: for whom a rule holds, and its bits.
        by_source: (bit, coordinate, sources): the constraint does not apply if that weight comes from one of the sources.
        balls: (bit, bound on the norm), the smallest first.
    """

    constraints: tuple[AnyConstraint, ...]
    always: int
    scoped: tuple[tuple[Within, int], ...]
    by_source: tuple[tuple[int, int, tuple[str, ...]], ...]
    balls: tuple[tuple[int, Ball], ...]

    @classmethod
    def of(cls, rules: Sequence[PlacedRule]) -> Self:
        """The kinds that these rules tell apart."""
        constraints: list[AnyConstraint] = []
        by_source: list[tuple[int, int, tuple[str, ...]]] = []
        always, scoped = 0, []
        for rule in rules:
            bits = (1 << len(rule.constraints)) - 1 << len(constraints)
            if rule.exempt:
                by_source += [
                    (1 << place, each.coefs.index(1), rule.exempt)
                    for place, each in enumerate(rule.constraints, len(constraints))
                    if isinstance(each, Constraint)
                ]
            constraints += rule.constraints
            if rule.within:
                scoped.append((rule.within, bits))
            else:
                always |= bits
        balls = [(1 << place, each) for place, each in enumerate(constraints) if isinstance(each, Ball)]
        balls.sort(key=lambda held: (held[1].share, held[1].rule.key))
        return cls(tuple(constraints), always, tuple(scoped), tuple(by_source), tuple(balls))

    def kind(self, attributes: Mapping[str, str], sources: Mapping[int, str]) -> int:
        """The kind of a request with these attributes, and sources by coordinate."""
        found = self.always
        for limits, bits in self.scoped:
            if applies(limits, attributes):
                found |= bits
        if sources:
            for bit, coordinate, exempt in self.by_source:
                if sources.get(coordinate) in exempt:
                    found &= ~bit
        return found

    def chosen(self, kind: int) -> list[AnyConstraint]:
        """The constraints that apply to requests of a kind."""
        return [each for place, each in enumerate(self.constraints) if kind >> place & 1]

    def ball(self, kind: int) -> Ball | None:
        """The smallest bound on the norm that applies to requests of a kind."""
        return next((each for bit, each in self.balls if kind & bit), None)


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """The feasible sets of a policy by kind of request, compiled when somebody asks for the first time; the last used are kept.

    Safe to share between threads.

    Attributes:
        rules: of all documents. defaults: constraints that apply to everybody. space: the adapters as coordinates.
    """

    rules: tuple[PlacedRule, ...]
    defaults: tuple[AnyConstraint, ...]
    space: Space
    kinds: Kinds = field(init=False)
    kept: Recent[int, Region] = field(init=False, default_factory=lambda: Recent(_ROWS, lambda region: region.size))

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", Kinds.of(self.rules))

    def without(self, rule: RuleRef) -> "Regions":
        """The feasible sets with one rule left out, to see what the rule does."""
        return Regions(tuple(each for each in self.rules if each.ref != rule), self.defaults, self.space)

    def constraints(self, kind: int) -> list[AnyConstraint]:
        """Everything that holds for requests of a kind."""
        return [*self.defaults, *self.kinds.chosen(kind)]

    def region(self, kind: int) -> Region:
        """The feasible set of a kind. Raises PolicyError as `Region.compile` does."""
        # Keyed by which constraints apply, not by what the request says: a stranger cannot grow what is kept with new values.
        return self.kept.get(kind) or self.kept.keep(kind, Region.compile(self.constraints(kind), self.space))

    def check(self) -> None:
        """Compile the smallest set of all, of requests that state nothing, and then the costliest: where fewer choices hold, more
        may be left to decide between. Raises PolicyError as `Region.compile` does.
        """
        for attributes in islice(stated([rule.within for rule in self.rules if rule.of(Choice)]), _TRIED):
            self.region(self.kinds.kind(attributes, {}))


def stated(scopes: Iterable[Within]) -> Iterator[dict[str, str]]:
    """Attributes as requests may state them, one of every kind that these scopes tell apart; the first states none."""
    values: dict[str, list[str | None]] = {key: [None] for key in ATTRIBUTES}
    for key, listed in (limit for scope in scopes for limit in scope):
        values[key] += [value for value in listed if value not in values[key]]
    for known in values.values():
        known += [_ELSEWHERE] if len(known) > 1 else []
    for chosen in product(*values.values()):
        yield {key: value for key, value in zip(values, chosen, strict=True) if value is not None}
