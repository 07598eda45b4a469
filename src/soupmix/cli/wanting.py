"""What `learn` and `simulate` know of a store and a policy before anybody says anything."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from soupmix.cli.asking import Asking
from soupmix.cli.options import read_adapters

if TYPE_CHECKING:
    from soupmix.policy import Policy
    from soupmix.preference.reach import Reach
    from soupmix.preference.traits import Traits
    from soupmix.store import Manifest, ManifestEntry
    from soupmix.surface import Surface

__all__ = ["reach_of", "sources_of", "surface_of"]


def surface_of(store: Path | None, adapters: "Manifest") -> "Surface":
    """The map of a store. Raises `EvaluationError` as `Surface.beside`."""
    from soupmix.store.manifest import shipped_root
    from soupmix.surface import Surface

    return Surface.beside(store or shipped_root(), adapters)


def sources_of(asking: Asking, adapters: "Iterable[ManifestEntry]") -> dict[str, str]:
    """Where the weight of every adapter comes from: what is given on the command line is explicit, all else inferred."""
    return {each.name: "explicit" if each.name in asking.weights else "inferred" for each in adapters}


def reach_of(asking: Asking, traits: "Traits | None" = None) -> "tuple[Reach, Policy]":
    """Soups that the policy lets through for inferred weights, beside the explicit ones of the command line.

    Args:
        asking: who asks, under which policy.
        traits: what wants are about; those that can be measured here if not given.

    Raises:
        EvaluationError: nobody has measured these adapters (reason "no-surface"), and as `Surface.beside`.
        PreferenceError: nothing may be inferred here (reason "nothing-to-choose"), and as `Reach.of`.
        AdapterError, PolicyError, PolicyRefusal: as reading and `Policy.feasible` raise.
    """
    from soupmix.evaluate.measures.here import measures_here
    from soupmix.preference.reach import Reach, traits_of

    with asking.refusals():
        adapters = read_adapters(asking.store)
        surface = surface_of(asking.store, adapters)
    policy = asking.policy(adapters)
    with asking.refusals(policy):
        feasible = policy.feasible(sources=sources_of(asking, adapters), **asking.attributes)
        wanted = traits or traits_of(surface, measures_here())
        return Reach.of(surface, wanted, feasible, explicit=asking.weights), policy
