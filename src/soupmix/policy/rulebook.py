"""The policy: documents of three tiers, intersected; the one way from weights to a grant."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.policy.asking import Sources, by_index, check_attributes, check_names
from soupmix.policy.assembly import Placed, check_order, digest_of, measured, placed, total_budget, unproved
from soupmix.policy.documents import Document
from soupmix.policy.grant import SEAL, Grant
from soupmix.policy.known import AdapterRef, Known, know
from soupmix.policy.obligations import united
from soupmix.policy.outcome import bindings, check_refusal, root_text
from soupmix.policy.pieces import Constraint, Piece, RuleRef, Setting
from soupmix.policy.reading import check_window, parse_document, read_text
from soupmix.policy.region import Clamped, Region, Space
from soupmix.policy.rules import Approve
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
        digest: "sha256:..." over what the documents say and the built-in defaults, whatever the files are called.
        notes: remarks for the author, for example a rule that concerns no known adapter.
        metric: what the clamp keeps small, "weights" or "delta".
        last_day: the last day (UTC) on which everything that these documents rest on still counts, or None.
    """

    digest: str
    notes: tuple[str, ...]
    metric: Metric
    last_day: date | None
    _space: Space = field(repr=False)
    _known: tuple[Known, ...] = field(repr=False)
    _defaults: tuple[Constraint, ...] = field(repr=False)
    _rules: tuple[Placed, ...] = field(repr=False)
    _documents: tuple[Document, ...] = field(repr=False)
    _now: Callable[[], datetime] = field(repr=False)
    _compiled: dict[object, Region] = field(repr=False, default_factory=dict)
    _remembered: dict[object, Clamped] = field(repr=False, default_factory=dict)

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
        days = [day for document in said for day in document.days() if day >= today]
        made = cls(
            digest=digest_of(said, budget, space if metric == "delta" else None),
            notes=tuple(notes),
            metric=metric,
            last_day=min(days, default=None),
            _space=space,
            _known=known,
            _defaults=tuple(built_in(known, budget)),
            _rules=rules,
            _documents=tuple(said),
            _now=_clock if now is None else lambda: now,
        )
        made.region({}, {})
        return made

    @property
    def is_open(self) -> bool:
        """Whether there are no documents, only the built-in defaults."""
        return not self._documents

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
        """This policy with one rule left out, to see what the rule does; its digest stays, so it must not be granted from."""
        kept = tuple(each for each in self._rules if each.ref != rule)
        return replace(self, _rules=kept, _compiled={}, _remembered={})

    def bounds(self) -> dict[str, tuple[int, int]]:
        """Least and most of every adapter's weight in millionths by the rules on that adapter alone which hold in every scope.

        A box around all grants that this policy can give, for whoever multiplies by weights and wants to check once more.
        """
        box = {adapter.name: [0, MILLION] for adapter in self._known}
        always = [rule for rule in self._rules if not any(scope.given() for scope in rule.scopes)]
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
        check_names(weights, self._space.names)
        self._check_day()
        stated = by_index(sources, self._space.names)
        asked = tuple(weights.get(adapter.name, 0) for adapter in self._known)
        found = self._clamped(asked, attributes, stated)
        changed = {adapter.name for adapter, a, g in zip(self._known, asked, found.granted, strict=True) if a != g}
        binding = bindings(found.pulls, self._known, changed)
        check_refusal(found.pulls, binding)
        used = [(adapter, micro) for adapter, micro in zip(self._known, found.granted, strict=True) if micro]
        return Grant(
            requested=weights,
            granted=Weights.from_micro({adapter.name: micro for adapter, micro in used}),
            adapter_digests=tuple(sorted((adapter.name, adapter.digest) for adapter, _ in used)),
            binding=binding,
            policy_digest=self.digest,
            scope=tuple(sorted(attributes.items())),
            is_open=self.is_open,
            distance=root_text(found.distance, self._space) if changed else "0",
            metric=self.metric,
            sources=tuple(sorted({"*": sources}.items() if isinstance(sources, str) else sources.items())),
            obligations=self.obligations(attributes),
            seal=SEAL,
        )

    def obligations(self, attributes: Mapping[str, str]) -> tuple[str, ...]:
        """What all documents in scope of these attributes oblige to, united."""
        return united(
            each
            for document in self._documents
            for each in document.obligations
            if document.scope.applies(attributes) and each.scope.applies(attributes)
        )

    def internal_reasons(self, grant: Grant) -> dict[str, str]:
        """Internal reasons of the rules that bound, by "source rule": for the issuers' own people, never for an answer."""
        held = {(rule.ref.source, rule.ref.id): rule.ref.internal_reason for rule in self._rules}
        found = {(each.source, each.rule): held.get((each.source, each.rule)) for each in grant.binding}
        return {f"{source} {rule}": reason for (source, rule), reason in found.items() if reason}

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
        return [*self._defaults, *(each for each in chosen if not _exempt(each, sources))]

    def kind(self, attributes: Mapping[str, str], sources: Mapping[int, str]) -> tuple[object, ...]:
        """Which rules apply to a request, and from which: requests of one kind have one feasible set."""
        return tuple(rule.applies(attributes) for rule in self._rules), tuple(sorted(self._minded(sources).items()))

    def _clamped(self, asked: tuple[int, ...], attributes: Mapping[str, str], sources: Mapping[int, str]) -> Clamped:
        key = self.kind(attributes, sources), asked
        found = self._remembered.get(key)
        if found is None:
            found = self.region(attributes, sources).clamp(asked)
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = found
        return found

    def _minded(self, sources: Mapping[int, str]) -> dict[int, str]:
        """Sources of those adapters that a rule on sources concerns."""
        if not sources:
            return {}
        minded = {_source_of(each) for rule in self._rules for each in rule.pieces}
        return {index: source for index, source in sources.items() if index in minded}

    def _check_day(self) -> None:
        if self.last_day is not None and self._now().astimezone(UTC).date() > self.last_day:
            raise PolicyRefusal(
                f"a policy document, or an evaluation report that it rests on, ended on {self.last_day}; "
                "renew it and load the policy again",
                reason="ended",
            )


def _source_of(piece: Piece) -> int | None:
    """The index of the adapter whose weight depends on its source by this piece."""
    return piece.coefs.index(1) if isinstance(piece, Constraint) and piece.unless and 1 in piece.coefs else None


def _exempt(piece: Piece, sources: Mapping[int, str]) -> bool:
    index = _source_of(piece)
    return index is not None and isinstance(piece, Constraint) and sources.get(index) in piece.unless
