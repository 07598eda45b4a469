"""A policy from signed sets: one repository per tier, each with its own root; the tiers are intersected as ever."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

from soupmix.errors import PolicyError
from soupmix.policy import AdapterRef, Document, Metric, Policy, parse_document
from soupmix.policy.clock import Reading, When
from soupmix.policy.inventory import check_inventory
from soupmix.policy.parsing import read_text
from soupmix.trust.layout import DOCUMENT, INVENTORY
from soupmix.trust.sets import SignedSet, SignedSource, read_set

__all__ = ["SignedPolicy", "load_signed"]

_UNSIGNED_STORE: Final = (
    f"no signed set says what the store holds ({INVENTORY}), so whoever can write to the store decides which rules concern an "
    "adapter; publish with --store"
)


@dataclass(frozen=True, slots=True)
class SignedPolicy:
    """A policy, and the signed sets it was made from.

    Attributes:
        policy: to clamp with. sets: tier -> what was read.
        expires: when to read again; the first expiry of any set. The policy ends then, too.
    """

    policy: Policy
    sets: Mapping[str, SignedSet]
    expires: datetime


def load_signed(
    *,
    law: SignedSource | None = None,
    organisation: SignedSource | None = None,
    user: Iterable[str | Path] = (),
    adapters: Iterable[AdapterRef] = (),
    now: When = None,
    metric: Metric = "weights",
) -> SignedPolicy:
    """Read the signed sets of the outer tiers and the user's own documents, and intersect them.

    The keys of one tier say nothing about another: whoever holds the organisation's keys can take more away, and can give
    nothing back that the law took.

    Args:
        law, organisation: at least one of them.
        user: files of the innermost tier; they are not signed, and like every document they can only take away.
        adapters, metric: as for `Policy.load`; they must be what the sets say of the store, where a set holds an inventory
            (`soupmix-store.json`). now: whose time, as for `Policy.load`: signatures, windows and reports are judged at one
            instant, and what ends first of them ends the policy.

    Raises:
        PolicyError: a set is refused (see `read_set`), holds no document ("empty"), a document is of another tier than the
            set it comes from ("tier-mismatch"), the adapters are labelled or measured otherwise than was signed
            ("store-changed"), or as `Policy.load` raises.
    """
    reading = Reading.of(now)
    sources = {"law": law, "organisation": organisation}
    given = {tier: source for tier, source in sources.items() if source is not None}
    if not given:
        raise PolicyError("no signed set is named; give the law's, the organisation's or both", reason="empty")
    sets = {tier: read_set(source, now=reading.at) for tier, source in given.items()}
    placed = [(tier, *each) for tier, found in sets.items() for each in _documents(tier, given[tier].folder, found)]
    placed += [("user", path.name, parse_document(read_text(path), path.name)) for path in map(Path, user)]
    for tier, source, document in placed:
        _check_tier(tier, source, document)
    expiries = {f"the signed set of the {tier}": found.expires for tier, found in sets.items()}
    documents = [(source, document) for _, source, document in placed]
    held = adapters if isinstance(adapters, Sized) else tuple(adapters)
    # without a store, what is approved says it all, and is signed
    notes = _check_store(sets, held) if len(held) else ()
    remarks = (*_data(sets), *notes)
    policy = Policy.assemble(documents, held, now=reading, metric=metric, expiries=expiries, remarks=remarks)
    return SignedPolicy(policy, MappingProxyType(sets), min(expiries.values()))


def _check_store(sets: Mapping[str, SignedSet], adapters: Iterable[AdapterRef]) -> tuple[str, ...]:
    """Hold the store to every set that says what it is; a remark if none does."""
    pinned = [(tier, found.files[INVENTORY]) for tier, found in sets.items() if INVENTORY in found.files]
    for tier, data in pinned:
        check_inventory(data, f"{INVENTORY} of the signed set of the {tier}", adapters)
    return () if pinned else (_UNSIGNED_STORE,)


def _data(sets: Mapping[str, SignedSet]) -> Iterator[str]:
    """What is no document and so says nothing, told, as somebody may think that it does."""
    for tier, found in sets.items():
        for name in found.files:
            if name != INVENTORY and not name.endswith(DOCUMENT):
                yield f"{name} in the signed set of the {tier} is data and no policy document ({DOCUMENT}); no rule in it holds"


def _documents(tier: str, folder: Path, found: SignedSet) -> Iterator[tuple[str, Document]]:
    names = [name for name in found.files if name.endswith(DOCUMENT)]
    if not names:
        raise PolicyError(
            f"the signed set of the {tier} in {folder} holds no policy document ({DOCUMENT}); publish one",
            reason="empty",
        )
    for name in names:
        try:
            text = found.files[name].decode("utf-8")
        except UnicodeDecodeError as error:
            raise PolicyError(f"policy {name} of {folder} is not UTF-8 text", reason="unreadable") from error
        yield name, parse_document(text, name)


def _check_tier(tier: str, source: str, document: Document) -> None:
    if document.tier != tier:
        where = "is not signed" if tier == "user" else f"comes from the signed set of the {tier}"
        raise PolicyError(
            f"{source} says that its tier is {document.tier}, but it {where}; only a {tier} document may stand there",
            reason="tier-mismatch",
        )
