"""The document that approves adapters and their combinations, with the evidence it rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from soupmix.errors import RecipeError
from soupmix.files import sha256_file
from soupmix.policy import Document, parse_document
from soupmix.store.store import Store

__all__ = ["Approval", "draft", "file_digest"]

_HEADING = """\
# Written by `soupmix approve`. What is not listed, by digest, has weight 0; what is not listed together is not mixed.
# Passing the screen proves nothing: these combinations rest on the report whose digest they carry, until the day given.
"""


@dataclass(frozen=True, slots=True)
class Approval:
    """What is approved: the combinations, the digest of the report they rest on, the last day that it counts, by whom."""

    combinations: tuple[tuple[str, ...], ...]
    report: str
    until: date
    issuer: str
    version: str
    total: str | None = None


def file_digest(report: Path) -> str:
    """The digest of a report that is any file. Raises `RecipeError` if it cannot be read (reason "unreadable")."""
    try:
        return f"sha256:{sha256_file(report)}"
    except OSError as error:
        raise RecipeError(f"the report {report} cannot be read: {error.strerror}", reason="unreadable") from error


def draft(store: Store, approval: Approval) -> tuple[str, Document]:
    """The document as YAML text, and as it will be read.

    Raises:
        RecipeError: no combination is given. WeightError: no such adapter.
        PolicyError: the document would not be valid.
    """
    if not approval.combinations:
        raise RecipeError("say what was evaluated together: --combination elementary+friendly", reason="empty")
    evidence = {"report": approval.report, "until": approval.until.isoformat()}
    names = sorted({name for each in approval.combinations for name in each})
    content: dict[str, Any] = {
        "tier": "organisation",
        "issuer": approval.issuer,
        "version": approval.version,
        "rules": [
            {"id": "approved", "rule": "approve", "adapters": [_listed(store, name, evidence) for name in names]},
            {"id": "evaluated-together", "rule": "combinations", "allow": _combinations(approval, evidence)},
        ],
    }
    text = _HEADING + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=130, allow_unicode=False)
    return text, parse_document(text, "the drafted document")


def _listed(store: Store, name: str, evidence: Mapping[str, str]) -> dict[str, Any]:
    entry = store[name]
    labels = {"dimension": entry.dimension, "pole": entry.pole} | ({"tags": list(entry.tags)} if entry.tags else {})
    return {"name": name, "digest": entry.digest, **labels, "evidence": dict(evidence)}


def _combinations(approval: Approval, evidence: Mapping[str, str]) -> Sequence[dict[str, Any]]:
    total = {} if approval.total is None else {"at_most": approval.total}
    return [{"adapters": sorted(each), **total, "evidence": dict(evidence)} for each in approval.combinations]
