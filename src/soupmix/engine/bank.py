"""The adapters that an engine holds: their order, the most that their weights may be, and whose grants count."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from soupmix.errors import AdapterError, BaseModelError, PolicyError
from soupmix.policy import Grant, Policy
from soupmix.store.adapter import Adapter
from soupmix.weights import MILLION, twins
from soupmix_kernels import Part

__all__ = ["Bank"]


@dataclass(frozen=True, slots=True)
class Bank:
    """K adapters in the memory of one model, and what their weights may be at most, whoever asks.

    Attributes:
        names: adapter names in column order. digests: their identities, same order.
        most: the most that every weight may be in millionths, same order; the kernels clamp to [0, most] once more, which
            only lowers: what was not granted stays nothing, whatever a policy requires.
        policy: digest of the one policy whose grants count here, or None for those of any.
    """

    names: tuple[str, ...]
    digests: tuple[str, ...]
    most: tuple[int, ...]
    policy: str | None = None

    @classmethod
    def of(cls, adapters: Sequence[Adapter], policy: Policy | None = None) -> "Bank":
        """Adapters in this order, under the upper bounds of a policy; a name that it does not know is not approved.

        Raises:
            AdapterError: two names of one adapter, or two adapters of one name ("same-adapter").
        """
        names = tuple(adapter.name for adapter in adapters)
        if (found := twins((each.name, each.digest) for each in adapters)) or len(set(names)) < len(names):
            said = " and ".join(map(repr, found or names))
            raise AdapterError(f"{said}: an engine holds each adapter once, under one name", reason="same-adapter")
        bounds = dict.fromkeys(names, (0, MILLION)) if policy is None else policy.bounds()
        most = tuple(max(bounds.get(name, (0, 0))[1], 0) for name in names)
        return cls(names, tuple(each.digest for each in adapters), most, policy.digest if policy else None)

    def row(self, grant: Grant) -> list[float]:
        """Weights [K] of one person in column order.

        Raises:
            PolicyError: the grant is one of another policy than this bank was loaded under (reason "other-policy").
            AdapterError: an adapter is not in this bank, or is not the one that the grant was given for.
        """
        if self.policy is not None and grant.policy_digest != self.policy:
            raise PolicyError(
                f"the grant is of policy {grant.policy_digest}, but the engine was loaded under {self.policy}; ask that "
                "policy for a grant, or load the engine under the policy that granted",
                reason="other-policy",
            )
        weights, digests = grant.granted.floats(), grant.digests
        held = dict(zip(self.names, self.digests, strict=True))
        for name in weights:
            if held.get(name) != digests[name]:
                state = "is not loaded" if name not in held else f"is loaded as {held[name]}"
                raise AdapterError(
                    f"the grant is for adapter '{name}' {digests[name]}, which {state}; "
                    f"load the engine with the store that the policy approved",
                    reason="digest-mismatch",
                )
        return [weights.get(name, 0.0) for name in self.names]


def parts(adapters: Sequence[Adapter], path: str, linear: nn.Linear) -> tuple[Part, ...]:
    """What every adapter that has this layer adds to it.

    Raises:
        BaseModelError: a factor does not fit the layer.
    """
    found = []
    for number, adapter in enumerate(adapters):
        factors = adapter.modules.get(path)
        if factors is not None:
            asked, held = (factors.B.shape[0], factors.A.shape[1]), (linear.out_features, linear.in_features)
            if asked != held:
                raise BaseModelError(
                    f"module '{path}' of the base is a linear layer of shape {held}, but adapter '{adapter.name}' "
                    f"is for shape {asked}",
                    reason="wrong-base",
                )
            found.append(Part(number, factors.A, factors.B, factors.scaling))
    return tuple(found)
