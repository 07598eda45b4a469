"""The adapters that an engine holds: their order, and the last bounds on their weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from soupmix.errors import AdapterError, BaseModelError
from soupmix.store.adapter import Adapter
from soupmix.weights import MILLION, twins
from soupmix_kernels import Part

__all__ = ["Bank"]


@dataclass(frozen=True, slots=True)
class Bank:
    """K adapters in the memory of one model, and what their weights may be at most, whoever asks.

    Attributes:
        names: adapter names in column order. digests: their identities, same order.
        bounds: least and most of every weight in millionths, same order; the kernels clamp to them once more.
    """

    names: tuple[str, ...]
    digests: tuple[str, ...]
    bounds: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, adapters: Sequence[Adapter], bounds: Mapping[str, tuple[int, int]] | None = None) -> "Bank":
        """Adapters in this order. `bounds`: those of a policy, where a name that is missing is not approved; default [0, 1].

        Raises:
            AdapterError: two names of one adapter, or two adapters of one name ("same-adapter").
        """
        names = tuple(adapter.name for adapter in adapters)
        if (found := twins((each.name, each.digest) for each in adapters)) or len(set(names)) < len(names):
            said = " and ".join(map(repr, found or names))
            raise AdapterError(f"{said}: an engine holds each adapter once, under one name", reason="same-adapter")
        held = dict.fromkeys(names, (0, MILLION)) if bounds is None else bounds
        return cls(
            names, tuple(adapter.digest for adapter in adapters), tuple(held.get(name, (0, 0)) for name in names)
        )

    def row(self, weights: Mapping[str, float], digests: Mapping[str, str]) -> list[float]:
        """Weights [K] of one person in column order.

        Raises:
            AdapterError: an adapter is not in this bank, or is not the one that the grant was given for.
        """
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
