"""The feasible sets of a policy, one for each kind of request, compiled when somebody asks for the first time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Self

from soupmix.policy.assembly import Placed
from soupmix.policy.kinds import Kinds, stated
from soupmix.policy.pieces import Choice, Piece
from soupmix.policy.recent import Recent
from soupmix.policy.region import Region
from soupmix.policy.space import Space

__all__ = ["Regions"]

_ROWS = 20_000  # of all that are kept, under a kilobyte each
_TRIED = 64  # kinds of requests that are compiled at a load; the others before their first clamp


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Feasible sets by kind of request; the last used are kept. Safe to share between threads.

    Attributes:
        kinds: which pieces of rules apply to whom. defaults: the pieces that apply to everybody.
    """

    kinds: Kinds
    defaults: tuple[Piece, ...]
    space: Space
    kept: Recent[int, Region] = field(init=False, default_factory=lambda: Recent(_ROWS, lambda region: region.size))

    @classmethod
    def of(cls, rules: Sequence[Placed], defaults: Sequence[Piece], space: Space) -> Self:
        """The feasible sets under these rules."""
        return cls(Kinds.of(rules), tuple(defaults), space)

    def pieces(self, kind: int) -> list[Piece]:
        """Everything that holds for requests of a kind."""
        return [*self.defaults, *self.kinds.chosen(kind)]

    def region(self, kind: int) -> Region:
        """The feasible set of a kind. Raises PolicyError as `Region.compile` does."""
        # Keyed by which pieces apply, not by what the request says: a stranger cannot grow what is kept with new values.
        return self.kept.get(kind) or self.kept.keep(kind, Region.compile(self.pieces(kind), self.space))

    def check(self, rules: Sequence[Placed]) -> None:
        """Compile the smallest set of all, of requests that state nothing, and then the costliest: where fewer choices hold, more
        may be left to decide between. Raises PolicyError as `Region.compile` does.
        """
        for attributes in islice(stated([rule.within for rule in rules if rule.of(Choice)]), _TRIED):
            self.region(self.kinds.kind(attributes, {}))
