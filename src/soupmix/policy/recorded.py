"""What a grant says, and the record of one. A record lets nothing through: it is for reading, comparing and repeating."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from soupmix.errors import PolicyError, WeightError
from soupmix.fields import Digest, check_digest
from soupmix.public import public
from soupmix.weights import Weights, decimal_text

__all__ = ["Binding", "DocumentRef", "Metric", "RecordedDocument", "RecordedGrant", "read_record"]

Metric = Literal["weights", "delta"]
"""What a clamp keeps small: the change of the weights, or of the merged delta."""


@public
@dataclass(frozen=True, slots=True)
class Binding:
    """A rule that held a request back.

    Attributes:
        adapters: the adapters whose weight it changed, sorted.
        rule: its id in its document.
        issuer: of the document.
        tier: of the document, "law", "organisation" or "user".
        document: name of the file that it stands in.
        limit: what it limits, in words.
        public_reason: why, as the issuer tells it, or None.
        multiplier: how hard it pulls, in units of weight with six digits: how far the nearest point would come towards
            the request if the limit gave way by as much (Lagrange multiplier); of a bound on the norm, a plain number.
    """

    adapters: tuple[str, ...]
    rule: str
    issuer: str
    tier: str
    document: str
    limit: str
    public_reason: str | None
    multiplier: str = "0"

    def __str__(self) -> str:
        place = self.document if self.document == self.tier else f"{self.document} ({self.tier})"
        return f"{place}: {self.limit}" + (f"; {self.public_reason}" if self.public_reason else "")

    def __repr__(self) -> str:
        return f"<Binding of {', '.join(self.adapters)}: {self}>"


@public
@dataclass(frozen=True, slots=True)
class DocumentRef:
    """Which document a grant was made under.

    Attributes:
        document: name of its file.
        tier: "law", "organisation" or "user".
        issuer: as it says.
        version: as it says.
        digest: "sha256:..." of what it says, whatever its layout and name.
    """

    document: str
    tier: str
    issuer: str
    version: str
    digest: str

    def __str__(self) -> str:
        return f"{self.document}: {self.tier}, by {self.issuer}, version {self.version}, {self.digest}"

    def __repr__(self) -> str:
        return f"<DocumentRef {self.document} ({self.tier}), {self.digest[:19]}...>"


@dataclass(frozen=True, slots=True)
class RecordedGrant:
    """What a grant says. Of itself it is a record, which merging and generating refuse: see `Grant`.

    Attributes:
        requested: as asked for.
        granted: what may be merged, without zeros.
        adapter_digests: (name, "sha256:...") of the granted adapters, sorted by name; also as mapping `digests`.
        binding: the rules that made the difference.
        policy_digest: "sha256:..." of the documents.
        is_open: there are no documents, only the built-in defaults.
        distance: how far granted and requested are apart, in units of weight with six digits; "0" if they are not.
        metric: what distance means, "weights" (Euclidean) or "delta" (norm of the merged delta, relative to the largest).
        scope: (attribute, value) pairs the request stated, sorted; also as mapping `attributes`.
        sources: (adapter or "*", source) pairs the request stated, sorted.
        obligations: what the organisation must do when it uses this grant, see `soupmix.policy.obligations`.
        norm_rule: the rule that bounds the norm of the merged delta, in words, or None. Then rows merge by the weighted sum of
            deltas alone, and what is merged otherwise, at load time, is made no longer than it.
        documents: which documents there were, outer tier first; older records name none.
        notes: what is worth knowing of the request, one sentence each: attributes with a value that no document names. They are
            no part of a record.
    """

    requested: Weights
    granted: Weights
    adapter_digests: tuple[tuple[str, str], ...]
    binding: tuple[Binding, ...]
    policy_digest: str
    scope: tuple[tuple[str, str], ...]
    is_open: bool
    distance: str = "0"
    metric: str = "weights"
    sources: tuple[tuple[str, str], ...] = ()
    obligations: tuple[str, ...] = ()
    norm_rule: str | None = None
    documents: tuple[DocumentRef, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def digests(self) -> dict[str, str]:
        """Adapter name -> "sha256:..." of what was granted."""
        return dict(self.adapter_digests)

    @property
    def weighted(self) -> tuple[tuple[str, int], ...]:
        """(digest, millionths) of what was granted: what a merge identity is made of."""
        digests = self.digests
        return tuple([(digests[name], micro) for name, micro in self.granted.items()])

    @property
    def policies(self) -> tuple[DocumentRef, ...] | None:
        """The documents that it was made under, none of an open policy; None where an older record does not name them."""
        return self.documents if self.documents or self.is_open else None

    @property
    def attributes(self) -> dict[str, str]:
        """What the request said about itself."""
        return dict(self.scope)

    @property
    def clamped(self) -> bool:
        """Whether anything differs from what was requested."""
        return self.granted != self.requested.nonzero()

    def explain(self) -> str:
        """One line per adapter: requested -> granted, and the rules that bound, one a line."""
        names = sorted({*self.requested.nonzero(), *self.granted})
        lines = ["no policy is applied: only the built-in defaults hold"] if self.is_open else []
        heads = {name: self._change(name) for name in names}
        width = max(map(len, heads.values()), default=0)
        for name in names:
            reasons = [str(each) for each in self.binding if name in each.adapters] or [""]
            lines += [
                f"{head:<{width}}   {reason}".rstrip()
                for head, reason in zip([heads[name], *[""] * len(reasons)], reasons, strict=False)
            ]
        if not self.granted:
            lines.append("nothing granted: the base model as it is")
        if self.obligations:
            lines.append(f"obliged to: {', '.join(self.obligations)}")
        lines += [f"note: {each}" for each in self.notes]
        return "\n".join(lines)

    def _change(self, name: str) -> str:
        asked, given = self.requested.get(name, 0), self.granted.get(name, 0)
        change = f" -> {decimal_text(given)}" if asked != given else ""
        return f"{name} {decimal_text(asked)}{change}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON, weights as decimal text; `read_record` reads it back."""
        norm = {} if self.norm_rule is None else {"norm_rule": self.norm_rule}
        named = {"documents": [asdict(each) for each in self.documents]} if self.documents else {}
        return (
            named
            | norm
            | {
                "attributes": self.attributes,
                "binding": [_recorded(each) for each in self.binding],
                "clamped": self.clamped,
                "digests": self.digests,
                "distance": self.distance,
                "granted": self.granted.decimals(),
                "metric": self.metric,
                "obligations": list(self.obligations),
                "open": self.is_open,
                "policy_digest": self.policy_digest,
                "requested": self.requested.decimals(),
                "schema": 1,
                "sources": dict(self.sources),
            }
        )

    def __repr__(self) -> str:
        asked = f" for {self.requested}" if self.clamped else ""
        return f"<{type(self).__name__} of {self.granted or 'nothing'}{asked}, under {self.policy_digest[:19]}...>"


def read_record(record: Mapping[str, Any]) -> RecordedGrant:
    """What a grant's `to_dict` wrote, for repeating a finished merge and comparing it: it lets nothing through.

    Raises:
        PolicyError: the record is damaged or contradicts itself (reason "bad-record").
    """
    if not isinstance(record, Mapping):
        raise PolicyError("damaged grant record: it is no JSON object", reason="bad-record")
    try:
        read = _Record.model_validate(dict(record))
        found = RecordedGrant(
            requested=Weights(read.requested),
            granted=Weights(read.granted).nonzero(),
            adapter_digests=tuple(sorted((name, check_digest(text)) for name, text in read.digests.items())),
            binding=tuple(Binding(**each.model_dump()) for each in read.binding),
            policy_digest=check_digest(read.policy_digest),
            scope=tuple(sorted(read.attributes.items())),
            is_open=read.open,
            distance=read.distance,
            metric=read.metric,
            sources=tuple(sorted(read.sources.items())),
            obligations=read.obligations,
            norm_rule=read.norm_rule,
            documents=tuple(each.ref() for each in read.documents),
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise PolicyError(f"damaged grant record: {place}: {first['msg']}", reason="bad-record") from error
    except (WeightError, ValueError) as error:
        raise PolicyError(f"damaged grant record: {error}", reason="bad-record") from error
    if found.to_dict() != dict(record):
        raise PolicyError("damaged grant record: it contradicts itself", reason="bad-record")
    return found


def _recorded(binding: Binding) -> dict[str, Any]:
    """A record calls the document its source."""
    said = {"source" if name == "document" else name: value for name, value in asdict(binding).items()}
    return said | {"adapters": list(binding.adapters)}


class _RecordedBinding(BaseModel):
    model_config = ConfigDict(extra="forbid")

    adapters: tuple[str, ...]
    rule: str
    issuer: str
    tier: str
    document: str = Field(alias="source")
    limit: str
    public_reason: str | None
    multiplier: str


class RecordedDocument(BaseModel):
    """Which document a record was made under, as it is written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    document: str
    tier: str
    issuer: str
    version: str
    digest: Digest

    def ref(self) -> DocumentRef:
        """The same, as grants have it."""
        return DocumentRef(**self.model_dump())


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")

    attributes: dict[str, str]
    binding: tuple[_RecordedBinding, ...]
    clamped: bool
    digests: dict[str, str]
    distance: str
    documents: tuple[RecordedDocument, ...] = ()
    granted: dict[str, str]
    metric: Metric
    norm_rule: str | None = None
    obligations: tuple[str, ...]
    open: bool
    policy_digest: str
    requested: dict[str, str]
    sources: dict[str, str]
    version: Literal[1] = Field(alias="schema")
