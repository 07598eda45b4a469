"""Which implicit rewards the adapters of a store are, for dimensions without a measure; without computing any.

    r(x, y) = (log pi_k(y | x) - log pi_0(y | x)) / tokens of y

is what pi_k was trained towards, up to what is the same for all answers to x (Rafailov et al. 2023, arXiv 2305.18290, equation
5); per token, as in SimPO (arXiv 2405.14734), so that it is no measure of length. Where a dimension has two poles it is the one
reward less the other. Whoever may not have an adapter is not measured by it. `soupmix.evaluate.rewarding` computes them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from soupmix.errors import PolicyRefusal
from soupmix.files import digest_parts
from soupmix.policy import Grant
from soupmix.weights import MILLION, Weights

__all__ = ["REWARD", "Allow", "Reward", "granted", "granted_rewards", "rewards"]

REWARD: Final = "reward_"
"""What the names of these measures begin with."""

Allow = Callable[[Weights], Grant]
"""Asks a policy for weights."""

_LEAST = MILLION // 4  # of a weight, below which noise would be multiplied more than fourfold
_SHORT = 32  # characters of a dimension in the name of a measure


class Digested(Protocol):
    """An adapter, as a manifest and the record of an evaluation say it."""

    @property
    def dimension(self) -> str:
        """Which dimension it steers."""

    @property
    def pole(self) -> str:
        """To which end of it."""

    @property
    def digest(self) -> str:
        """Of its files."""


@dataclass(frozen=True, slots=True)
class Reward:
    """What tells a dimension that has no measure.

    Attributes:
        name: of the measure; it follows from the digests of base and adapters, so that evidence names what measured it.
        dimension, pole: which end has more of it.
        toward: name of the adapter whose reward it is. against: of the opposite one, which is taken off; "" for none.
    """

    name: str
    dimension: str
    pole: str
    toward: str
    against: str = ""

    @property
    def adapters(self) -> tuple[str, ...]:
        """All that it needs."""
        return (self.toward, self.against) if self.against else (self.toward,)


def rewards(base_digest: str, adapters: Mapping[str, Digested]) -> tuple[Reward, ...]:
    """The rewards that the adapters of a store are, in order of dimensions and names.

    A dimension of two adapters for two poles has one, for the pole whose name comes first against the other; any other dimension
    has one for each of its adapters.

    Args:
        base_digest: of the base that they were trained on.
        adapters: by name.
    """
    found: list[Reward] = []
    for dimension in sorted({each.dimension for each in adapters.values()}):
        own = sorted((each.pole, name) for name, each in adapters.items() if each.dimension == dimension)
        opposite = len(own) == len({pole for pole, _ in own}) == 2
        pairs = [(own[0], own[1][1])] if opposite else [(each, "") for each in own]
        for (pole, name), other in pairs:
            by = {"base": base_digest, "toward": adapters[name].digest}
            by |= {"against": adapters[other].digest} if other else {}
            named = f"{REWARD}{dimension[:_SHORT]}_{digest_parts('soupmix.reward.v1', by)[:16]}"
            found.append(Reward(named, dimension, pole, name, other))
    return tuple(found)


def granted_rewards(every: Iterable[Reward], allow: Allow) -> dict[str, Reward]:
    """By name those whose adapters a policy lets somebody have, a quarter of each at least."""
    return {each.name: each for each in every if all(granted(name, allow) is not None for name in each.adapters)}


def granted(name: str, allow: Allow) -> Grant | None:
    """A grant of one adapter and nothing else, at a quarter of a weight or more, by `Policy.clamp(...)`, which `allow` asks;
    None if the policy gives none.
    """
    try:
        grant = allow(Weights({name: 1}))
    except PolicyRefusal:
        return None
    return grant if grant.granted.get(name, 0) >= _LEAST and set(grant.granted.nonzero()) == {name} else None
