"""Choices of supports, resolved: a union of polytopes becomes a list of faces, each with its linear constraints."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from soupmix.errors import PolicyError
from soupmix.policy.patience import check_time
from soupmix.policy.pieces import Choice, Constraint, several

__all__ = ["faces"]

_MOST = 512
_MOST_MET = 1 << 15


@dataclass(frozen=True, slots=True)
class _Face:
    """Adapters that may be non-zero; bounds on their sums; what each choice lets be non-zero, which holds the others at zero."""

    support: frozenset[int]
    totals: frozenset[Constraint]
    chosen: tuple[tuple[Choice, frozenset[int]], ...]

    def inside(self, other: "_Face") -> bool:
        """Whether this face is certainly part of the other one."""
        return self.support <= other.support and other.totals <= self.totals

    def constraints(self, adapters: int) -> tuple[Constraint, ...]:
        outside = [(choice, i) for choice, allowed in self.chosen for i in range(adapters) if i not in allowed]
        zeros = [_sum({index}, 0, choice, adapters) for choice, index in outside]
        return (*zeros, *sorted(self.totals, key=lambda each: (each.rule, each.coefs, each.bound)))


def faces(choices: Sequence[Choice], adapters: int) -> tuple[tuple[Constraint, ...], ...]:
    """For every way to pick one support of each choice: what is then 0, and what then sums to how much at most.

    A face that lies inside another one is left out. Without choices there is one face without constraints; with a choice
    of nothing there is only the face on which all weights are 0.

    Raises:
        PolicyError: more than 512 faces are left, or more than 32,768 ways are to be looked at (reason "too-many-combinations").
    """
    found = [_Face(frozenset(range(adapters)), frozenset(), ())]
    for choice in choices:
        nothing: tuple[tuple[frozenset[int], int | None], ...] = ((frozenset(), None),)
        options = choice.supports or nothing
        if len(found) * len(options) > _MOST_MET:
            raise _too_many(choices, f"{len(found) * len(options)} ways to choose", _MOST_MET)
        kept = _maximal(_met(face, choice, *option, adapters) for face in found for option in options)
        if kept is None:
            raise _too_many(choices, f"more than {_MOST} sets of adapters that do not contain each other", _MOST)
        found = kept
    return tuple(face.constraints(adapters) for face in sorted(found, key=lambda face: sorted(face.support)))


def _too_many(choices: Sequence[Choice], what: str, most: int) -> PolicyError:
    rules = several(choice.rule for choice in choices)
    return PolicyError(
        f"by {rules} there are {what}, and at most {most} are decided; list fewer and larger combinations",
        reason="too-many-combinations",
    )


def _met(face: _Face, choice: Choice, allowed: frozenset[int], most: int | None, adapters: int) -> _Face:
    totals = face.totals if most is None else face.totals | {_sum(allowed, most, choice, adapters)}
    return _Face(face.support & allowed, totals, (*face.chosen, (choice, allowed)))


def _sum(members: Iterable[int], most: int, choice: Choice, adapters: int) -> Constraint:
    chosen = set(members)
    return Constraint(tuple(int(index in chosen) for index in range(adapters)), most, choice.rule, choice.text)


def _maximal(found: Iterable[_Face]) -> list[_Face] | None:
    """The faces that lie in no other one, or None if there are too many: what is kept is never left out again."""
    kept: list[_Face] = []
    for face in sorted(found, key=lambda each: (-len(each.support), len(each.totals), sorted(each.support))):
        check_time()
        if not any(face.inside(other) for other in kept):
            kept.append(face)
            if len(kept) > _MOST:
                return None
    return kept
