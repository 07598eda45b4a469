"""The identity of a policy: all that decides what it grants, wherever that is written down."""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import combinations_with_replacement
from typing import Any

from soupmix.files import canonical_json
from soupmix.policy.adapters import AdapterRef, KnownAdapter
from soupmix.policy.documents import TIERS, Document
from soupmix.projection import AnyConstraint, Ball, Space

__all__ = ["digests_of", "norms_digest"]


def digests_of(
    documents: Sequence[Document],
    known: Sequence[KnownAdapter],
    adapters: Iterable[AdapterRef],
    budget: int | None,
    space: Space | None,
    constraints: Iterable[AnyConstraint],
) -> tuple[str, str]:
    """ "sha256:<hex>" of a policy, and the same of schema 1, as records of before call it.

    Schema 1 took nothing but the budget from the store: not the labels, and not the norms that a rule or the metric rests on.

    Args:
        documents: what they say counts, not their names, layout or order within a tier.
        known: the adapters, with the labels that rules and defaults go by. adapters: the store, if it is one.
        budget: the store's, millionths. space: with the metric, if it is not the Euclidean one. constraints: of all rules.
    """
    inside = sorted((TIERS.index(document.tier), document.digest()) for document in documents)
    content: dict[str, Any] = {"documents": [list(pair) for pair in inside], "total_budget": budget}
    if space is not None:
        content["metric"] = [list(row) for row in space.metric or ()]
    labels = [[a.name, a.digest, a.dimension, a.pole, sorted(a.tags), a.available] for a in known]
    by_norm = space is not None or any(isinstance(each, Ball) for each in constraints)
    norms = norms_digest(adapters) if by_norm else None
    return _digest(content | {"adapters": labels, "norms": norms, "schema": 2}), _digest(content | {"schema": 1})


def norms_digest(adapters: Iterable[AdapterRef]) -> str | None:
    """ "sha256:<hex>" of all norms that a store records, each to ten digits; None if it records none."""
    product, base = getattr(adapters, "inner_product", None), getattr(adapters, "base_norm", None)
    if product is None:
        return None
    names = sorted(adapter.name for adapter in adapters)
    inner = [f"{product(one, other):.10g}" for one, other in combinations_with_replacement(names, 2)]
    return _digest({"base": None if base is None else f"{base:.10g}", "inner": inner, "names": names})


def _digest(content: dict[str, Any]) -> str:
    return f"sha256:{sha256(canonical_json(content)).hexdigest()}"
