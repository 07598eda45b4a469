"""Two policies over all requests: does the second let anything through that the first did not? Which rules have no effect?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from soupmix.errors import PolicyError
from soupmix.policy.documents import RuleRef
from soupmix.policy.kinds import Regions, stated
from soupmix.policy.policy import Policy
from soupmix.policy.rules import SOURCES
from soupmix.projection import AnyConstraint, Ball, Choice, Constraint, Region, Space, Undecided, witness
from soupmix.weights import Weights

__all__ = ["Difference", "Widening", "difference", "idle_rules"]


@dataclass(frozen=True, slots=True)
class Widening:
    """A request that the new policy grants as it is and the old one does not.

    Attributes:
        attributes, source: what the request says of itself ("" for a source that is not said).
        weights: what it asks for. digests: (name, digest) of the adapters concerned.
    """

    attributes: tuple[tuple[str, str], ...]
    source: str
    weights: Weights
    digests: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        said = {"attributes": dict(self.attributes), "source": self.source or None}
        return said | {"weights": self.weights.decimals(), "digests": dict(self.digests)}


@dataclass(frozen=True, slots=True)
class Difference:
    """What a new policy lets through that an old one did not.

    Attributes:
        widenings: one witness per kind of request for which there is one; none means that nothing is let through.
        undecided: kinds of request that were not decided, with why. kinds: how many kinds of request there are.
    """

    widenings: tuple[Widening, ...]
    undecided: tuple[str, ...]
    kinds: int

    @property
    def contained(self) -> bool:
        """Whether it is certain that the new policy lets nothing new through."""
        return not self.widenings and not self.undecided


def difference(old: Policy, new: Policy) -> Difference:
    """Decide, for every kind of request, whether the feasible set of `new` lies inside that of `old`.

    Requests are of the same kind if the same rules of both policies apply to them. Sources are taken as one for all
    adapters of a request.
    """
    return _difference(_Compared.of(old), _Compared.of(new))


def idle_rules(policy: Policy) -> tuple[RuleRef, ...]:
    """Rules without which the policy would let nothing else through, for any request: each taken away alone.

    Rules that concern no known adapter are left out: they are noted at loading, or approve everything there is.
    """
    whole = _Compared.of(policy)
    return tuple(
        rule.ref
        for rule in whole.regions.rules
        if rule.constraints and _difference(whole, replace(whole, regions=whole.regions.without(rule.ref))).contained
    )


@dataclass(frozen=True, slots=True)
class _Compared:
    """What is compared of a policy: the feasible sets, and the (name, digest) of every coordinate."""

    keys: tuple[tuple[str, str], ...]
    regions: Regions

    @classmethod
    def of(cls, policy: Policy) -> "_Compared":
        return cls(tuple((adapter.name, adapter.digest) for adapter in policy._known), policy._regions)

    def kind(self, attributes: Mapping[str, str], source: str) -> int:
        everywhere = dict.fromkeys(range(len(self.keys)), source) if source else {}
        return self.regions.kinds.kind(attributes, everywhere)


def _difference(old: _Compared, new: _Compared) -> Difference:
    shared = _Shared.of(old, new)
    widenings, undecided, kinds = [], [], 0
    for attributes, source in _requests((old, new)):
        kinds += 1
        try:
            inner, outer = shared.region(new, attributes, source), shared.region(old, attributes, source)
            point = witness(inner, outer)
        except Undecided as doubt:
            undecided.append(f"{_told(attributes, source)}: {doubt}")
            continue
        if point is not None:
            widenings.append(shared.widening(attributes, source, point))
    return Difference(tuple(widenings), tuple(undecided), kinds)


def _requests(policies: Sequence[_Compared]) -> Iterator[tuple[dict[str, str], str]]:
    """One request of every kind: attributes as said, and one source for all weights ("" if not said)."""
    seen, by_source = set(), any(policy.regions.kinds.by_source for policy in policies)
    for attributes in stated([rule.within for policy in policies for rule in policy.regions.rules]):
        for source in ("", *SOURCES):
            # where sources matter they are told apart, so that a reader learns of each one what it lets through
            kind = tuple(policy.kind(attributes, source) for policy in policies), by_source and source
            if kind not in seen:
                seen.add(kind)
                yield attributes, source


@dataclass(frozen=True, slots=True)
class _Shared:
    """One space for two policies: adapters by name and digest; those that a policy does not know have weight 0 there."""

    space: Space
    keys: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, old: _Compared, new: _Compared) -> "_Shared":
        if old.keys == new.keys:
            return cls(replace(old.regions.space, metric=None), old.keys)
        keys = tuple(sorted({*old.keys, *new.keys}, key=lambda key: key[::-1]))
        return cls(Space(tuple(name for name, _ in keys)), keys)

    def region(self, policy: _Compared, attributes: Mapping[str, str], source: str) -> Region:
        """The feasible set of a policy in the shared space."""
        place = [self.keys.index(key) for key in policy.keys]
        own = policy.regions.constraints(policy.kind(attributes, source))
        moved = [_moved(each, place, len(self.keys)) for each in own]
        unknown = [index for index in range(len(self.keys)) if index not in place]
        nobody = RuleRef((-1, "", 0), "built-in", "soupmix", "built-in", "unknown")
        zero = [_zero(index, sign, len(self.keys), nobody) for index in unknown for sign in (1, -1)]
        try:
            return Region.compile([*moved, *zero], self.space)
        except PolicyError as error:
            raise Undecided(str(error)) from error

    def widening(self, attributes: Mapping[str, str], source: str, point: Sequence[int]) -> Widening:
        """The witness as a request."""
        used = [(key, micro) for key, micro in zip(self.keys, point, strict=True) if micro]
        weights = Weights.from_micro({name: micro for (name, _), micro in used})
        return Widening(tuple(sorted(attributes.items())), source, weights, tuple(key for key, _ in used))


def _zero(index: int, sign: int, size: int, rule: RuleRef) -> Constraint:
    return Constraint(tuple(sign * (index == each) for each in range(size)), 0, rule, "not known")


def _moved(constraint: AnyConstraint, place: Sequence[int], size: int) -> AnyConstraint:
    """A constraint over the adapters of one policy as one over the shared ones."""
    match constraint:
        case Constraint():
            coefs = [0] * size
            for index, coef in zip(place, constraint.coefs, strict=True):
                coefs[index] = coef
            return replace(constraint, coefs=tuple(coefs))
        case Choice():
            moved = tuple((frozenset(place[i] for i in each), most) for each, most in constraint.supports)
            return replace(constraint, supports=moved)
        case Ball():  # pragma: no branch  # mypy knows that there is no other constraint
            return constraint


def _told(attributes: Mapping[str, str], source: str) -> str:
    said = ", ".join(f"{key} {value}" for key, value in sorted(attributes.items()))
    return f"{said or 'a request that says nothing'}{f', weights {source}' if source else ''}"
