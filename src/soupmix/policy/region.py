"""The feasible set of one request: all constraints in scope, compiled, with the clamp onto it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.policy import active_set
from soupmix.policy.constraints import BUILT_IN, Constraint
from soupmix.policy.laminar import Forest, forest
from soupmix.policy.rounding import round_inside
from soupmix.policy.rows import Row, Solution, certified, gather

__all__ = ["Region", "minimal_conflict"]


@dataclass(frozen=True, slots=True)
class Region:
    """A feasible set that is known not to be empty.

    Attributes:
        rows: what a point must satisfy.
        forest: the same rows arranged for the closed form; None where groups overlap without nesting.
    """

    rows: tuple[Row, ...]
    forest: Forest | None = field(repr=False)

    @classmethod
    def compile(cls, constraints: Sequence[Constraint], names: Sequence[str]) -> "Region":
        """Gather constraints over the adapters of these names.

        Raises:
            PolicyError: no point satisfies them all (reason "conflict"); names a minimal set of conflicting rules.
        """
        rows = gather(constraints)
        made = cls(rows, forest(rows, len(names)))
        if made._project([0] * len(names)) is None:
            rules = "; ".join(_told(part, names) for part in minimal_conflict(constraints, len(names)))
            raise PolicyError(
                f"no weights satisfy these rules together: {rules}; change one of them "
                "(for a request that does not state its attributes, the rules of all scopes apply together)",
                reason="conflict",
            )
        return made

    def clamp(self, requested: Sequence[int]) -> tuple[tuple[int, ...], tuple[Constraint, ...]]:
        """The nearest feasible integer point (millionths), and the constraints that hold it back from `requested`.

        Raises:
            PolicyRefusal: the result could not be certified (reason "uncertified"), or no integer point lies beside
                the projection (reason "no-integer-point"; possible only where groups overlap without nesting).
        """
        solution = self._project(requested)
        if solution is None or not certified(requested, self.rows, solution):
            raise PolicyRefusal(
                "the clamped weights could not be certified, so nothing is granted; this is a defect of soupmix, "
                "please report it with the policy and the request",
                reason="uncertified",
            )
        granted = round_inside(solution.weights, self.rows)
        if granted is None or not all(row.holds(row.value(granted)) for row in self.rows):
            raise PolicyRefusal(
                "the rules leave no weights in whole millionths near this request; widen one of the overlapping groups",
                reason="no-integer-point",
            )
        return granted, tuple(self._binding(requested, granted, solution))

    def _project(self, requested: Sequence[int]) -> Solution | None:
        return self.forest.project(requested) if self.forest else active_set.project(requested, self.rows)

    def _binding(self, requested: Sequence[int], granted: Sequence[int], solution: Solution) -> Iterable[Constraint]:
        for index, multiplier in sorted(solution.multipliers.items()):
            row = self.rows[index]
            alone, kept = len(row.coefs) == 1, row.holds(row.value(requested))
            if all(requested[adapter] == granted[adapter] for adapter, _ in row.coefs):
                continue
            for constraint in row.high_from if multiplier > 0 else row.low_from:
                # A weight that another rule pushed against 0 or 1 is explained by that rule.
                if not (alone and kept and constraint.rule.tier == BUILT_IN):
                    yield constraint


def minimal_conflict(constraints: Sequence[Constraint], adapters: int) -> tuple[tuple[Constraint, ...], ...]:
    """Constraints of a minimal set of rules that conflict: without any one of these rules the others are satisfiable.

    A deletion filter over exact feasibility: inner tiers are tried for removal first, so that outer ones are named.
    """
    rules = sorted({constraint.rule for constraint in constraints}, reverse=True)
    kept = set(rules)
    for rule in rules:
        rows = gather(each for each in constraints if each.rule in kept and each.rule != rule)
        if active_set.project([0] * adapters, rows) is None:
            kept.discard(rule)
    return tuple(tuple(each for each in constraints if each.rule == rule) for rule in sorted(kept))


def _told(part: Sequence[Constraint], names: Sequence[str]) -> str:
    texts = sorted({_named(constraint, names) for constraint in part})
    return f"{part[0].rule}: {', '.join(texts[:3])}{', ...' if len(texts) > 3 else ''}"


def _named(constraint: Constraint, names: Sequence[str]) -> str:
    concerned = [name for name, coef in zip(names, constraint.coefs, strict=True) if coef]
    if not concerned:
        return f"{constraint.text}, and no known adapter matches"
    named = len(concerned) > 1 or constraint.rule.tier == BUILT_IN
    return constraint.text if named else f"{concerned[0]} {constraint.text}"
