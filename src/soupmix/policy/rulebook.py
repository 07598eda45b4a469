"""The policy: documents of three tiers, intersected; the one way from weights to a grant."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.policy.asking import Sources, by_index, check_attributes, check_names
from soupmix.policy.assembly import (
    Placed,
    check_order,
    internal_reasons,
    measured,
    placed,
    total_budget,
    unproved,
)
from soupmix.policy.digest import digest_without, digests_of
from soupmix.policy.documents import Document
from soupmix.policy.grant import Grant
from soupmix.policy.known import AdapterRef, Known, know
from soupmix.policy.obligations import Obligation, united
from soupmix.policy.outcome import Outcome
from soupmix.policy.pieces import Constraint, Piece, RuleRef, Setting, exempt
from soupmix.policy.reading import check_window, parse_document, read_text
from soupmix.policy.recorded import RecordedGrant
from soupmix.policy.region import Region, Space
from soupmix.policy.rules import Approve, Within, applies, within
from soupmix.policy.translate import built_in
from soupmix.weights import MILLION, Weights

__all__ = ["Metric", "Policy"]

Metric = Literal["weights", "delta"]
_REMEMBERED = 4096


def _clock() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """What may be mixed, how much, for whom. Made by `load` or `open`; immutable, and safe to share between threads.

    Attributes:
        digest: "sha256:..." of what the documents say, the built-in defaults, and all of the store that they rest on.
        former_digest: what records call this policy that were made before labels and norms were part of its digest.
        notes: remarks for the author, for example a rule that concerns no known adapter.
        metric: what the clamp keeps small, "weights" or "delta".
        is_open: whether there are no documents, only the built-in defaults.
        last_day: the last day (UTC) on which everything that these documents rest on still counts, or None.
    """

    digest: str
    former_digest: str
    notes: tuple[str, ...]
    metric: Metric
    is_open: bool
    last_day: date | None
    _space: Space = field(repr=False)
    _known: tuple[Known, ...] = field(repr=False)
    _defaults: tuple[Constraint, ...] = field(repr=False)
    _rules: tuple[Placed, ...] = field(repr=False)
    _duties: tuple[tuple[Within, Obligation], ...] = field(repr=False)
    _now: Callable[[], datetime] = field(repr=False)
    # What every request needs, ready.
    _place: dict[str, int] = field(repr=False, init=False)
    _scoped: tuple[Placed, ...] = field(repr=False, init=False)
    _minded: frozenset[int] = field(repr=False, init=False)
    _compiled: dict[object, Region] = field(repr=False, init=False, default_factory=dict)
    _obliged: dict[object, tuple[str, ...]] = field(repr=False, init=False, default_factory=dict)
    _remembered: dict[object, Outcome] = field(repr=False, init=False, default_factory=dict)

    def __post_init__(self) -> None:
        minded = {each.minds for rule in self._rules for each in rule.pieces if isinstance(each, Constraint)}
        object.__setattr__(self, "_place", {name: index for index, name in enumerate(self._space.names)})
        object.__setattr__(self, "_scoped", tuple(rule for rule in self._rules if rule.within))
        object.__setattr__(self, "_minded", frozenset(minded - {None}))

    @classmethod
    def load(
        cls,
        *paths: str | Path,
        adapters: Iterable[AdapterRef] = (),
        now: datetime | None = None,
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
            now: the time to judge validity windows and reports by, here and in every clamp; the clock's if not given.
            metric: what the clamp keeps small: the change of the weights, or of the merged delta (Gram matrix of the store).

        Raises:
            PolicyError: a document is unreadable, wrong or outside its validity window, the tiers are out of order,
                or no weights satisfy all rules (naming a minimal set of conflicting ones).
        """
        if not paths:
            raise PolicyError(
                "no policy documents given; to go without, say so with Policy.open(adapters)", reason="empty"
            )
        when = now or _clock()
        documents = []
        for path in map(Path, paths):
            document = parse_document(read_text(path), path.name)
            check_window(document, path.name, when)
            documents.append((path.name, document))
        return cls.assemble(documents, adapters, now=now, metric=metric)

    @classmethod
    def open(cls, adapters: Iterable[AdapterRef], *, metric: Metric = "weights") -> "Policy":
        """No documents: nothing but the built-in defaults applies, and every grant says so."""
        return cls.assemble((), adapters, metric=metric)

    @classmethod
    def assemble(
        cls,
        documents: Sequence[tuple[str, Document]],
        adapters: Iterable[AdapterRef] = (),
        *,
        now: datetime | None = None,
        metric: Metric = "weights",
    ) -> "Policy":
        """A policy from parsed documents, each with the name that messages use for it. Raises as `load` does."""
        check_order(documents)
        said = [document for _, document in documents]
        known, today = know(adapters, said), (now or _clock()).astimezone(UTC).date()
        rules, notes = placed(documents, Setting(known, today, unproved(said, today)))
        if documents and not any(isinstance(rule, Approve) for each in said for rule in each.rules):
            notes.append("no document approves adapters by digest, so any adapter of the store may be used")
        budget, space = total_budget(adapters), measured(known, adapters, metric)
        pieces, distance = [piece for rule in rules for piece in rule.pieces], space if metric == "delta" else None
        digest, former = digests_of(said, known, adapters, budget, distance, pieces)
        days = [day for document in said for day in document.days() if day >= today]
        made = cls(
            digest=digest,
            former_digest=former,
            notes=tuple(notes),
            metric=metric,
            is_open=not documents,
            last_day=min(days, default=None),
            _space=space,
            _known=known,
            _defaults=tuple(built_in(known, budget)),
            _rules=rules,
            _duties=tuple(
                (within(said_by.scope, each.scope), each) for said_by in said for each in said_by.obligations
            ),
            _now=_clock if now is None else lambda: now,
        )
        made.region({}, {})
        return made

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters that a request may name, sorted."""
        return tuple(sorted(adapter.name for adapter in self._known))

    @property
    def adapters(self) -> tuple[tuple[str, str], ...]:
        """(name, digest) of the adapters, in the order of the space's coordinates."""
        return tuple((adapter.name, adapter.digest) for adapter in self._known)

    @property
    def space(self) -> Space:
        """The adapters as coordinates, with their inner products."""
        return self._space

    @property
    def placed(self) -> tuple[Placed, ...]:
        """All rules of all documents, in their places."""
        return self._rules

    def without(self, rule: RuleRef) -> "Policy":
        """This policy with one rule left out, to see what the rule does; another policy, so it has another digest."""
        kept = tuple(each for each in self._rules if each.ref != rule)
        return replace(self, _rules=kept, digest=digest_without(self.digest, rule))

    def bounds(self) -> dict[str, tuple[int, int]]:
        """Least and most of every adapter's weight in millionths by the rules on that adapter alone which hold in every scope.

        A box around all grants that this policy can give, for whoever multiplies by weights and wants to check once more.
        """
        box = {adapter.name: [0, MILLION] for adapter in self._known}
        always = [rule for rule in self._rules if not rule.within]
        for each in (*self._defaults, *(found for rule in always for found in rule.pieces)):
            if not isinstance(each, Constraint) or each.unless:
                continue
            match [(adapter.name, coef) for adapter, coef in zip(self._known, each.coefs, strict=True) if coef]:
                case [(name, 1)]:
                    box[name][1] = min(box[name][1], each.bound)
                case [(name, -1)]:
                    box[name][0] = max(box[name][0], -each.bound)
        return {name: (least, most) for name, (least, most) in box.items()}

    def clamp(
        self,
        requested: Weights | Mapping[str, int | float | str] | str,
        /,
        *,
        sources: Sources = {},  # noqa: B006  # never changed
        **attributes: str,
    ) -> Grant:
        """The feasible weights nearest to `requested` (exact, then rounded inside to whole millionths).

        Args:
            requested: weights, or whatever `Weights.parse` takes.
            sources: where the weights come from, "explicit", "stored" or "inferred": one word for all, or one by adapter
                name. A weight whose source is not said is taken by every rule on sources.
            attributes: jurisdiction, audience, purpose, tenant. One that is not given counts as "every rule applies".

        Raises:
            WeightError: a bad number, or a name that the policy does not know (reason "unknown-adapter").
            RecipeError: an attribute or source that does not exist (reasons "unknown-attribute", "unknown-source"), or a
                value that none can have (reason "bad-attribute").
            PolicyRefusal: a rule refuses instead of clamping (reason "refused-by-rule"), or something that the documents rest
                on has ended since they were loaded (reason "ended").
        """
        weights = Weights.parse(requested)
        check_attributes(attributes)
        check_names(weights, self._place)
        self._check_day()
        outcome = self._outcome(weights.along(self._space.names), attributes, by_index(sources, self._place))
        outcome.check()
        return Grant(
            requested=weights,
            granted=outcome.granted.copy(),  # nobody holds what is remembered
            adapter_digests=outcome.adapter_digests,
            binding=outcome.binding,
            policy_digest=self.digest,
            scope=tuple(sorted(attributes.items())),
            is_open=self.is_open,
            distance=outcome.distance,
            metric=self.metric,
            sources=(("*", sources),) if isinstance(sources, str) else tuple(sorted(sources.items())),
            obligations=self.obligations(attributes),
            seal=outcome.seal,
        )

    def obligations(self, attributes: Mapping[str, str]) -> tuple[str, ...]:
        """What all documents in scope of these attributes oblige to, united."""
        key = tuple([applies(limits, attributes) for limits, _ in self._duties])
        found = self._obliged.get(key)
        if found is None:
            found = self._obliged[key] = united(each for limits, each in self._duties if applies(limits, attributes))
        return found

    def internal_reasons(self, grant: RecordedGrant) -> dict[str, str]:
        """Internal reasons of the rules that bound, by "source rule": for the issuers' own people, never for an answer."""
        return internal_reasons(self._rules, grant)

    def region(self, attributes: Mapping[str, str], sources: Mapping[int, str]) -> Region:
        """The feasible set for these attributes, and sources by adapter index."""
        # Keyed by which rules apply, not by what the request says: a stranger cannot grow it with new values.
        key = self.kind(attributes, sources)
        region = self._compiled.get(key)
        if region is None:
            region = self._compiled[key] = Region.compile(self.pieces(attributes, sources), self._space)
        return region

    def pieces(self, attributes: Mapping[str, str], sources: Mapping[int, str]) -> list[Piece]:
        """Everything that holds for these attributes and sources."""
        chosen = [each for rule in self._rules if rule.applies(attributes) for each in rule.pieces]
        return [*self._defaults, *(each for each in chosen if not exempt(each, sources))]

    def kind(self, attributes: Mapping[str, str], sources: Mapping[int, str]) -> tuple[object, ...]:
        """Which rules apply to a request, and from which sources: requests of one kind have one feasible set."""
        applying = tuple([rule.applies(attributes) for rule in self._scoped])
        return applying, tuple(sorted([each for each in sources.items() if each[0] in self._minded])) if sources else ()

    def _outcome(self, asked: tuple[int, ...], attributes: Mapping[str, str], sources: Mapping[int, str]) -> Outcome:
        kind = self.kind(attributes, sources)
        found = self._remembered.get((kind, asked))
        if found is None:
            found = Outcome.of(self.region(attributes, sources).clamp(asked), self._known)
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[kind, asked] = found
        return found

    def _check_day(self) -> None:
        if self.last_day is not None and self._now().astimezone(UTC).date() > self.last_day:
            raise PolicyRefusal(
                f"a policy document, or an evaluation report that it rests on, ended on {self.last_day}; "
                "renew it and load the policy again",
                reason="ended",
            )
