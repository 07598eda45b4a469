"""What the operator of a vLLM server says of its soups: a JSON file, and what it names."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from soupmix.errors import PolicyError, RecipeError
from soupmix.fields import Edge, read_model
from soupmix.policy import Metric, Policy
from soupmix.policy.clock import Reading
from soupmix.sealed import read_sealed
from soupmix.store import Store
from soupmix.vllm_plugin.row import read_key

if TYPE_CHECKING:
    from soupmix.trust import SignedSource

__all__ = ["Setup", "read_setup"]

_MOST = 1 << 20


class _Source(Edge):
    folder: Path
    root: Path
    floor: int = 0


class _Said(Edge):
    store: Path | None = None
    key: Path
    policy: tuple[Path, ...] = ()
    trust: dict[Literal["law", "organisation"], _Source] = Field(default_factory=dict)
    metric: Metric = "weights"
    open: bool = False
    refresh: Annotated[float, Field(gt=0, le=86400)] = 60.0


@dataclass(frozen=True, slots=True)
class Setup:
    """What a vLLM server serves soups from, and under what.

    Attributes:
        store: the adapters. key: shared with whoever signs rows.
        documents, trust, metric: the policy's, as for `soupmix serve`. is_open: there is none, and the operator says so.
        refresh: seconds after which the policy is read again: no request is checked by one that was read longer ago.
    """

    store: Store
    key: bytes
    documents: tuple[Path, ...]
    trust: "dict[str, SignedSource]"
    metric: Metric
    is_open: bool
    refresh: float

    @property
    def adapters(self) -> tuple[tuple[str, str], ...]:
        """(name, digest) of the adapters of the store, in the order of the weights of a row."""
        return tuple((entry.name, entry.digest) for entry in self.store)

    def policy(self) -> tuple[Policy, datetime]:
        """The policy as its documents say it now, and when that is."""
        reading = Reading.of(None)
        if self.trust:
            from soupmix.trust import load_signed

            made = load_signed(
                law=self.trust.get("law"),
                organisation=self.trust.get("organisation"),
                user=self.documents,
                adapters=self.store,
                metric=self.metric,
                now=reading,
            )
            return made.policy, reading.at
        if self.documents:
            return Policy.load(*self.documents, adapters=self.store, metric=self.metric, now=reading), reading.at
        return Policy.open(self.store, metric=self.metric), reading.at


def read_setup(path: Path) -> Setup:
    """A setup from its file; paths in it are relative to the file's folder.

    Keys of the file: `key` (a file with at least 32 bytes), `store` (the shipped one if not given), `policy` (documents, outer
    tier first), `trust` ({"organisation": {"folder", "root", "floor"}}), `metric`, `open`, `refresh`.

    Raises:
        FileError: a file cannot be read. RecipeError: the file says something else (reason "bad-setup").
        PolicyError: there is no policy, and the file does not say `"open": true` ("no-policy"), or it says both.
        AdapterError: there is no such store.
    """
    raw, _ = read_sealed(path, cap=_MOST)
    try:
        said = read_model(_Said, raw)
    except ValueError as error:
        raise RecipeError(f"{path} is no setup of soups in vLLM: {error}", reason="bad-setup") from None
    _check_policy(path, said)
    base = path.parent
    return Setup(
        store=Store.shipped() if said.store is None else Store(base / said.store),
        key=read_key(base / said.key),
        documents=_within(base, said.policy),
        trust=_sources(base, said),
        metric=said.metric,
        is_open=said.open,
        refresh=said.refresh,
    )


def _check_policy(path: Path, said: _Said) -> None:
    has_policy = bool(said.policy or said.trust)
    if not has_policy and not said.open:
        raise PolicyError(
            f'{path} names no policy, so no soups are served; name one under "policy" or "trust", or say "open": true to '
            "serve without any",
            reason="no-policy",
        )
    if has_policy and said.open:
        raise PolicyError(f'{path} names a policy and says "open": true; leave one of them out', reason="no-policy")


def _within(base: Path, paths: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(base / each for each in paths)


def _sources(base: Path, said: _Said) -> "dict[str, SignedSource]":
    if not said.trust:
        return {}
    from soupmix.trust import SignedSource

    return {
        tier: SignedSource.pinned(base / each.folder, base / each.root, floor=each.floor)
        for tier, each in said.trust.items()
    }
