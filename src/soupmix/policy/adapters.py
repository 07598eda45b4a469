"""The adapters a policy knows: those of the store, and those that approve rules name."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Protocol

from soupmix.errors import PolicyError, WeightError
from soupmix.fields import check_digest
from soupmix.policy.documents import Document
from soupmix.policy.rules import Approve, Approved
from soupmix.weights import check_name, twins

__all__ = ["AdapterRef", "KnownAdapter", "check_names", "know"]


class AdapterRef(Protocol):
    """What a policy needs to know of an adapter; a store's entries have it."""

    @property
    def name(self) -> str:
        """Its name in the store."""

    @property
    def dimension(self) -> str | None:
        """The preference dimension, for example "expertise"."""

    @property
    def pole(self) -> str | None:
        """The pole of it, for example "elementary"."""

    @property
    def digest(self) -> str:
        """Its identity, "sha256:" and 64 hex digits."""

    @property
    def tags(self) -> tuple[str, ...]:
        """Free labels that deny rules can name."""


@dataclass(frozen=True, slots=True)
class KnownAdapter:
    """One adapter, from the store or, where there is no store, from the approve rules.

    Attributes:
        available: False for an adapter that is approved but not in the store that was given.
    """

    name: str
    digest: str
    dimension: str | None
    pole: str | None
    tags: frozenset[str]
    available: bool = True

    def mismatch(self, approved: Approved) -> str | None:
        """Why this adapter is not the approved one of the same name, or None if it is."""
        if approved.digest != self.digest:
            return f"approved as {_short(approved.digest)}, but this one is {_short(self.digest)}"
        for label in ("dimension", "pole"):
            wanted, found = getattr(approved, label), getattr(self, label)
            if wanted is not None and wanted != found:
                return f"approved with {label} {wanted}, but this one has {found}"
        return None


def know(adapters: Iterable[AdapterRef], documents: Sequence[Document]) -> tuple[KnownAdapter, ...]:
    """All adapters of the store and of the approve rules, ordered by digest.

    A label that only an approve rule states is taken from it, and tags are united; where labels disagree, the
    store (or the outermost document) is believed and `KnownAdapter.mismatch` reports the other.

    Raises:
        PolicyError: two adapters of one name, two names of one adapter, or an adapter with a bad name or digest (reason
            "bad-adapter").
    """
    known: dict[str, KnownAdapter] = {}
    for ref in adapters:
        if ref.name in known:
            raise PolicyError(f"two adapters are named {ref.name!r}; names must differ", reason="bad-adapter")
        known[ref.name] = _from_store(ref)
    stored = bool(known)
    for approved in (
        item for document in documents for rule in document.rules if isinstance(rule, Approve) for item in rule.adapters
    ):
        before = known.get(approved.name)
        known[approved.name] = (
            _labelled(before, approved)
            if before
            else KnownAdapter(
                approved.name, approved.digest, approved.dimension, approved.pole, frozenset(approved.tags), not stored
            )
        )
    if found := twins((adapter.name, adapter.digest) for adapter in known.values()):
        raise PolicyError(
            f"{found[0]!r} and {found[1]!r} are one adapter ({_short(known[found[0]].digest)}), so what a rule says of one "
            "would not hold for the other; use one name for it in the store and in every approve rule",
            reason="bad-adapter",
        )
    return tuple(sorted(known.values(), key=lambda adapter: adapter.digest))


def check_names(names: Iterable[str], known: Collection[str]) -> None:
    """Raise WeightError (reason "unknown-adapter") for a name that is not known."""
    for name in names:
        if name not in known:
            close = get_close_matches(str(name), known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            listed = ", ".join(sorted(known)) or "none, as there is neither a store nor an approve rule"
            raise WeightError(f"unknown adapter {name!r}{hint}; known are: {listed}", reason="unknown-adapter")


def _from_store(ref: AdapterRef) -> KnownAdapter:
    try:
        return KnownAdapter(
            check_name(ref.name), check_digest(ref.digest), ref.dimension, ref.pole, frozenset(ref.tags)
        )
    except ValueError as error:
        raise PolicyError(f"adapter {ref.name!r}: {error}", reason="bad-adapter") from error


def _labelled(known: KnownAdapter, approved: Approved) -> KnownAdapter:
    return replace(
        known,
        dimension=known.dimension or approved.dimension,
        pole=known.pole or approved.pole,
        tags=known.tags | frozenset(approved.tags),
    )


def _short(digest: str) -> str:
    return f"{digest[:19]}..."
