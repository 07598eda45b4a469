"""The policy: documents of three tiers, intersected; the one way from weights to a grant."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

from soupmix.errors import PolicyError, RecipeError, WeightError
from soupmix.files import canonical_json
from soupmix.policy.constraints import Constraint, RuleRef, built_in, place, translate
from soupmix.policy.documents import ATTRIBUTES, TIERS, Approve, Document, Scope, check_value
from soupmix.policy.grant import SEAL, Binding, Grant
from soupmix.policy.known import AdapterRef, Known, know
from soupmix.policy.reading import check_window, parse_document, read_text
from soupmix.policy.region import Region
from soupmix.weights import MILLION, Weights

__all__ = ["Policy"]


@dataclass(frozen=True, slots=True)
class _Placed:
    """A rule with the scopes that decide whether it applies, and its constraints."""

    ref: RuleRef
    scopes: tuple[Scope, ...]
    constraints: tuple[Constraint, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """What may be mixed, how much, for whom. Made by `load` or `open`; immutable, and safe to share between threads.

    Attributes:
        digest: "sha256:..." over what the documents say and the built-in defaults, whatever the files are called.
        notes: remarks for the author, for example a rule that concerns no known adapter.
    """

    digest: str
    notes: tuple[str, ...]
    _known: tuple[Known, ...] = field(repr=False)
    _defaults: tuple[Constraint, ...] = field(repr=False)
    _rules: tuple[_Placed, ...] = field(repr=False)
    _documents: tuple[Document, ...] = field(repr=False)
    _compiled: dict[tuple[bool, ...], Region] = field(repr=False, default_factory=dict)

    @classmethod
    def load(cls, *paths: str | Path, adapters: Iterable[AdapterRef] = (), now: datetime | None = None) -> "Policy":
        """Read documents, outer tier first, and intersect them with the built-in defaults.

        Defaults: every weight in [0, 1]; the poles of one dimension sum to at most 1; all weights to at most
        `adapters.total_budget` (integer millionths) if that attribute exists and is not None.

        A rule applies unless the request states an attribute that its scope excludes. So a request without attributes
        has the smallest feasible set of all, and showing here that it is not empty shows it for every request.

        Args:
            paths: YAML files, one document each; law before organisation before user.
            adapters: usually a store. Without it, the approve rules say which adapters there are.
            now: the time to judge validity windows by; the clock's if not given.

        Raises:
            PolicyError: a document is unreadable, wrong or outside its validity window, the tiers are out of order,
                or no weights satisfy all rules (naming a minimal set of conflicting ones).
        """
        if not paths:
            raise PolicyError(
                "no policy documents given; to go without, say so with Policy.open(adapters)", reason="empty"
            )
        when = now or datetime.now(UTC)
        documents = []
        for path in map(Path, paths):
            document = parse_document(read_text(path), path.name)
            check_window(document, path.name, when)
            documents.append((path.name, document))
        return cls.assemble(documents, adapters)

    @classmethod
    def open(cls, adapters: Iterable[AdapterRef]) -> "Policy":
        """No documents: nothing but the built-in defaults applies, and every grant says so."""
        return cls.assemble((), adapters)

    @classmethod
    def assemble(cls, documents: Sequence[tuple[str, Document]], adapters: Iterable[AdapterRef] = ()) -> "Policy":
        """A policy from parsed documents, each with the name that messages use for it. Raises as `load` does."""
        _check_order(documents)
        known = know(adapters, [document for _, document in documents])
        budget = _total_budget(adapters)
        rules, notes = [], []
        for source, document in documents:
            for rule, ref in place(document, source):
                found = tuple(translate(rule, ref, known))
                rules.append(_Placed(ref, (document.scope, rule.scope), found))
                if not found and not isinstance(rule, Approve):
                    notes.append(f"{ref} concerns no known adapter, so it has no effect")
        if documents and not any(isinstance(rule, Approve) for _, each in documents for rule in each.rules):
            notes.append("no document approves adapters by digest, so any adapter of the store may be used")
        made = cls(
            digest=_digest([document for _, document in documents], budget),
            notes=tuple(notes),
            _known=known,
            _defaults=tuple(built_in(known, budget)),
            _rules=tuple(rules),
            _documents=tuple(document for _, document in documents),
        )
        made._region({})
        return made

    @property
    def is_open(self) -> bool:
        """Whether there are no documents, only the built-in defaults."""
        return not self._documents

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters that a request may name, sorted."""
        return tuple(sorted(adapter.name for adapter in self._known))

    def bounds(self) -> dict[str, tuple[int, int]]:
        """Least and most of every adapter's weight in millionths by the rules on that adapter alone which hold in every scope.

        A box around all grants that this policy can give, for whoever multiplies by weights and wants to check once more.
        """
        box = {adapter.name: [0, MILLION] for adapter in self._known}
        always = [rule for rule in self._rules if not any(scope.given() for scope in rule.scopes)]
        for each in (*self._defaults, *(found for rule in always for found in rule.constraints)):
            match [(adapter.name, coef) for adapter, coef in zip(self._known, each.coefs, strict=True) if coef]:
                case [(name, 1)]:
                    box[name][1] = min(box[name][1], each.bound)
                case [(name, -1)]:
                    box[name][0] = max(box[name][0], -each.bound)
        return {name: (least, most) for name, (least, most) in box.items()}

    def clamp(self, requested: Weights | Mapping[str, int | float | str] | str, /, **attributes: str) -> Grant:
        """The feasible weights nearest to `requested` (Euclidean, exact, then rounded inside to whole millionths).

        Args:
            requested: weights, or whatever `Weights.parse` takes.
            attributes: jurisdiction, audience, purpose, tenant. One that is not given counts as "every rule applies".

        Raises:
            WeightError: a bad number, or a name that the policy does not know (reason "unknown-adapter").
            RecipeError: an attribute that does not exist (reason "unknown-attribute"), or a value that none can have
                (reason "bad-attribute").
        """
        weights = Weights.parse(requested)
        _check_attributes(attributes)
        self._check_names(weights)
        asked = [weights.get(adapter.name, 0) for adapter in self._known]
        given, binding = self._region(attributes).clamp(asked)
        changed = {adapter.name for adapter, a, g in zip(self._known, asked, given, strict=True) if a != g}
        used = [(adapter, micro) for adapter, micro in zip(self._known, given, strict=True) if micro]
        return Grant(
            requested=weights,
            granted=Weights.from_micro({adapter.name: micro for adapter, micro in used}),
            adapter_digests=tuple(sorted((adapter.name, adapter.digest) for adapter, _ in used)),
            binding=_bindings(binding, self._known, changed),
            policy_digest=self.digest,
            scope=tuple(sorted(attributes.items())),
            is_open=self.is_open,
            seal=SEAL,
        )

    def _region(self, attributes: Mapping[str, str]) -> Region:
        # Keyed by which rules apply, not by what the request says: a stranger cannot grow it with new values.
        applies = tuple(all(scope.applies(attributes) for scope in rule.scopes) for rule in self._rules)
        region = self._compiled.get(applies)
        if region is None:
            chosen = [rule for rule, yes in zip(self._rules, applies, strict=True) if yes]
            constraints = [*self._defaults, *(each for rule in chosen for each in rule.constraints)]
            region = self._compiled[applies] = Region.compile(constraints, [adapter.name for adapter in self._known])
        return region

    def _check_names(self, weights: Weights) -> None:
        for name in weights:
            if name not in self.names:
                close = get_close_matches(name, self.names, n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                known = ", ".join(self.names) or "none, as there is neither a store nor an approve rule"
                raise WeightError(f"unknown adapter {name!r}{hint}; known are: {known}", reason="unknown-adapter")


def _check_order(documents: Sequence[tuple[str, Document]]) -> None:
    for (outer, before), (inner, after) in pairwise(documents):
        if TIERS.index(before.tier) > TIERS.index(after.tier):
            raise PolicyError(
                f"{inner} ({after.tier}) comes after {outer} ({before.tier}); give documents in the order "
                f"{', '.join(TIERS)}",
                reason="tier-order",
            )


def _check_attributes(attributes: Mapping[str, str]) -> None:
    for key, value in attributes.items():
        if key not in ATTRIBUTES:
            raise RecipeError(
                f"unknown attribute {key!r}; known are {', '.join(ATTRIBUTES)}", reason="unknown-attribute"
            )
        try:
            check_value(value)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"attribute {key}: {error}", reason="bad-attribute") from error


def _total_budget(adapters: Iterable[AdapterRef]) -> int | None:
    budget = getattr(adapters, "total_budget", None)
    if budget is not None and (not isinstance(budget, int) or isinstance(budget, bool) or budget < 0):
        raise PolicyError(
            f"the store's total_budget is {budget!r}; it must be a whole number of millionths, 0 or more",
            reason="bad-adapter",
        )
    return budget


def _digest(documents: Sequence[Document], budget: int | None) -> str:
    inside = sorted((TIERS.index(document.tier), document.digest()) for document in documents)
    content = {"documents": [list(pair) for pair in inside], "schema": 1, "total_budget": budget}
    return f"sha256:{sha256(canonical_json(content)).hexdigest()}"


def _bindings(constraints: Iterable[Constraint], known: Sequence[Known], changed: set[str]) -> tuple[Binding, ...]:
    """One binding per rule and text, over the adapters that changed; outer tiers first."""
    names: dict[tuple[RuleRef, str], set[str]] = {}
    for constraint in constraints:
        concerned = {adapter.name for adapter, coef in zip(known, constraint.coefs, strict=True) if coef}
        names.setdefault((constraint.rule, constraint.text), set()).update(concerned & changed)
    return tuple(
        Binding(tuple(sorted(found)), ref.id, ref.issuer, ref.tier, ref.source, text, ref.public_reason)
        for (ref, text), found in sorted(names.items())
    )
