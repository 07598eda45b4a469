"""What `learn` and `simulate` know of a store and a policy before anybody says anything."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from soupmix.cli.asking import Asking
from soupmix.cli.options import read_adapters

if TYPE_CHECKING:
    from soupmix.engine import Engine
    from soupmix.policy import Grant, Policy
    from soupmix.preference import Measuring
    from soupmix.preference.cues import CueReader
    from soupmix.preference.reach import Reach
    from soupmix.preference.rewards import Reward
    from soupmix.preference.traits import Traits
    from soupmix.store import Manifest, ManifestEntry
    from soupmix.surface import Surface
    from soupmix.weights import Weights

__all__ = ["CUES", "allowing", "measurable", "measuring_of", "reach_of", "reader_of", "sources_of", "surface_of"]

CUES: Final = ("rules", "model", "rules-and-model")
"""What may read cues in words."""


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
    from soupmix.preference.reach import Reach, traits_of

    with asking.refusals():
        adapters = read_adapters(asking.store)
        surface = surface_of(asking.store, adapters)
    policy = asking.policy(adapters)
    with asking.refusals(policy):
        feasible = policy.feasible(sources=sources_of(asking, adapters), **asking.attributes)
        wanted = traits or traits_of(surface, measurable(asking, policy, adapters))
        return Reach.of(surface, wanted, feasible, explicit=asking.weights), policy


def allowing(asking: Asking, policy: "Policy", adapters: "Iterable[ManifestEntry]") -> "Callable[[Weights], Grant]":
    """Asks the policy for inferred weights, as whoever is asking; nothing is recorded. Raises as `Policy.clamp`."""
    sources = {each.name: "inferred" for each in adapters}
    return lambda weights: policy._grant(weights, asking.attributes, sources)


def measurable(asking: Asking, policy: "Policy", adapters: "Iterable[ManifestEntry]") -> set[str]:
    """Names of the measures that can be taken of a text here: by itself, or by adapters that the policy grants."""
    from soupmix.evaluate.measures.here import measures_here

    entries = tuple(adapters)
    return {*measures_here(), *_rewards(asking, policy, entries)}


def measuring_of(asking: Asking, policy: "Policy", traits: "Traits", engine: "Callable[[], Engine]") -> "Measuring":
    """What tells these traits of texts; the engine is asked for only where adapters measure one."""
    from soupmix.evaluate.measures.here import TextMeasuring
    from soupmix.preference.rewards import REWARD

    if not any(each.key.startswith(REWARD) for each in traits.axes):
        return TextMeasuring(traits)
    from soupmix.evaluate.rewarding import RewardMeasuring

    entries = tuple(read_adapters(asking.store))
    every = _rewards(asking, policy, entries)
    return RewardMeasuring(traits, every, engine, allowing(asking, policy, entries))


def reader_of(by: str, engine: "Callable[[], Engine]", allow: "Callable[[Weights], Grant]") -> "CueReader":
    """What reads cues in words: one of `CUES`. The model is asked for when it has something to read."""
    from soupmix.preference.cues import cued, either

    def model(text: str, traits: "Traits") -> "Mapping[str, float]":
        from soupmix.evaluate.cue_model import CueModel
        from soupmix.weights import Weights

        return CueModel(engine(), allow(Weights({})))(text, traits)

    return {"rules": cued, "model": model, "rules-and-model": either(cued, model)}[by]


def _rewards(asking: Asking, policy: "Policy", entries: "tuple[ManifestEntry, ...]") -> "dict[str, Reward]":
    from soupmix.preference.rewards import granted_rewards, rewards

    by_name = {each.name: each for each in entries}
    return granted_rewards(rewards(entries[0].base_digest, by_name), allowing(asking, policy, entries))
