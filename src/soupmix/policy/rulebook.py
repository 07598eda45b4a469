"""The policy: documents of three tiers, intersected; the one way from weights to a grant."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, final

from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.policy.asking import Sources, by_index, check_attributes, check_names
from soupmix.policy.assembly import (
    Placed,
    check_order,
    duties,
    internal_reasons,
    measured,
    placed,
    total_budget,
    unproved,
)
from soupmix.policy.box import box
from soupmix.policy.clock import Clock, Reading, When
from soupmix.policy.digest import digest_without, digests_of
from soupmix.policy.documents import Document
from soupmix.policy.grant import ClampResult, Grant, _granted
from soupmix.policy.known import AdapterRef, Known, know
from soupmix.policy.obligations import Obligation, united
from soupmix.policy.patience import within as in_time
from soupmix.policy.pieces import Ball, Constraint, Piece, RuleRef, Setting
from soupmix.policy.reading import parse_document, read_text
from soupmix.policy.recent import Recent
from soupmix.policy.recorded import RecordedGrant
from soupmix.policy.region import Region
from soupmix.policy.regions import Regions
from soupmix.policy.rules import Approve, Within, applies
from soupmix.policy.space import Space
from soupmix.policy.term import Term
from soupmix.policy.translate import built_in
from soupmix.weights import Weights

__all__ = ["Metric", "Policy"]

Metric = Literal["weights", "delta"]
_REMEMBERED, _OBLIGED = 4096, 256
_SECONDS = 5.0  # of a clamp
_SEAL: Final = object()


@final
@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """What may be mixed, how much, for whom. Made by `load`, `open` or `assemble` only, from what the documents say; immutable,
    and safe to share between threads.

    Attributes:
        former_digest: what records call this policy that were made before labels and norms were part of its digest.
        notes: remarks for the author, for example a rule that concerns no known adapter.
    """

    former_digest: str
    notes: tuple[str, ...]
    _digest: str = field(repr=False)
    _metric: Metric = field(repr=False)
    _is_open: bool = field(repr=False)
    _space: Space = field(repr=False)
    _known: tuple[Known, ...] = field(repr=False)
    _defaults: tuple[Constraint, ...] = field(repr=False)
    _rules: tuple[Placed, ...] = field(repr=False)
    _duties: tuple[tuple[Within, Obligation], ...] = field(repr=False)
    _term: Term = field(repr=False)
    _clock: Clock = field(repr=False)
    seal: InitVar[object] = None
    # What every request needs, ready.
    _place: dict[str, int] = field(repr=False, init=False)
    _regions: Regions = field(repr=False, init=False)
    _obliged: Recent[object, tuple[str, ...]] = field(repr=False, init=False, default_factory=lambda: Recent(_OBLIGED))
    _remembered: Recent[object, ClampResult] = field(
        repr=False, init=False, default_factory=lambda: Recent(_REMEMBERED)
    )

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("a Policy comes from Policy.load, Policy.open or Policy.assemble, which read what it says")
        object.__setattr__(self, "_place", {name: index for index, name in enumerate(self._space.names)})
        object.__setattr__(self, "_regions", Regions.of(self._rules, self._defaults, self._space))

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("a Policy has no kinds: what it grants rests on its documents alone")

    def __copy__(self) -> "Policy":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Policy":
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a policy does not leave its process: load its documents there")

    def __setstate__(self, state: object) -> NoReturn:
        raise TypeError("a policy is made from documents, not from the state of another")

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
            now: whose time validity windows and reports are judged by: by one reading here, and anew in every clamp; the
                machine's if not given. A datetime goes on from there, see `soupmix.policy.clock.When`.
            metric: what the clamp keeps small: the change of the weights, or of the merged delta (Gram matrix of the store).

        Raises:
            PolicyError: a document is unreadable, wrong or outside its validity window, the tiers are out of order,
                or no weights satisfy all rules (naming a minimal set of conflicting ones).
        """
        if not paths:
            raise PolicyError(
                "no policy documents given; to go without, say so with Policy.open(adapters)", reason="empty"
            )
        documents = [(path.name, parse_document(read_text(path), path.name)) for path in map(Path, paths)]
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
        now: When = None,
        metric: Metric = "weights",
        expiries: Mapping[str, datetime] = {},
        remarks: Iterable[str] = (),
    ) -> "Policy":
        """A policy from parsed documents, each with the name that messages use for it. Raises as `load` does.

        Args:
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
        pieces, distance = [piece for rule in rules for piece in rule.pieces], space if metric == "delta" else None
        digest, former = digests_of(said, known, adapters, budget, distance, pieces)
        made = cls(
            former_digest=former,
            notes=(*notes, *remarks),
            _digest=digest,
            _metric=metric,
            _is_open=not documents,
            _space=space,
            _known=known,
            _defaults=tuple(built_in(known, budget)),
            _rules=rules,
            _duties=duties(said),
            _term=term,
            _clock=reading.clock,
            seal=_SEAL,
        )
        made._regions.check(rules)
        return made

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

    @property
    def norm_rules(self) -> tuple[Placed, ...]:
        """The rules that bound the norm of the merged delta, of whomever."""
        return tuple(rule for rule in self._rules if rule.of(Ball))

    def without(self, rule: RuleRef) -> "Policy":
        """This policy with one rule left out, to see what the rule does; another policy, so it has another digest."""
        kept = tuple(each for each in self._rules if each.ref != rule)
        return replace(self, _rules=kept, _digest=digest_without(self._digest, rule), seal=_SEAL)

    def bounds(self) -> dict[str, tuple[int, int]]:
        """Least and most of every adapter's weight in millionths by the rules on that adapter alone which hold in every scope.

        A box around all grants that this policy can give, for whoever multiplies by weights and wants to check once more.
        """
        always = [each for rule in self._rules if not rule.within for each in rule.pieces]
        return box(self._space.names, [*self._defaults, *always])

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
            PolicyRefusal: a rule refuses instead of clamping (reason "refused-by-rule"), something that the documents rest on
                has ended since they were loaded ("ended"), it takes more than five seconds ("too-slow"), or the rules for
                requests of this kind are too much to decide ("too-many-combinations", "too-costly").
        """
        weights = Weights.parse(requested)
        check_attributes(attributes)
        check_names(weights, self._place)
        self._term.check(self._clock())
        kind = self.kind(attributes, by_index(sources, self._place))
        result = self._clamped(weights.along(self._space.names), kind)
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
        )

    def obligations(self, attributes: Mapping[str, str]) -> tuple[str, ...]:
        """What all documents in scope of these attributes oblige to, united."""
        key = tuple([applies(limits, attributes) for limits, _ in self._duties])
        found = self._obliged.get(key)
        if found is None:
            owed = united(each for (_, each), holds in zip(self._duties, key, strict=True) if holds)
            found = self._obliged.keep(key, owed)
        return found

    def internal_reasons(self, grant: RecordedGrant) -> dict[str, str]:
        """Internal reasons of the rules that bound, by "source rule": for the issuers' own people, never for an answer."""
        return internal_reasons(self._rules, grant)

    def region(self, attributes: Mapping[str, str], sources: Mapping[int, str]) -> Region:
        """The feasible set for these attributes, and sources by adapter index."""
        return self._regions.region(self.kind(attributes, sources))

    def pieces(self, attributes: Mapping[str, str], sources: Mapping[int, str]) -> list[Piece]:
        """Everything that holds for these attributes and sources."""
        return self._regions.pieces(self.kind(attributes, sources))

    def kind(self, attributes: Mapping[str, str], sources: Mapping[int, str]) -> int:
        """Which pieces apply to a request, see `Kinds`: requests of one kind have one feasible set."""
        return self._regions.kinds.kind(attributes, sources)

    @property
    def minds_sources(self) -> bool:
        """Whether any rule asks where weights come from."""
        return bool(self._regions.kinds.minding)

    def _clamped(self, asked: tuple[int, ...], kind: int) -> ClampResult:
        found = self._remembered.get((kind, asked))
        if found is None:
            try:
                with in_time(_SECONDS):
                    clamped = self._regions.region(kind).clamp(asked)
            except PolicyError as error:  # of a kind that was not tried when the policy was loaded
                raise PolicyRefusal(str(error), reason=error.reason) from error
            found = self._remembered.keep((kind, asked), ClampResult.of(clamped, self._known))
        return found
