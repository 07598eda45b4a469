"""The posterior over what one person wants."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from soupmix.errors import PreferenceError
from soupmix.preference.comparisons import COUNTS, Comparison, comparisons
from soupmix.preference.draws import Draws, ExpectedUtility
from soupmix.preference.prior import MODELS, ModelName, Prior
from soupmix.preference.responses import UNIT, Responses, Table, log_likelihood, responses
from soupmix.preference.signal import MOST_SIGNALS, Kind, Signal
from soupmix.preference.traits import Numbers, Traits
from soupmix.preference.wants import Wants, wants

__all__ = ["PARTICLES", "Posterior"]

PARTICLES: Final = 2048
_LEAST_REACH = 1e-12


@dataclass(slots=True)
class _Group:
    """What one source said in one kind of signals of one topic.

    Attributes:
        count: of signals. tables: model -> sum of their log-likelihoods.
    """

    count: int = 0
    tables: dict[ModelName, Table] = field(default_factory=dict)


def _whole(_: str | None) -> float:
    return 1.0


class Posterior:
    """What one person wants, as far as their signals tell.

    It is a function of the prior, the seed and the set of signals, bit for bit: in which order they came leaves no trace, and
    neither does a signal that was forgotten. What one source sends in one kind of signals counts for a bounded number of
    answers (`soupmix.preference.comparisons.COUNTS`), and no single answer rules anything out.
    """

    def __init__(
        self,
        traits: Traits,
        prior: Prior | None = None,
        *,
        models: Sequence[ModelName] = MODELS,
        particles: int = PARTICLES,
        seed: int = 0,
    ) -> None:
        """The prior, before any evidence.

        Args:
            traits: what wants are about.
            prior: flat if none is given.
            models: of a person, which are weighed against each other by how likely they make the evidence.
            particles: of each model, a power of 2 from 64 to 65,536.
            seed: of the particles.

        Raises:
            PreferenceError: the prior is of other traits (reason "other-traits"), or there are no such models or particles
                ("bad-prior").
        """
        self.traits, self.prior, self.seed, self.particles = traits, prior or Prior(), seed, particles
        self._digest = traits.digest
        if not models or not set(models) <= set(MODELS) or particles not in [2**n for n in range(6, 17)]:
            raise PreferenceError(
                f"a posterior has one or both of the models {', '.join(MODELS)}, and 64 to 65536 particles, a power of 2",
                reason="bad-prior",
            )
        for population in self.prior.populations.values():
            if np.shape(population.covariance) != (len(traits.axes),) * 2 or len(population.mean) != len(traits.axes):
                raise PreferenceError(
                    f"the prior is of {len(population.mean)} traits, and wants here are about {len(traits.axes)}",
                    reason="other-traits",
                )
        self.how: Responses = responses(self.prior)
        self.wants: dict[ModelName, Wants] = {
            name: wants(name, len(traits.axes), traits.signed, self.prior, particles, seed)
            for name in MODELS
            if name in models
        }
        self._signals: dict[str, Signal] = {}
        self._groups: dict[tuple[str, Kind, str | None], _Group] = {}
        self._shares: Callable[[str | None], float] = _whole
        self._known: dict[ModelName, tuple[Numbers, float]] | None = None

    # --- evidence -----------------------------------------------------------------------------------------------------

    @property
    def signals(self) -> tuple[Signal, ...]:
        """All that was learnt and not forgotten, by time."""
        return tuple(sorted(self._signals.values(), key=lambda each: (each.at, each.id)))

    def learn(self, *signals: Signal) -> None:
        """Take signals as evidence: all of them, or none if one is refused.

        Raises:
            PreferenceError: an id was used before (reason "replayed"), the answers were measured by other traits
                ("other-traits"), a value is impossible ("bad-number", "too-far"), or there are too many ("too-many-signals").
        """
        if len(self._signals) + len(signals) > MOST_SIGNALS:
            raise PreferenceError(
                f"there would be more than {MOST_SIGNALS} signals of one person; forget old ones first",
                reason="too-many-signals",
            )
        ids = [each.id for each in signals]
        for number, signal in enumerate(signals):
            if signal.id in self._signals or signal.id in ids[:number]:
                raise PreferenceError(
                    f"the signal {signal.id!r} is known already; each counts once, so give a new one a new id",
                    reason="replayed",
                )
        tables = [self._tables(signal) for signal in signals]
        for signal, each in zip(signals, tables, strict=True):
            self._add(signal, each, 1)
            self._signals[signal.id] = signal

    def forget(self, *ids: str) -> None:
        """Take signals away, as if they had never been learnt.

        Raises:
            PreferenceError: there is none of that id (reason "unknown-signal"); then all are kept.
        """
        for unknown in sorted(set(ids) - self._signals.keys()):
            raise PreferenceError(f"there is no signal {unknown!r:.80} to forget", reason="unknown-signal")
        for name in dict.fromkeys(ids):
            signal = self._signals.pop(name)
            self._add(signal, self._tables(signal), -1)

    def forget_all(self) -> None:
        """Take all signals away."""
        self._signals.clear()
        self._groups.clear()
        self._known = None

    def copied(self, shares: Callable[[str | None], float] | None = None) -> "Posterior":
        """A posterior of the same evidence, of which that of some topics may count less.

        Args:
            shares: of a topic, None for signals without one, from 0 to 1: an exponent of the likelihood (Ibrahim and Chen 2000).
                As here if not given.
        """
        made = copy(self)
        made._signals, made._known, made._shares = dict(self._signals), None, shares or self._shares
        made._groups = {
            key: _Group(each.count, {name: table.copy() for name, table in each.tables.items()})
            for key, each in self._groups.items()
        }
        return made

    def _tables(self, signal: Signal) -> dict[ModelName, Table]:
        if signal.traits != self._digest:
            raise PreferenceError(
                f"the signal {signal.id!r} is of answers measured by {signal.traits[:19]}..., and wants here are about "
                f"{self._digest[:19]}...; measure its answers again, or translate it (`soupmix.preference.kept.translated`)",
                reason="other-traits",
            )
        said = comparisons(signal, self.traits)
        return {
            name: np.sum([log_likelihood(c, of, self.how) for c in said], axis=0) for name, of in self.wants.items()
        }

    def _add(self, signal: Signal, tables: Mapping[ModelName, Table], sign: int) -> None:
        key = signal.source, signal.kind, signal.topic
        group = self._groups.setdefault(key, _Group())
        group.count += sign
        for name, table in tables.items():
            if name in group.tables:
                group.tables[name] += sign * table
            else:
                group.tables[name] = table
        if not group.count:
            del self._groups[key]
        self._known = None

    # --- what follows from it -----------------------------------------------------------------------------------------

    def _posterior(self) -> dict[ModelName, tuple[Numbers, float]]:
        """Of every model [sharpnesses, floors, particles] probabilities, and the log marginal likelihood of the evidence."""
        if self._known is None:
            self._known = {name: self._weighed(name) for name in self.wants}
        return self._known

    def _weighed(self, model: ModelName) -> tuple[Numbers, float]:
        shape = len(self.how.sharpness), len(self.how.floors), self.particles
        total = np.zeros(shape)
        for exponent, table in self._sums(model):
            total += (UNIT * exponent) * table
        most = total.max()
        total -= most
        np.exp(total, out=total)
        total *= self.how.weights[:, None, None]
        mass = float(total.sum())
        total /= mass
        return total, float(most + np.log(mass / (len(self.how.floors) * self.particles)))

    def _sums(self, model: ModelName) -> "Iterator[tuple[float, Table]]":
        """Sums of tables that have one exponent; whole numbers, in whichever topics they came."""
        sums: dict[tuple[str, Kind, float], Table] = {}
        sent: Counter[tuple[str, Kind]] = Counter()
        for (source, kind, topic), group in self._groups.items():
            key = source, kind, self._shares(topic)
            sums[key] = sums[key] + group.tables[model] if key in sums else group.tables[model]
            sent[source, kind] += group.count
        for source, kind, share in sorted(sums):
            counts = COUNTS[kind]
            bound = min(1.0, counts.most / (sent[source, kind] * counts.each))
            yield share * bound, sums[source, kind, share]

    def models(self) -> dict[ModelName, float]:
        """The probability of each model, by marginal likelihood, each as likely as the other before any evidence."""
        logs = {name: log for name, (_, log) in self._posterior().items()}
        most = max(logs.values())
        total = sum(np.exp(log - most) for log in logs.values())
        return {name: float(np.exp(log - most) / total) for name, log in logs.items()}

    @property
    def best(self) -> ModelName:
        """The model that makes the evidence likeliest; of equals the simpler one."""
        chances = self.models()
        return max(chances, key=lambda name: (chances[name], -MODELS.index(name)))

    def log_evidence(self, model: ModelName) -> float:
        """Log marginal likelihood of all signals under a model, in nats."""
        return self._posterior()[model][1]

    def cells(self, model: ModelName) -> Numbers:
        """[sharpnesses, floors, particles] probabilities of all that a model holds possible."""
        return self._posterior()[model][0]

    def probabilities(self, model: ModelName | None = None) -> Numbers:
        """[particles] probabilities of the particles of a model, the best one if none is named."""
        return np.asarray(self._posterior()[model or self.best][0].sum((0, 1)))

    def mean(self, model: ModelName | None = None) -> Numbers:
        """[traits] posterior mean of wants: shares or a direction, or the ideal point in standard units."""
        name = model or self.best
        return np.asarray(self.probabilities(name) @ self.wants[name].points)

    def covariance(self, model: ModelName | None = None) -> Numbers:
        """[traits, traits] posterior covariance of wants."""
        name = model or self.best
        chances, off = self.probabilities(name), self.wants[name].points - self.mean(name)
        return np.asarray(off.T @ (chances[:, None] * off))

    def intervals(self, level: float = 0.9, model: ModelName | None = None) -> Numbers:
        """[traits, 2] ends of the central credible intervals of wants.

        Args:
            level: the probability that each holds, between 0 and 1.
            model: the best one if none is named.
        """
        name = model or self.best
        chances, of, cut = self.probabilities(name), self.wants[name], (1 - level) / 2
        ends = [
            np.interp([cut, 1 - cut], np.cumsum(chances[order]) - chances[order] / 2, of.points[order, trait])
            for trait, order in enumerate(of.order)
        ]
        return np.array(ends)

    def sharpnesses(self, model: ModelName | None = None) -> Numbers:
        """[sharpnesses] probabilities of how strictly somebody chooses, along `how.sharpness`."""
        return np.asarray(self._posterior()[model or self.best][0].sum((1, 2)))

    def sharpness(self, model: ModelName | None = None) -> float:
        """Posterior mean of how strictly somebody chooses, in log-odds per unit of utility."""
        return float(self.sharpnesses(model) @ self.how.sharpness)

    def effective(self, model: ModelName | None = None) -> float:
        """How many equally likely particles would be as good (Kish); below about 20 intervals are coarse."""
        return float(1 / np.square(self.probabilities(model)).sum())

    def draws(self, count: int = 256) -> Draws:
        """Equally likely persons who are not careless, by systematic resampling: the same whenever the evidence is.

        Args:
            count: how many, at most.
        """
        parts = []
        for name, chance in self.models().items():
            share = round(count * chance)
            if share:
                careful = self.how.sharpness > 0
                table = self._posterior()[name][0][careful].transpose(2, 0, 1)  # neighbours lie side by side
                sums = np.cumsum(table)
                places = np.searchsorted(sums, sums[-1] * (np.arange(share) + 0.5) / share).clip(0, table.size - 1)
                particle, sharp, floor = np.unravel_index(places, table.shape)
                of = self.wants[name]
                drawn = Wants(name, of.points[particle], of.order[:, :0])
                parts.append((drawn, self.how.sharpness[careful][sharp], self.how.floors[floor]))
        return Draws(tuple(parts))

    def utility(self, among: Numbers, count: int = 256) -> "ExpectedUtility":
        """Expected utility of answers, from 0, the worst of some for each person, to 1, the best of them.

        It counts in shares of what lies between the two for people of the same model on average. By shares of each person alone,
        people who want opposite things would not cancel, and weights would move before any evidence. Nothing is expected of
        who is careless.

        Args:
            among: [answers, traits] standard units.
            count: over how many draws worst and best are.
        """
        parts, shares = [], self.models()
        for model, (worst, reach) in self.draws(count).reaches(among).items():
            careful = self._posterior()[model][0][self.how.sharpness > 0].sum((0, 1))
            of = self.wants[model]
            mean = Wants(model, (careful @ of.points / careful.sum())[None], of.order[:, :0])
            parts.append((mean, worst, shares[model] / max(reach, _LEAST_REACH)))
        return ExpectedUtility(tuple(parts))

    def expected_regret(self, points: Numbers, count: int = 256) -> Numbers:
        """[points] what a person is expected to lose if given one of these answers instead of the best of them for this person.

        Args:
            points: [points, traits] standard units.
            count: over how many draws.

        Returns:
            Shares of what lies between the best and the worst of them for every possible person.
        """
        return 1 - self.draws(count).mean_utility(points)

    def predict(self, first: Mapping[str, float], second: Mapping[str, float]) -> float:
        """The chance that the first of two answers is preferred.

        Args:
            first, second: their traits, in the units of the measures.

        Raises:
            PreferenceError: as `Traits.point` raises.
        """
        asked = Comparison(self.traits.point(first), self.traits.point(second))
        chance = 0.0
        for name, share in self.models().items():
            said = np.exp(UNIT * log_likelihood(asked, self.wants[name], self.how))
            chance += share * float((self._posterior()[name][0] * said).sum())
        return chance

    def to_dict(self) -> dict[str, Any]:
        """What people may read of it: means and 90 % intervals of both models, and how likely each is."""
        told = {}
        for name, chance in self.models().items():
            ends, mean = self.intervals(model=name), self.mean(name)
            wanted = {
                trait: {"mean": float(m), "low": float(low), "high": float(high)}
                for trait, m, (low, high) in zip(self.traits.names, mean, ends, strict=True)
            }
            told[name] = {"probability": chance, "sharpness": self.sharpness(name), "wants": wanted}
        return {"signals": len(self._signals), "best": self.best, "models": told}
