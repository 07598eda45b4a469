"""Choices of supports, resolved: a union of polytopes becomes a list of faces, each with its linear constraints."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from soupmix.errors import PolicyError
from soupmix.policy.pieces import Choice, Constraint

__all__ = ["faces"]

_MOST = 512


@dataclass(frozen=True, slots=True)
class _Face:
    """Adapters that may be non-zero; bounds on their sums; the constraints that hold the others at zero."""

    support: frozenset[int]
    totals: frozenset[Constraint]
    zeros: tuple[Constraint, ...]

    def inside(self, other: "_Face") -> bool:
        """Whether this face is certainly part of the other one."""
        return self.support <= other.support and other.totals <= self.totals

    def constraints(self) -> tuple[Constraint, ...]:
        return (*self.zeros, *sorted(self.totals, key=lambda each: (each.rule, each.coefs, each.bound)))


def faces(choices: Sequence[Choice], adapters: int) -> tuple[tuple[Constraint, ...], ...]:
    """For every way to pick one support of each choice: what is then 0, and what then sums to how much at most.

    A face that lies inside another one is left out. Without choices there is one face without constraints; with a choice
    of nothing there is only the face on which all weights are 0.

    Raises:
        PolicyError: more than 512 faces are left (reason "too-many-combinations").
    """
    found = [_Face(frozenset(range(adapters)), frozenset(), ())]
    for choice in choices:
        nothing: tuple[tuple[frozenset[int], int | None], ...] = ((frozenset(), None),)
        options = choice.supports or nothing
        found = _maximal(_met(face, choice, *option, adapters) for face in found for option in options)
        if len(found) > _MOST:
            raise PolicyError(
                f"the combinations and exclusive rules allow {len(found)} sets of adapters that do not contain each other, "
                f"and at most {_MOST} are decided; list fewer and larger combinations",
                reason="too-many-combinations",
            )
    return tuple(face.constraints() for face in sorted(found, key=lambda face: sorted(face.support)))


def _met(face: _Face, choice: Choice, allowed: frozenset[int], most: int | None, adapters: int) -> _Face:
    zeros = tuple(_sum({index}, 0, choice, adapters) for index in range(adapters) if index not in allowed)
    totals = face.totals if most is None else face.totals | {_sum(allowed, most, choice, adapters)}
    return _Face(face.support & allowed, totals, (*face.zeros, *zeros))


def _sum(members: Iterable[int], most: int, choice: Choice, adapters: int) -> Constraint:
    chosen = set(members)
    return Constraint(tuple(int(index in chosen) for index in range(adapters)), most, choice.rule, choice.text)


def _maximal(found: Iterable[_Face]) -> list[_Face]:
    kept: list[_Face] = []
    for face in sorted(found, key=lambda each: (-len(each.support), len(each.totals), sorted(each.support))):
        if not any(face.inside(other) for other in kept):
            kept.append(face)
    return kept
