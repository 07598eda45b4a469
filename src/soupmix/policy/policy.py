"""The policy: documents of three tiers, intersected; the one way from weights to a grant."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from textwrap import shorten
from typing import cast, final

from soupmix.errors import PolicyError, PolicyRefusal, RecipeError
from soupmix.policy.adapters import AdapterRef, KnownAdapter, check_names, know
from soupmix.policy.assembly import (
    ScopedRule,
    check_order,
    duties,
    in_order,
    internal_reasons,
    measured,
    named,
    placed,
    total_budget,
    unproved,
)
from soupmix.policy.clock import Clock, Reading, When
from soupmix.policy.digest import digests_of
from soupmix.policy.documents import Document
from soupmix.policy.feasible import Asked, FeasibleSet
from soupmix.policy.grant import ClampResult, Grant, _granted
from soupmix.policy.kinds import Regions
from soupmix.policy.obligations import Obligation, united
from soupmix.policy.parsing import parse_document, read_text
from soupmix.policy.recent import Recent
from soupmix.policy.recorded import DocumentRef, Metric, RecordedGrant
from soupmix.policy.rules import SOURCES, Approve, Within, applies, check_attributes
from soupmix.policy.term import Term
from soupmix.policy.translate import Setting, built_in, own_bounds
from soupmix.projection import Ball, Region, box
from soupmix.projection.time_budget import time_budget
from soupmix.public import public
from soupmix.sealing import _by_maker, sealed
from soupmix.weights import Weights

__all__ = ["Policy", "Sources"]

Sources = str | Mapping[str, str]
"""Where weights come from: one word for all of them, or one by adapter name."""

_REMEMBERED, _OBLIGED = 4096, 256
_SECONDS = 5.0  # of a clamp


@public
@sealed(
    "a Policy comes from Policy.load, Policy.open or Policy.assemble, which read what it says, and has no subclasses",
    "a policy does not leave its process: load its documents there",
)
@final
@dataclass(frozen=True, slots=True, eq=False, init=False)
class Policy:
    """What may be mixed, how much, for whom. Made by `load`, `open` or `assemble` only, from what the documents say; immutable,
    and safe to share between threads.

    Attributes:
        former_digest: what records call this policy that were made before labels and norms were part of its digest.
        documents: which documents there are, outer tier first, those of a tier by digest, in whatever order they were given.
        notes: remarks for the author, for example a rule that concerns no known adapter.
    """

    former_digest: str
    documents: tuple[DocumentRef, ...]
    notes: tuple[str, ...]
    _digest: str = field(repr=False)
    _metric: Metric = field(repr=False)
    _is_open: bool = field(repr=False)
    _known: tuple[KnownAdapter, ...] = field(repr=False)
    _regions: Regions = field(repr=False)
    _duties: tuple[tuple[Within, Obligation], ...] = field(repr=False)
    _term: Term = field(repr=False)
    _clock: Clock = field(repr=False)
    _named: Mapping[str, frozenset[str]] = field(repr=False)
    _shown: tuple[ScopedRule, ...] = field(repr=False)
    # What every request needs, ready.
    _place: dict[str, int] = field(repr=False)
    _obliged: Recent[object, tuple[str, ...]] = field(repr=False)
    _remembered: Recent[object, ClampResult] = field(repr=False)

    @classmethod
    def load(
        cls,
        *paths: str | Path,
        adapters: Iterable[AdapterRef] = (),
        now: When = None,
        metric: Metric = "weights",
    ) -> "Policy":
        """Read documents, outer tier first, and intersect them with the built-in defaults.

        Defaults: every weight in [0, 1]; the poles of one dimension sum to at most 1; all weights to at most
        `adapters.total_budget` (integer millionths) if that attribute exists and is not None.

        A rule applies unless the request states an attribute that its scope excludes. So a request without attributes
        has the smallest feasible set of all, and showing here that it is not empty shows it for every request.

        Args:
            paths: YAML files, one document each; law before organisation before user.
            adapters: usually a store. Without it, the approve rules say which adapters there are.
            now: the clock by which validity windows and reports are judged, read once here and again in every clamp; the
                machine's if not given. A datetime goes on from there, see `soupmix.policy.clock.When`.
            metric: what the clamp keeps small: the change of the weights, or of the merged delta (Gram matrix of the store).

        Raises:
            PolicyError: a document is unreadable, wrong or outside its validity window, the tiers are out of order,
                or no weights satisfy all rules (naming a minimal set of conflicting ones); there is no such metric ("metric").
        """
        if not paths:
            raise PolicyError(
                "no policy documents given; to go without, say so with Policy.open(adapters)", reason="empty"
            )
        documents = [(path.name, parse_document(read_text(path), path.name)) for path in map(Path, paths)]
        return cls.assemble(documents, adapters, now=now, metric=metric)

    @classmethod
    def open(cls, adapters: Iterable[AdapterRef], *, metric: Metric = "weights") -> "Policy":
        """No documents: nothing but the built-in defaults applies, and every grant says so. Raises as `load` does."""
        return cls.assemble((), adapters, metric=metric)

    @classmethod
    def assemble(
        cls,
        documents: Sequence[tuple[str, Document]],
        adapters: Iterable[AdapterRef] = (),
        *,
        now: When = None,
        metric: Metric = "weights",
        expiries: Mapping[str, datetime] = {},
        remarks: Iterable[str] = (),
    ) -> "Policy":
        """A policy from parsed documents, each with the name that messages use for it. Raises as `load` does.

        Args:
            documents: (what messages call it, the document), outer tier first.
            adapters: as for `load`.
            now: as for `load`.
            metric: as for `load`.
            expiries: until when the signed sets that documents come from may be believed, by what messages call the set.
            remarks: further notes.
        """
        check_order(documents)
        reading = Reading.of(now)
        term, said = Term.of(documents, expiries, reading), [document for _, document in documents]
        known, today = know(adapters, said), reading.at.date()
        rules, notes = placed(documents, Setting(known, today, unproved(said, today)))
        if documents and not any(isinstance(rule, Approve) for each in said for rule in each.rules):
            notes.append("no document approves adapters by digest, so any adapter of the store may be used")
        budget, space = total_budget(adapters), measured(known, adapters, metric)
        regions = Regions(rules, tuple(built_in(known, budget)), space)
        distance = space if metric == "delta" else None
        digest, former = digests_of(said, known, adapters, budget, distance, regions.kinds.constraints)
        regions.check()
        made = _by_maker(
            Policy,
            former_digest=former,
            documents=in_order(documents),
            notes=(*notes, *remarks),
            _digest=digest,
            _metric=metric,
            _is_open=not documents,
            _known=known,
            _regions=regions,
            _duties=duties(said),
            _term=term,
            _clock=reading.clock,
            _named=named(said),
            _shown=tuple(rule.shown() for rule in rules),
            _place={name: index for index, name in enumerate(space.names)},
            _obliged=Recent(_OBLIGED),
            _remembered=Recent(_REMEMBERED),
        )
        return cast(Policy, made)

    @property
    def digest(self) -> str:
        """ "sha256:..." of what the documents say, the built-in defaults, and all of the store that they rest on."""
        return self._digest

    @property
    def metric(self) -> Metric:
        """What the clamp keeps small, "weights" or "delta"."""
        return self._metric

    @property
    def is_open(self) -> bool:
        """Whether there are no documents, only the built-in defaults."""
        return self._is_open

    @property
    def ends(self) -> datetime | None:
        """The first instant (UTC) at which a document, a report or a signed set that it rests on counts no more, or None."""
        return self._term.ends

    @property
    def ended(self) -> bool:
        """Whether that instant has come, by the policy's clock; then it grants nothing any more."""
        return self._term.over(self._clock())

    @property
    def last_day(self) -> date | None:
        """The last day (UTC) on which everything that the documents say still counts, or None."""
        return self._term.last_day

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters that a request may name, sorted."""
        return tuple(sorted(adapter.name for adapter in self._known))

    @property
    def rules(self) -> tuple[ScopedRule, ...]:
        """All rules of all documents, in order: copies, which no clamp reads."""
        return self._shown

    @property
    def norm_rules(self) -> tuple[ScopedRule, ...]:
        """The rules that bound the norm of the merged delta, of whomever."""
        return tuple(shown for shown, rule in zip(self._shown, self._regions.rules, strict=True) if rule.of(Ball))

    def bounds(self) -> dict[str, tuple[int, int]]:
        """Least and most of every adapter's weight in millionths by the rules on that adapter alone which hold in every scope.

        A box around all grants that this policy can give, for whoever multiplies by weights and wants to check once more.
        """
        always = [rule for rule in self._regions.rules if not rule.within and not rule.exempt]
        limits = [*self._regions.defaults, *(each for rule in always for each in rule.constraints)]
        return dict(zip(self._place, box(len(self._place), limits), strict=True))

    def clamp(
        self,
        requested: Asked,
        /,
        *,
        sources: Sources = {},  # noqa: B006  # never changed
        **attributes: str,
    ) -> Grant:
        """The feasible weights nearest to `requested` (exact, then rounded inside to whole millionths).

        Args:
            requested: weights, or whatever `Weights` takes.
            sources: where the weights come from, "explicit", "stored" or "inferred": one word for all, or one by adapter
                name. A weight whose source is not said counts as from none of the allowed sources.
            attributes: jurisdiction, audience, purpose, tenant. One that is not given counts as "every rule applies".

        Raises:
            WeightError: a bad number, or a name that the policy does not know (reason "unknown-adapter").
            RecipeError: an attribute or source that does not exist (reasons "unknown-attribute", "unknown-source"), or a
                value that none can have (reason "bad-attribute").
            PolicyRefusal: a rule refuses instead of clamping (reason "refused-by-rule"), something that the documents rest on
                has ended since they were loaded ("ended"), it takes more than five seconds ("too-slow"), or the rules for
                requests of this kind are too much to decide ("too-many-combinations", "too-costly").
        """
        return self._grant(requested, attributes, sources)

    def _grant(self, requested: Asked, attributes: Mapping[str, str], sources: Sources = {}) -> Grant:  # noqa: B006
        """`clamp` for attributes from outside: as keywords, one called `sources` would be taken for the argument."""
        weights = Weights(requested)
        check_attributes(attributes)
        check_names(weights, self._place)
        self._term.check(self._clock())
        kind = self._regions.kinds.kind(attributes, self._by_coordinate(sources))
        result = self._clamped(weights.along(self._regions.space.names), kind)
        result.check()
        ball = self._regions.kinds.ball(kind)
        return _granted(
            result,
            requested=weights,
            policy_digest=self._digest,
            scope=tuple(sorted(attributes.items())),
            is_open=self._is_open,
            metric=self._metric,
            sources=(("*", sources),) if isinstance(sources, str) else tuple(sorted(sources.items())),
            obligations=self.obligations(attributes),
            norm_rule=None if ball is None else str(ball.rule),
            documents=self.documents,
            notes=self._unnamed(attributes),
        )

    @property
    def values(self) -> dict[str, tuple[str, ...]]:
        """Attribute -> the values that the scopes of documents name, sorted; without those of which they name none."""
        return {key: tuple(sorted(values)) for key, values in self._named.items()}

    def _unnamed(self, attributes: Mapping[str, str]) -> tuple[str, ...]:
        """What is noted of values that no scope names: misspelt, one is outside of every scope that it was meant for."""
        return tuple(
            [
                f"no document names the {key} {value}, so what is for others by this attribute does not hold"
                for key, value in sorted(attributes.items())
                if value not in self._named.get(key, (value,))
            ]
        )

    def feasible(self, /, *, sources: Sources = {}, **attributes: str) -> FeasibleSet:  # noqa: B006  # never changed
        """All that `clamp` could grant to requests that say this of themselves, now.

        Args:
            sources: as of `clamp`.
            attributes: as of `clamp`; what is not said counts as "every rule applies".

        Raises:
            RecipeError: an attribute or source that does not exist, or a value that none can have.
            WeightError: a source is given of an adapter that the policy does not know (reason "unknown-adapter").
            PolicyRefusal: something that the documents rest on has ended since they were loaded ("ended"), or the rules for
                requests of this kind are too much to decide ("too-many-combinations", "too-costly", "too-slow").
        """
        return self._feasible(attributes, sources)

    def _feasible(
        self, attributes: Mapping[str, str], sources: Sources, bounds: Mapping[str, tuple[int, int]] | None = None
    ) -> FeasibleSet:
        """`feasible` for attributes from outside, see `_grant`; and beside what a person sets for themselves.

        Args:
            bounds: least and most of single weights in millionths.

        Raises:
            WeightError: a bound is given of an adapter that the policy does not know (reason "unknown-adapter").
            PolicyRefusal: the bounds leave nothing (reason "conflict"), or as `feasible`.
        """
        check_attributes(attributes)
        check_names(bounds or {}, self._place)
        self._term.check(self._clock())
        kind = self._regions.kinds.kind(attributes, self._by_coordinate(sources))
        with _in_time():
            region = self._regions.region(kind)
            if bounds:
                own = own_bounds(self._known, bounds)
                region = Region.compile([*self._regions.constraints(kind), *own], self._regions.space)
            return FeasibleSet(self.names, self._digest, region)

    def obligations(self, attributes: Mapping[str, str]) -> tuple[str, ...]:
        """What all documents in scope of these attributes oblige to, united."""
        key = tuple([applies(limits, attributes) for limits, _ in self._duties])
        found = self._obliged.get(key)
        if found is None:
            owed = united(each for (_, each), holds in zip(self._duties, key, strict=True) if holds)
            found = self._obliged.keep(key, owed)
        return found

    def internal_reasons(self, grant: RecordedGrant) -> dict[str, str]:
        """Internal reasons of the rules that bound, by "document rule": for the issuers' own people, never for an answer."""
        return internal_reasons(self._regions.rules, grant)

    def check(self, requested: Asked, /, *, sources: Sources = {}, **attributes: str) -> None:  # noqa: B006  # never changed
        """Whether a request could be asked at all, whatever would be granted; arguments and errors as of `clamp`.

        Raises:
            WeightError: a bad number, or a name that the policy does not know.
            RecipeError: an attribute or source that does not exist, or a value that none can have.
        """
        self._check(requested, attributes, sources)

    def _check(self, requested: Asked, attributes: Mapping[str, str], sources: Sources) -> None:
        """`check` for attributes from outside, see `_grant`."""
        weights = Weights(requested)
        check_attributes(attributes)
        check_names(weights, self._place)
        self._by_coordinate(sources)

    def _by_coordinate(self, sources: Sources) -> dict[int, str]:
        """Sources by coordinate, of those that are said."""
        for source in (sources,) if isinstance(sources, str) else sources.values():
            if source not in SOURCES:
                raise RecipeError(
                    f"unknown source {source!r:.80} of weights; known are {', '.join(SOURCES)}", reason="unknown-source"
                )
        if isinstance(sources, str):
            return dict.fromkeys(self._place.values(), sources)
        check_names(sources, self._place)
        return {self._place[name]: source for name, source in sources.items()}

    def _clamped(self, asked: tuple[int, ...], kind: int) -> ClampResult:
        found = self._remembered.get((kind, asked))
        if found is None:
            with _in_time():
                projected = self._regions.region(kind).project(asked)
            found = self._remembered.keep((kind, asked), ClampResult.of(projected, self._known))
        return found

    def __repr__(self) -> str:
        documents = ", ".join(dict.fromkeys(each.ref.document for each in self.rules))
        said = shorten(documents, 80, placeholder=" ...") or "no documents"
        return f"<Policy of {said} for {len(self.names)} adapters, {self._digest[:19]}...>"


@contextmanager
def _in_time() -> Iterator[None]:
    """The time budget of a clamp; a kind of request that was not tried when the policy was loaded is refused, not an error."""
    try:
        with time_budget(_SECONDS):
            yield
    except PolicyError as error:
        raise PolicyRefusal(str(error), reason=error.reason) from error
