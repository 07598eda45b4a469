"""What a store says of its adapters, as a file that a signed set can hold: digests, labels, the budget, the norms.

A policy rests on all of it: a rule on a dimension binds the adapters that the store says are of that dimension. So whoever
signs the documents signs it too, and a manifest that says otherwise is refused.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from soupmix.errors import PolicyError
from soupmix.fields import Digest, Edge, Name, read_model
from soupmix.policy.adapters import AdapterRef
from soupmix.policy.digest import norms_digest

__all__ = ["check_inventory", "inventory"]


class _Adapter(Edge):
    digest: Digest
    dimension: str | None
    pole: str | None
    tags: tuple[str, ...]


class _Inventory(Edge):
    version: Literal[1] = Field(alias="schema")
    adapters: dict[Name, _Adapter]
    total_budget: Annotated[int, Field(strict=True)] | None
    norms: Digest | None


def inventory(adapters: Iterable[AdapterRef]) -> dict[str, Any]:
    """What a store says, as JSON; of the inner products and the norm of the base only the digest."""
    return {
        "adapters": {
            each.name: {
                "digest": each.digest,
                "dimension": each.dimension,
                "pole": each.pole,
                "tags": sorted(each.tags),
            }
            for each in adapters
        },
        "norms": norms_digest(adapters),
        "schema": 1,
        "total_budget": getattr(adapters, "total_budget", None),
    }


def check_inventory(data: bytes, source: str, adapters: Iterable[AdapterRef]) -> None:
    """Refuse a store that says anything else than what was signed.

    Args:
        data: the inventory, as JSON. source: where it stands, for messages.

    Raises:
        PolicyError: the store is another or says something else ("store-changed"), or this is no inventory ("bad-inventory").
    """
    try:
        signed = read_model(_Inventory, data).model_dump(mode="json")
    except ValueError as error:
        raise PolicyError(f"{source} is no inventory of a store: {error}", reason="bad-inventory") from error
    if (why := _difference(signed, inventory(adapters))) is not None:
        raise PolicyError(
            f"the store is not as {source} says: {why}; use the store that was signed, or sign this one with "
            "`soupmix trust publish --store`",
            reason="store-changed",
        )


def _difference(signed: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """The first thing of which a store says something else than was signed, in words; None if there is none."""
    for name in sorted(signed["adapters"].keys() | found["adapters"].keys()):
        if name not in found["adapters"]:
            return f"adapter {name!r} is not in it"
        if name not in signed["adapters"]:
            return f"adapter {name!r} was not signed"
        was, now = signed["adapters"][name], found["adapters"][name]
        for label in was:
            if was[label] != now[label]:
                return f"{label} of {name!r} was {was[label]!s:.80} and is {now[label]!s:.80}"
    if signed["total_budget"] != found["total_budget"]:
        return f"total_budget was {signed['total_budget']} millionths and is {found['total_budget']}"
    return None if signed["norms"] == found["norms"] else "its norms are others (gram, base_norm)"
