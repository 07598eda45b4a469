"""From the evidence of a profile to its weights, inside the policy in force and beside what the person chose.

Weights are computed when evidence comes or goes, and kept; a chat only reads them. They are computed anew before they are used
where anything else has changed on which they rest: the policy, what the person chose, the map of soups.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from soupmix.errors import PreferenceError
from soupmix.files import compact_json, digest_parts
from soupmix.openai.errors import HttpError
from soupmix.policy import FeasibleSet, Grant, Policy
from soupmix.policy.inferring import Inferring, inferring
from soupmix.policy.recent import Recent
from soupmix.preference import Traits
from soupmix.preference.cues import CueReader, cued
from soupmix.preference.learner import Influence, Learner, Measuring
from soupmix.preference.reach import Reach, traits_of
from soupmix.preference.rewards import Allow, Reward, granted_rewards, rewards
from soupmix.serve.evidence import Entry, OfTopic
from soupmix.serve.profiles import Draft
from soupmix.serve.queues import PersonQueues
from soupmix.store.manifest import ManifestEntry
from soupmix.surface import Surface
from soupmix.weights import Weights

__all__ = ["Counted", "Inferred", "LearnerSetting", "Learners", "Measurer", "together"]

_REACHES: Final = 4096  # of soups that are kept, some 170 a reach
_TOLD: Final = 5  # pieces of evidence that explain weights


@dataclass(frozen=True, slots=True)
class Measurer:
    """What tells the traits of texts on a server.

    Attributes:
        measures: names of those that can be taken of a text here. of: gives what measures by some traits.
        rewarding: gives what measures also by adapters as implicit rewards: of traits, the rewards by name, the engine, and who
            grants an adapter; None: nothing does.
        reading: gives what reads cues in words, of the engine and who grants; None: rules do.
    """

    measures: Collection[str]
    of: Callable[[Traits], Measuring]
    rewarding: "Callable[[Traits, Mapping[str, Reward], Callable[[], Any], Allow], Measuring] | None" = None
    reading: "Callable[[Callable[[], Any], Allow], CueReader] | None" = None


@dataclass(frozen=True, slots=True, eq=False)
class LearnerSetting:
    """All that a profile's weights rest on but its evidence.

    Attributes:
        inferring: what the policy lets be inferred. feasible: weights that it lets through beside what the person chose.
        chosen: what is granted of the weights that the person chose.
        bound: adapters whose weights nothing that is inferred changes: chosen ones, and others of their dimensions.
        basis: digest of all that. rewards: measures that adapters are, of those that the policy lets be inferred, by name.
        allow: asks the policy for inferred weights.
    """

    inferring: Inferring
    feasible: FeasibleSet
    chosen: Weights
    bound: frozenset[str]
    basis: str
    rewards: Mapping[str, Reward]
    allow: Allow

    def beside(self, weights: Weights) -> Weights:
        """Inferred weights as near to these as may be, of adapters that are still here. Raises as `FeasibleSet.nearest`."""
        here = {name: micro for name, micro in weights.items() if name in self.feasible.names}
        found = self.feasible.nearest(Weights.unchecked({**here, **self.chosen}))
        return self.own(found)

    def own(self, weights: Weights) -> Weights:
        """Those of weights that may be inferred."""
        return Weights.unchecked({name: micro for name, micro in weights.items() if name not in self.bound})


@dataclass(frozen=True, slots=True)
class Inferred:
    """Weights of a profile, without those that are bound; which evidence moved what, the most first; and the same of topics."""

    weights: Weights
    because: tuple[Mapping[str, Any], ...]
    topics: Mapping[str, OfTopic] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counted:
    """A piece of evidence, and whether it counts: `why` it does not, None if it does. translated: by keys of traits.

    unused: names of its traits that move nothing here, as the policy lets nothing be concluded from them, or nothing steers them.
    """

    entry: Entry
    translated: bool = False
    why: str | None = None
    unused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Learners:
    """Makes learners of profiles. Safe to share between threads.

    Attributes:
        surface: what soups are expected to do, or None. measurer: of texts, or None. adapters: entries of the store.
        engine: of this process, in which adapters measure texts; None: whoever answers is elsewhere.
    """

    surface: Surface | None
    measurer: Measurer | None
    adapters: tuple[ManifestEntry, ...]
    engine: Any = None
    _reaches: Recent[str, Reach] = field(
        init=False, repr=False, default_factory=lambda: Recent(_REACHES, lambda reach: len(reach.soups))
    )
    _turns: PersonQueues = field(init=False, repr=False, default_factory=PersonQueues)

    @property
    def digests(self) -> tuple[str, str]:
        """Of the set of adapters, and of their base: what evidence is said to be of."""
        parts = {each.name: each.digest for each in self.adapters}
        return f"sha256:{digest_parts('soupmix.adapters.v1', parts)}", self.adapters[0].base_digest if parts else ""

    def turn(self, tenant: str, profile: str) -> AbstractContextManager[None]:
        """A turn of a person to compute; see `PersonQueues.turn`."""
        return self._turns.turn(tenant, profile)

    def setting(self, policy: Policy, draft: Draft, attributes: Mapping[str, str], most: Weights) -> LearnerSetting:
        """What a profile's weights rest on.

        Args:
            policy: in force. draft: what the profile says; attributes: what is so of it.
            most: the most that the person lets single weights be if they are inferred.

        Raises:
            PolicyRefusal: nothing may be inferred for this audience ("not-inferred"), or as `Policy.feasible`.
            HttpError: 409, nobody has measured what these adapters do ("no-surface"), or texts are not measured ("no-measures").
            PreferenceError: the policy leaves nothing to choose between ("nothing-to-choose").
        """
        may = inferring(policy, attributes)
        may.check()
        digest = self._surface().document.digest
        chosen = {name: micro for name, micro in draft.weights.items() if _source(draft, name) != "inferred"}
        dimensions = {each.name: each.dimension for each in self.adapters}
        taken = {dimensions.get(name) for name in chosen}
        bound = frozenset(name for name in policy.names if name in chosen or dimensions.get(name) in taken)
        sources = {name: _source(draft, name) if name in chosen else "inferred" for name in policy.names}
        granted = policy._feasible(attributes, sources).nearest(Weights.unchecked(chosen))
        bounds = {name: (granted.get(name, 0),) * 2 for name in bound}
        bounds |= {name: (0, max(top, granted.get(name, 0))) for name, top in most.items() if name not in bounds}
        known = {name: each for name, each in bounds.items() if name in policy.names}
        said = {
            "bounds": sorted(known.items()),
            "sources": sorted(sources.items()),
            "about": sorted(attributes.items()),
        }
        parts = {"said": compact_json(said).decode(), "policy": policy.digest, "surface": digest}
        feasible = policy._feasible(attributes, sources, known)
        held = Weights.unchecked({name: granted.get(name, 0) for name in sorted(bound)})
        inferred = dict.fromkeys(policy.names, "inferred")

        def allow(weights: Weights) -> Grant:
            return policy._grant(weights, attributes, inferred)

        by = self._rewards(may, allow)
        return LearnerSetting(may, feasible, held, bound, digest_parts("soupmix.basis.v1", parts), by, allow)

    def reach(self, setting: LearnerSetting) -> Reach:
        """Soups that can be reached. Raises as `Reach.of`."""
        found = self._reaches.get(setting.basis)
        if found is None:
            surface = self._surface()
            traits = self._traits(surface, setting)
            made = Reach.of(surface, traits, setting.feasible, explicit=setting.chosen)
            found = self._reaches.keep(setting.basis, made)
        return found

    def learner(self, setting: LearnerSetting, entries: Collection[Entry]) -> tuple[Learner, list[Counted]]:
        """A learner of all evidence that counts here, and what became of every piece."""
        if self.measurer is None:
            raise _unmeasured()
        reach = self.reach(setting)
        made = Learner(reach, self._measuring(self.measurer, setting, reach.traits))
        return made, [_learnt(made, each) for each in entries]

    def read(self, setting: LearnerSetting, text: str, traits: Traits) -> Mapping[str, float]:
        """Which way a text asks traits to go, if it is a cue. Raises as what reads it."""
        if self.engine is None or self.measurer is None or self.measurer.reading is None:
            return cued(text, traits)
        return self.measurer.reading(lambda: self.engine, setting.allow)(text, traits)

    def still_inferred(self, setting: LearnerSetting, traits: Traits) -> Traits:
        """Of traits by which answers were measured before, those that the policy now lets be concluded from.

        Raises:
            PreferenceError: none is left (reason "nothing-to-choose"), or as `Reach.of`.
        """
        here = {each.key for each in self.reach(setting).traits.axes}
        axes = tuple(each for each in traits.axes if each.key in here)
        if not axes:
            raise PreferenceError(
                "the policy lets nothing be concluded any more from what this question was about; ask for the next one",
                reason="nothing-to-choose",
            )
        return traits if axes == traits.axes else replace(traits, axes=axes)

    def inferred(self, setting: LearnerSetting, learner: Learner, influences: Sequence[Influence]) -> Inferred:
        """The weights that follow, and those of topics that depart from them. Raises as `Learner.weights`."""
        apart = {topic: share for topic in learner.topics if (share := learner.others(topic)) < 1}
        topics = {
            topic: OfTopic(*self._following(setting, learner, learner.explain(topic), topic), share)
            for topic, share in apart.items()
        }
        return Inferred(*self._following(setting, learner, influences), topics)

    def _following(
        self, setting: LearnerSetting, learner: Learner, influences: Sequence[Influence], topic: str | None = None
    ) -> tuple[Weights, tuple[Mapping[str, Any], ...]]:
        weights = learner.weights(topic)
        if weights == learner.reach.uninferred:
            return Weights(), ()
        return setting.own(weights), tuple(each.to_dict() for each in influences[:_TOLD])

    def _rewards(self, may: Inferring, allow: Allow) -> dict[str, Reward]:
        """Of dimensions that only adapters measure, if the policy lets somebody have these adapters and conclude from them."""
        if self.engine is None or self.measurer is None or self.measurer.rewarding is None or self.surface is None:
            return {}
        by_name = {each.name: each for each in self.adapters}
        known = [each for each in rewards(self.adapters[0].base_digest, by_name) if each.name in self.surface.measures]
        return granted_rewards([each for each in known if set(each.adapters) <= set(may.allowed)], allow)

    def _measuring(self, measurer: Measurer, setting: LearnerSetting, traits: Traits) -> Measuring:
        if measurer.rewarding is None or not any(each.key in setting.rewards for each in traits.axes):
            return measurer.of(traits)
        return measurer.rewarding(traits, setting.rewards, lambda: self.engine, setting.allow)

    def _surface(self) -> Surface:
        if self.measurer is None:
            raise _unmeasured()
        if self.surface is None:
            raise HttpError(
                "nobody has measured these adapters: their store holds no surface.json; `soupmix evaluate OUT --surface` "
                "makes one",
                status=409,
                reason="no-surface",
            )
        return self.surface

    def _traits(self, surface: Surface, setting: LearnerSetting) -> Traits:
        """Of dimensions of which something may be inferred: of others nothing is measured, and nothing kept."""
        found = traits_of(surface, {*(self.measurer.measures if self.measurer else ()), *setting.rewards})
        allowed = {each.dimension for each in self.adapters if each.name in setting.inferring.allowed}
        axes = tuple(axis for axis in found.axes if axis.name in allowed)
        if not axes:
            raise PreferenceError(
                "of what the policy lets be inferred nothing was measured: choose the weights",
                reason="nothing-to-choose",
            )
        return replace(found, axes=axes)


def together(draft: Draft, inferred: Weights) -> Draft:
    """What a profile asks for: what the person chose, and beside it what was inferred; each with where it comes from."""
    if not inferred:
        return draft
    chosen = {name: _source(draft, name) for name in draft.weights}
    sources = {**dict.fromkeys(inferred, "inferred"), **chosen}
    return replace(draft, weights=Weights.unchecked({**inferred, **draft.weights}), sources=sources)


def _source(draft: Draft, name: str) -> str:
    said = draft.sources if isinstance(draft.sources, str) else draft.sources.get(name)
    return said or "stored"


def _learnt(learner: Learner, entry: Entry) -> Counted:
    """Take evidence, translated where it was measured by other traits; what cannot be is set aside, and said to be."""
    other = entry.signal.traits != learner.traits.digest
    here = {each.key for each in learner.traits.axes}
    unused = tuple(each.name for each in entry.traits.axes if each.key not in here)
    try:
        learner.learn(entry.signal, by=entry.traits if other else None)
    except PreferenceError as error:
        return Counted(entry, why=str(error), unused=entry.traits.names)
    return Counted(entry, translated=other, unused=unused)


def _unmeasured() -> HttpError:
    return HttpError(
        "this server measures no answers, so nothing can be learned of them", status=409, reason="no-measures"
    )
