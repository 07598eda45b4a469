"""Proofs for somebody who holds a checkpoint but not the log: that a record is in it, that nothing before was rewritten."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soupmix.audit.merkle import (
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
)
from soupmix.audit.notes import Checkpoint
from soupmix.audit.opening import newest_checkpoint
from soupmix.audit.records import Chain
from soupmix.audit.walk import walk
from soupmix.errors import AuditError

__all__ = ["Consistency", "Inclusion", "prove_consistency", "prove_inclusion"]


@dataclass(frozen=True, slots=True)
class Inclusion:
    """That a record stands in a log.

    Attributes:
        checkpoint: of the log. sequence: number of the record. record: its line, without the newline.
        path: hashes of 32 bytes, log2 of the size of the log many.
    """

    checkpoint: Checkpoint
    sequence: int
    record: bytes
    path: tuple[bytes, ...]

    @property
    def ok(self) -> bool:
        """Whether the proof holds; the signature of the checkpoint is for a `Verifier`."""
        leaf, root = leaf_hash(self.record), self.checkpoint.root
        return check_inclusion(leaf, self.sequence, self.checkpoint.size, root, self.path)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: hashes as hex, the checkpoint as a note, the record as text."""
        note, record, path = self.checkpoint.text(), self.record.decode("ascii"), [each.hex() for each in self.path]
        return {"checkpoint": note, "path": path, "record": record, "sequence": self.sequence}


@dataclass(frozen=True, slots=True)
class Consistency:
    """That a log at a newer checkpoint goes on from an older one, with nothing before it rewritten.

    Attributes:
        older, newer: checkpoints of one log. path: hashes of 32 bytes.
    """

    older: Checkpoint
    newer: Checkpoint
    path: tuple[bytes, ...]

    @property
    def ok(self) -> bool:
        """Whether the proof holds; the signatures of the checkpoints are for a `Verifier`."""
        if self.older.origin != self.newer.origin:
            return False
        return check_consistency(self.older.size, self.older.root, self.newer.size, self.newer.root, self.path)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: hashes as hex, checkpoints as notes."""
        path = [each.hex() for each in self.path]
        return {"newer": self.newer.text(), "older": self.older.text(), "path": path}


def prove_inclusion(folder: str | Path, sequence: int) -> Inclusion:
    """The proof that a record is in the log at its newest checkpoint.

    Raises:
        AuditError: no checkpoint covers the record (reason "no-checkpoint"), or the log is damaged.
    """
    folder = Path(folder)
    newest = newest_checkpoint(folder)
    if not 0 <= sequence < newest.size:
        raise AuditError(
            f"record {sequence} was asked for, but the newest checkpoint is about records 0 to {newest.size - 1}; make a "
            "new one with `soupmix audit checkpoint`",
            reason="no-checkpoint",
        )
    leaves, record = _leaves(folder, newest, sequence)
    return Inclusion(newest, sequence, record, tuple(inclusion_proof(leaves, sequence)))


def prove_consistency(folder: str | Path, older: Checkpoint) -> Consistency:
    """The proof that the log at its newest checkpoint goes on from an older one.

    Raises:
        AuditError: `older` is of another log ("other-log") or newer than any checkpoint here ("no-checkpoint"), or what it
            says is not what the log holds ("wrong-root"), or the log is damaged.
    """
    folder = Path(folder)
    newest = newest_checkpoint(folder)
    if older.origin != newest.origin:
        raise AuditError(f"the checkpoint is of another log, {older.origin}", reason="other-log")
    if not 0 < older.size <= newest.size:
        raise AuditError(
            f"the checkpoint is at {older.size} records, the newest here at {newest.size}; both must be above zero, in "
            "this order",
            reason="no-checkpoint",
        )
    leaves, _ = _leaves(folder, newest, 0)
    made = Consistency(older, newest, tuple(consistency_proof(leaves, older.size)))
    if not made.ok:
        raise AuditError(
            f"the first {older.size} records are not those of the checkpoint: the log was rewritten",
            reason="wrong-root",
        )
    return made


def _leaves(folder: Path, newest: Checkpoint, sequence: int) -> tuple[list[bytes], bytes]:
    """The leaf hashes of all records that the checkpoint is about, and the line of one of them."""
    chain, leaves, wanted = Chain(newest.origin), list[bytes](), b""
    for line, record in walk(folder, chain):
        if record is None or len(leaves) == newest.size:
            break
        leaves.append(chain.last)
        if record["sequence"] == sequence:
            wanted = line
    if len(leaves) < newest.size:
        raise AuditError(
            f"there was a checkpoint at {newest.size} records, but the log has {len(leaves)}: its end is gone",
            reason="truncated",
        )
    return leaves, wanted
