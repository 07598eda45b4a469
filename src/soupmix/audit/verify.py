"""Is a log what was written? Chain, tree and checkpoints, all computed anew; and proofs for somebody who has a checkpoint only.

What this shows and what not is in docs/audit.md: changes are found, and a cut end back to the newest checkpoint that is
held where whoever cuts cannot reach it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soupmix.audit.checkpoints import Checkpoint, Verifier
from soupmix.audit.merkle import (
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
)
from soupmix.audit.records import Chain
from soupmix.audit.segments import CHECKPOINTS, newest_checkpoint, read_checkpoints, read_origin, segments
from soupmix.audit.walk import walk
from soupmix.errors import AuditError
from soupmix.findings import Finding, Verdict

__all__ = ["Consistency", "Inclusion", "LogVerdict", "prove_consistency", "prove_inclusion", "verify"]


@dataclass(frozen=True, slots=True, repr=False)
class LogVerdict(Verdict):
    """What was found out about a log; with no findings it is as it was written.

    Attributes:
        origin: which log. records: how many were good, from the first on. root: of their tree, hex.
        segments, checkpoints: how many files of records, and checkpoints in the log, there are.
        held: checkpoints from outside that were compared. signed: how many of all are signed.
        signatures_checked: whether a key was given to check them with.
        unfinished: bytes of a last line that was never finished, and of which nobody was told.
    """

    origin: str
    records: int
    root: str
    segments: int
    checkpoints: int
    held: int
    signed: int
    signatures_checked: bool
    unfinished: int


def verify(folder: str | Path, *, verifier: Verifier | None = None, held: Sequence[Checkpoint] = ()) -> LogVerdict:
    """Read a whole log and compute everything anew. It may be open for writing meanwhile.

    Args:
        verifier: with it, every checkpoint must bear a good signature.
        held: checkpoints of this log that were kept elsewhere. Only these show that its end was not cut off, or all of it
            written anew.

    Returns:
        Findings of the kinds "bad-record", "wrong-sequence", "broken-chain", "missing-segment", "damaged" (the first bad
        place; nothing behind it is read), "wrong-root", "truncated", "bad-checkpoint", "other-log", "unsigned" and
        "bad-signature", about "records" or "checkpoints".

    Raises:
        AuditError: the folder holds no log (reason "no-log"). OutputError: a file cannot be read.
    """
    folder = Path(folder)
    origin = read_origin(folder)
    own, findings = _own(folder)  # before the records: a checkpoint is written after what it is about
    notes = sorted([*own, *held], key=lambda each: each.size)
    findings += _signatures(notes, origin, verifier)
    chain, unfinished = Chain(origin), 0
    waiting = [each for each in notes if each.origin == origin and each.size]
    agreed = 0
    try:
        for line, record in walk(folder, chain):
            if record is None:
                unfinished = len(line)
            while waiting and waiting[0].size == chain.tree.size:
                findings += _compare(waiting[0], chain, agreed)
                agreed = waiting.pop(0).size
    except AuditError as error:
        findings.append(Finding(error.reason, "records", str(error)))
    else:
        findings += [_cut(each, chain) for each in waiting if each.size > chain.tree.size]
    return LogVerdict(
        origin=origin,
        records=chain.tree.size,
        root=chain.tree.root().hex(),
        segments=len(segments(folder)),
        checkpoints=len(own),
        held=len(held),
        signed=sum(bool(each.signatures) for each in notes),
        signatures_checked=verifier is not None,
        unfinished=unfinished,
        findings=tuple(findings),
    )


def _own(folder: Path) -> tuple[list[Checkpoint], list[Finding]]:
    found: list[Checkpoint] = []
    try:
        for each in read_checkpoints(folder):
            if found and each.size < found[-1].size:
                message = f"{CHECKPOINTS}: a checkpoint at {each.size} records stands behind one at {found[-1].size}"
                return found, [Finding("bad-checkpoint", "checkpoints", message)]
            found.append(each)
    except AuditError as error:
        return found, [Finding(error.reason, "checkpoints", str(error))]
    return found, []


def _signatures(notes: Sequence[Checkpoint], origin: str, verifier: Verifier | None) -> Iterator[Finding]:
    for note in notes:
        if note.origin != origin:
            message = f"a checkpoint at {note.size} records is of another log, {note.origin}; this one is {origin}"
            yield Finding("other-log", "checkpoints", message)
        elif verifier is not None:
            try:
                verifier.check(note)
            except AuditError as error:
                yield Finding(error.reason, "checkpoints", str(error))


def _compare(note: Checkpoint, chain: Chain, agreed: int) -> Iterator[Finding]:
    if (note.root, note.last) != (chain.tree.root(), chain.last):
        message = f"records {agreed} to {note.size - 1} are not those of the checkpoint at {note.size} records"
        yield Finding("wrong-root", "records", message)


def _cut(note: Checkpoint, chain: Chain) -> Finding:
    message = f"there was a checkpoint at {note.size} records, but the log has {chain.tree.size}: its end is gone"
    return Finding("truncated", "records", message)


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
