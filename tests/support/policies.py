"""Policies over the adapters of the shelf, made from rules in a line or two."""

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np

from soupmix.policy import Policy, parse_document
from soupmix.policy.clock import When
from tests.support.shelf import NAMES, SHELF, Shelf, digest_of

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def build(*documents: dict[str, Any], now: When = NOW) -> Policy:
    """A policy of these documents, in their order."""
    said = [(f"{n}.yaml", parse_document(json.dumps(each), f"{n}.yaml")) for n, each in enumerate(documents)]
    return Policy.assemble(said, SHELF, now=now)


def document(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What a document of an organisation says."""
    return {"tier": "organisation", "issuer": "A", "version": "1", "rules": list(rules), **more}


def load(*rules: dict[str, Any], now: datetime | None = NOW, **more: Any) -> Policy:
    """A policy of one document of an organisation."""
    content = {"tier": "organisation", "issuer": "A", "version": "1", "rules": list(rules), **more}
    return Policy.assemble([("x.yaml", parse_document(json.dumps(content), "x.yaml"))], SHELF, now=now)


def together(*names: str, until: str = "2027-01-01", **more: str) -> dict[str, Any]:
    """One entry of a rule `combinations`."""
    return {"adapters": list(names), "evidence": {"report": digest_of("r"), "until": until}, **more}


class Measured(Shelf):
    """A shelf that records inner products, as a store does."""

    base_norm = 100.0
    gram: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"

    def inner_product(self, one: str, other: str) -> float:
        return float(f"{self.gram[NAMES.index(one), NAMES.index(other)]:.10g}")


def measured(seed: int, dependent: bool = False) -> Measured:
    """The shelf with random inner products, of deltas that are linearly dependent or not."""
    draw = np.random.default_rng(seed)
    factors = draw.standard_normal((6, 2 if dependent else 8)) * draw.uniform(0.3, 3, (6, 1))
    made = Measured(SHELF)
    made.gram = factors @ factors.T
    return made


def norm_policy(shelf: Shelf, share: float | None, metric: Any = "weights", *more: dict[str, Any]) -> Policy:
    """A policy of a bound on the norm, if a share of the base's is given, and of more rules."""
    rules = [*more, *([{"rule": "norm", "at_most": f"{share:.6f}", "id": "norm"}] if share is not None else [])]
    content = {"tier": "organisation", "issuer": "A", "version": "1", "rules": rules}
    return Policy.assemble([("x.yaml", parse_document(json.dumps(content), "x.yaml"))], shelf, metric=metric)
